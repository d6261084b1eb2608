"""Kernels built from Debian's sources with what its own lack: kexec, and support for protected guests before 6.10."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.debian.archive import DebianArchive
from zseal.hostkeys.machine import Machine

SOURCES = {"linux-source-6.1": "bookworm", "linux-source-6.12": "trixie"}
"""Debian's packages with sources of kernels, and the suites that have them."""
OPTIONS = (
    *("64BIT", "SMP", "RELOCATABLE", "RANDOMIZE_BASE", "PROTECTED_VIRTUALIZATION_GUEST", "S390_GUEST", "VIRTIO_MENU"),
    *("KERNEL_GZIP", "BLK_DEV_INITRD", "RD_GZIP", "BINFMT_ELF", "BINFMT_SCRIPT", "MULTIUSER", "PRINTK", "BUG"),
    *("FUTEX", "EPOLL", "FILE_LOCKING", "POSIX_TIMERS", "PROC_FS", "SYSFS", "DEVTMPFS"),
    *("TTY", "SCLP_TTY", "SCLP_CONSOLE", "SCLP_VT220_TTY", "SCLP_VT220_CONSOLE"),
    *("BLOCK", "CRYPTO", "CRYPTO_SHA256", "CRYPTO_SHA256_S390", "KEXEC", "KEXEC_FILE", "CRASH_DUMP"),
)
"""What is added to the smallest configuration: a guest with a console, a ramdisk and kexec."""

Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture(scope="session")
def build() -> Build:
    """Return the kernel that is built from the sources in the package of the given name, now or before."""

    def kernel(package: str) -> Path:
        archive = DebianArchive(SOURCES[package])
        (source,) = (archive.package(package) / "usr/src").glob(f"{package}.tar.*")

        def fill(folder: Path) -> None:
            work = folder.parent / "work"
            work.mkdir()
            subprocess.run(["tar", "-xf", source, "-C", work, "--strip-components=1"], check=True)
            make(work, "tinyconfig")
            with (work / ".config").open("a") as configuration:
                configuration.writelines(f"CONFIG_{option}=y\n" for option in OPTIONS)
            make(work, "olddefconfig")
            make(work, f"-j{os.cpu_count()}", "bzImage")
            (work / "arch/s390/boot/bzImage").rename(folder / "bzImage")

        return archive.directory(f"{package}-for-tests", fill) / "bzImage"

    return kernel


def make(folder: Path, *arguments: str) -> None:
    """Run make for the kernel's sources in ``folder``."""
    command = ["make", "-C", str(folder), "ARCH=s390", "CROSS_COMPILE=s390x-linux-gnu-", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
