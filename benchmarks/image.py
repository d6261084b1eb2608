"""How fast images are built and verified, beside plain ``hashlib.sha512`` of the same ramdisk in the same run.

Every image needs one SHA-512 over all its pages, so that is the limit. All ratios are paired: each round measures all
of them one after the other. Files are in memory (/dev/shm) where there is room, so that no disk is measured; with
--directory DIR they are on the disk that holds DIR. Processors whose power is shared with others make the ratios worse,
for building keeps two of them busy where the digest alone keeps one.

    python benchmarks/image.py [--mib N] [--rounds N] [--directory DIR] [--peak-mib N]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import MachineKeys
from zseal.image import build_image, verify_image

MIB = 1 << 20
COMMAND_LINE = b"root=/dev/vda1 quiet"


class Discard:
    """An output that forgets."""

    def __init__(self) -> None:
        self.at = 0

    def seek(self, offset: int) -> int:
        self.at = offset
        return offset

    def write(self, data: memoryview) -> int:
        return len(data)


def _kernel() -> bytes:
    data = bytearray(8 * MIB)
    data[0x10008:0x1000E] = b"S390EP"
    return bytes(data)


def _speed(size: int, action: Callable[[], object]) -> float:
    """Return MB/s."""
    start = time.perf_counter()
    action()
    return size / (time.perf_counter() - start) / 1e6


def _sha512(path: Path) -> None:
    digest, buffer = hashlib.sha512(), memoryview(bytearray(2 * MIB))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])


def _measure(folder: Path, mib: int, rounds: int) -> None:
    keys = MachineKeys(ec.generate_private_key(ec.SECP521R1()))
    kernel, ramdisk, image, size = _kernel(), folder / "ramdisk", folder / "image", mib * MIB
    with ramdisk.open("wb") as stream:
        for _ in range(mib // 16):
            stream.write(os.urandom(16 * MIB))
    hosts = [keys.host.public_key()]

    def create(output: Path | Discard) -> None:
        build_image(
            output,  # type: ignore[arg-type]  # Discard has all that is used of a file
            kernel=kernel,
            ramdisk=ramdisk,
            cmdline=COMMAND_LINE,
            host_keys=hosts,
            overwrite=True,
        )

    jobs: dict[str, Callable[[], object]] = {
        "sha512": lambda: _sha512(ramdisk),
        "create, output discarded": lambda: create(Discard()),
        "create, to a file": lambda: create(image),
        "verify": lambda: verify_image(image, keys),
        "verify, extracting": lambda: verify_image(image, keys, extract=folder / "out", overwrite=True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            speeds[name].append(_speed(size, job))
        line = "  ".join(f"{name} {values[-1]:.0f}" for name, values in speeds.items())
        print(f"round {number + 1}: MB/s  {line}", flush=True)
    for name, values in speeds.items():
        ratio = statistics.median(value / limit for value, limit in zip(values, speeds["sha512"], strict=True))
        print(f"{name:<26} {statistics.median(values):>6.0f} MB/s  {100 * ratio:>4.0f} % of sha512")


_CHILD = """
import resource, sys
from cryptography.hazmat.primitives.asymmetric import ec
from zseal.image import build_image
key = ec.generate_private_key(ec.SECP521R1()).public_key()
build_image(sys.argv[1], kernel=b"", ramdisk=sys.argv[2], host_keys=[key], check_components=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak(folder: Path, mib: int) -> None:
    ramdisk, image = folder / "large", folder / "large-image"
    with ramdisk.open("wb") as stream:
        stream.truncate(mib * MIB)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(image), str(ramdisk)], check=True, capture_output=True, text=True
    )
    print(f"peak resident memory for a ramdisk of {mib} MiB: {int(child.stdout) / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=512, help="size of the ramdisk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where the files are written (default: /dev/shm if there is room)")
    parser.add_argument("--peak-mib", type=int, default=2048, help="ramdisk for the memory measurement, 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory or _memory_folder(4 * arguments.mib)) as folder:
        _measure(Path(folder), arguments.mib, arguments.rounds)
    if arguments.peak_mib:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            _peak(Path(folder), arguments.peak_mib)


def _memory_folder(mib: int) -> Path | None:
    """Return a directory in memory with room for ``mib`` MiB, None (the temporary directory) without one."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > mib * MIB else None


if __name__ == "__main__":
    main()
