"""Debian as a guest: fetches packages for s390x, and builds ramdisks and disks from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.debian.archive import AbsentPackageError, DebianArchive, DebianError, KernelFiles
    from zseal.debian.disk import DebianDisk, Recipe, debian_disk

__all__ = [
    "AbsentPackageError",
    "DebianArchive",
    "DebianDisk",
    "DebianError",
    "KernelFiles",
    "Recipe",
    "debian_disk",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        archive=("AbsentPackageError", "DebianArchive", "DebianError", "KernelFiles"),
        disk=("DebianDisk", "Recipe", "debian_disk"),
    )
