"""The places in an s390x Linux kernel file (arch/s390/boot/bzImage) that a loader needs (arch/s390/boot/head.S).

File offsets are absolute addresses, because the file is loaded at 0. Numbers are big-endian and 64 bits wide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from zseal.arch.storage import MIB, PAGE_SIZE

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns as many bytes of a kernel, loaded or in its file, as the second argument says, from an address on."""

_RELEASE = re.compile(rb"\d{1,2}\.\d{1,3}[ -~]{0,100}")
ENTRY = 0x10000
"""Address of the first instruction, with DAT off; bootloaders put a kernel there."""
MAGIC = b"S390EP"
MAGIC_OFFSET = 0x10008
ELF_MAGIC = b"\x7fELF"
RAMDISK_ADDRESS_OFFSET = 0x10408
RAMDISK_SIZE_OFFSET = 0x10410
VERSION_OFFSET = 0x10428
"""Contains the address of the kernel's release string, since Linux 5.2."""
MAX_COMMAND_LINE_OFFSET = 0x10430
"""Longest command line including its NUL; 0 in older kernels, which take 896 bytes."""
LEGACY_COMMAND_LINE = 896
COMMAND_LINE_OFFSET = 0x10480
MIN_SIZE = MAX_COMMAND_LINE_OFFSET + 8
"""The shortest file that shows how long its command line may be."""


def max_command_line(head: bytes) -> int:
    """Return the longest command line in bytes, its NUL included, of the kernel with these first 0x10438 bytes."""
    return int.from_bytes(head[MAX_COMMAND_LINE_OFFSET:MIN_SIZE], "big") or LEGACY_COMMAND_LINE


def is_kernel(read: Read) -> bool:
    """Whether what begins at ENTRY has the mark of a kernel; programs that are to be loaded like one have it too."""
    return read(MAGIC_OFFSET, len(MAGIC)) == MAGIC


def release(read: Read) -> str | None:
    """Return the release of the Linux kernel whose boot code lies at ENTRY; None if it is not one, or before 5.2."""
    if not is_kernel(read):
        return None
    address = int.from_bytes(read(VERSION_OFFSET, 8), "big")
    if not PAGE_SIZE <= address < 64 * MIB:
        return None
    match = _RELEASE.match(read(address, 128))
    return match[0].decode("ascii").split(" ")[0] if match else None
