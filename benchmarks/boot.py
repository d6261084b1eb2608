"""How long a protected boot takes beside a plain boot of the same kernel, ramdisk and command line on the same QEMU.

Each round boots both, one after the other, and measures from the start of QEMU to the first line of /init. The ratio
is what is claimed: it holds on slow and on busy machines alike. The Debian kernel is fetched once, into the cache.

    python benchmarks/boot.py [--rounds N] [--swiotlb SLOTS …] [--memory MIB] [--suite trixie|sid] [--no-run-ahead]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import boot_plain, boot_protected, pairs, workshop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--swiotlb", type=int, nargs="*", default=[0, 4096, 262144], help="slots of 2 KiB, 0: default")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--no-run-ahead", action="store_true")
    options = parser.parse_args()
    memory = options.memory << 20

    with workshop(options.suite) as shop:
        print(f"Debian {shop.kernel.release}, {options.memory} MiB, {options.rounds} rounds; seconds to /init, medians")
        print(f"{'pool':>16} {'plain':>8} {'protected':>10} {'ratio':>7} {'best':>7} {'worst':>7}")
        for slots in options.swiotlb:
            subject = shop.boots(slots)
            found = pairs(
                options.rounds,
                functools.partial(boot_protected, subject, memory, run_ahead=not options.no_run_ahead),
                functools.partial(boot_plain, subject, memory),
            )
            ratios = [pair.ratio for pair in found]
            pool = f"{slots * 2 // 1024} MiB" if slots else "default (64 MiB)"
            print(
                f"{pool:>16} {statistics.median(pair.plain for pair in found):8.2f}"
                f" {statistics.median(pair.protected for pair in found):10.2f}"
                f" {statistics.median(ratios):7.3f} {min(ratios):7.3f} {max(ratios):7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
