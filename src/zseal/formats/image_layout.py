"""Where the parts of a boot image lie: fixed addresses, component numbers and the bootloaders' argument blocks.

A file offset is a guest absolute address, because the file is loaded at 0. Two dialects exist, and hosts accept both,
because they see only memory, the IPL parameter block and the SE header: that of genprotimg up to 2.35 (components in
the order kernel, command line, ramdisk, stage3b) and that of pvimg 2.36 and newer (kernel, ramdisk, command line,
stage3b). zseal writes the second.
"""

from __future__ import annotations

import enum

from zseal.arch.storage import PAGE_SIZE
from zseal.formats.layout import Layout, u64
from zseal.linux import kernel_file

STAGE3A_ADDRESS = kernel_file.ENTRY
STAGE3A_ENTRY = 0x11000
# older tools that extract headers check only pages 0x14 to 0x17
MIN_HEADER_ADDRESS = 0x14000
# extended and basic addressing mode: 64-bit addresses, DAT off, no interruption enabled
INITIAL_PSW_MASK = 0x0000000180000000


def page_align(value: int) -> int:
    """Round ``value`` up to a multiple of 4096."""
    return -(-value // PAGE_SIZE) * PAGE_SIZE


class ComponentKind(enum.Enum):
    """What a component holds."""

    KERNEL = "kernel"
    RAMDISK = "ramdisk"
    CMDLINE = "cmdline"
    STAGE3B = "stage3b"


class Dialect(enum.Enum):
    """Who wrote an image."""

    GENPROTIMG = "genprotimg"
    PVIMG = "pvimg"


# pvimg's component numbers, in its order of components: the first 16 bits of the tweak prefix
COMPONENT_NUMBERS = {
    ComponentKind.KERNEL: 40,
    ComponentKind.RAMDISK: 50,
    ComponentKind.CMDLINE: 60,
    ComponentKind.STAGE3B: 70,
}
GENPROTIMG_NUMBERS = {
    ComponentKind.KERNEL: 0,
    ComponentKind.CMDLINE: 1,
    ComponentKind.RAMDISK: 2,
    ComponentKind.STAGE3B: 3,
}
_BY_NUMBER = {number: (kind, Dialect.PVIMG) for kind, number in COMPONENT_NUMBERS.items()} | {
    number: (kind, Dialect.GENPROTIMG) for kind, number in GENPROTIMG_NUMBERS.items()
}


def classify_prefix(tweak_prefix: int) -> tuple[ComponentKind, Dialect] | None:
    """Return the kind of the component with this tweak prefix and the tool that numbers so; None for other tools."""
    return _BY_NUMBER.get(tweak_prefix >> 48)


class Stage3aArguments(Layout, size=24):
    """The last 24 bytes of stage3a. Both offsets are relative to the address of this block."""

    header_offset: int = u64(0, "SE header")
    header_size: int = u64(8, "bytes")
    ipib_offset: int = u64(16, "IPL parameter block")


class Stage3bArguments(Layout, size=64):
    """The last 64 bytes of stage3b: absolute addresses and unpadded sizes in bytes; 0 and 0 for what is absent."""

    kernel_address: int = u64(0x00)
    kernel_size: int = u64(0x08)
    cmdline_address: int = u64(0x10, default=0)
    cmdline_size: int = u64(0x18, "includes the terminating NUL", default=0)
    ramdisk_address: int = u64(0x20, default=0)
    ramdisk_size: int = u64(0x28, default=0)
    psw_mask: int = u64(0x30, default=INITIAL_PSW_MASK)
    psw_address: int = u64(0x38, default=kernel_file.ENTRY)
