"""How long a protected boot takes beside a plain boot of the same kernel, ramdisk and command line on the same QEMU.

Each round boots both, one after the other, and measures from the start of QEMU to the first line of /init. The ratio
is what is claimed: it holds on slow and on busy machines alike. The Debian kernel is fetched once, into the cache.

    python benchmarks/boot.py [--rounds N] [--swiotlb SLOTS …] [--memory MIB] [--suite trixie|sid] [--no-run-ahead]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from zseal.host.debian import DebianArchive
from zseal.host.guest import Guest
from zseal.host.ramdisk import busybox_ramdisk
from zseal.hostkeys.machine import Machine
from zseal.image import build_image

READY = "zseal-benchmark-ready"
INIT = f"#!/bin/sh\necho {READY}\n/bin/busybox poweroff -f\n"
TIMEOUT = 600.0


def boot_seconds(guest: Guest) -> float:
    """Seconds from creating the machine until /init speaks."""
    start = time.perf_counter()
    with guest:
        guest.wait_for_output(READY, TIMEOUT)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--swiotlb", type=int, nargs="*", default=[0, 4096, 262144], help="slots of 2 KiB, 0: default")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--no-run-ahead", action="store_true")
    options = parser.parse_args()

    archive = DebianArchive(options.suite)
    kernel = archive.kernel()
    print(f"Debian {kernel.release}, {options.memory} MiB, {options.rounds} rounds; seconds to /init, medians")
    print(f"{'pool':>16} {'plain':>8} {'protected':>10} {'ratio':>7} {'best':>7} {'worst':>7}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ramdisk = directory / "ramdisk"
        ramdisk.write_bytes(busybox_ramdisk(archive.busybox(), INIT))
        machine = Machine.create(directory / "machine")
        for slots in options.swiotlb:
            cmdline = "quiet" + (f" swiotlb={slots}" if slots else "")
            image = directory / f"image-{slots}"
            build_image(
                image,
                kernel=kernel.kernel,
                ramdisk=ramdisk,
                cmdline=cmdline.encode(),
                host_keys=[machine.keys.host.public_key()],
            )
            plain, protected = [], []
            for _ in range(options.rounds):
                memory = options.memory << 20
                plain.append(boot_seconds(Guest.plain(kernel.kernel, ramdisk=ramdisk, cmdline=cmdline, memory=memory)))
                protected.append(
                    boot_seconds(Guest(image, machine=machine, memory=memory, run_ahead=not options.no_run_ahead))
                )
            ratios = [mine / theirs for mine, theirs in zip(protected, plain, strict=True)]
            pool = f"{slots * 2 // 1024} MiB" if slots else "default (64 MiB)"
            print(
                f"{pool:>16} {statistics.median(plain):8.2f} {statistics.median(protected):10.2f}"
                f" {statistics.median(ratios):7.3f} {min(ratios):7.3f} {max(ratios):7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
