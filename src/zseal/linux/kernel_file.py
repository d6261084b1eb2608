"""The places in an s390x Linux kernel file (arch/s390/boot/bzImage) that a loader needs (arch/s390/boot/head.S).

File offsets are absolute addresses, because the file is loaded at 0. Numbers are big-endian and 64 bits wide.
"""

from __future__ import annotations

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
