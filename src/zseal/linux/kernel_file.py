"""What a loader needs to know of an s390x Linux kernel file (arch/s390/boot/bzImage)."""

from __future__ import annotations

MAGIC = b"S390EP"
MAGIC_OFFSET = 0x10008
ELF_MAGIC = b"\x7fELF"
# u64: longest command line including its NUL, 0 in older kernels, which take 896 bytes
MAX_COMMAND_LINE_OFFSET = 0x10430
LEGACY_COMMAND_LINE = 896
# the shortest file that has the field above
MIN_SIZE = MAX_COMMAND_LINE_OFFSET + 8


def max_command_line(head: bytes) -> int:
    """Return the longest command line in bytes, its NUL included, of the kernel with these first 0x10438 bytes."""
    return int.from_bytes(head[MAX_COMMAND_LINE_OFFSET:MIN_SIZE], "big") or LEGACY_COMMAND_LINE
