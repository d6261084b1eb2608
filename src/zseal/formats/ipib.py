"""The IPL parameter block (IPIB) of type 5: where the SE header and the components of a protected guest are.

Layout and limits as in Linux's uapi ``asm/ipl.h`` and as QEMU checks them for DIAGNOSE 308 subcode 8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from zseal.errors import FormatError
from zseal.formats.layout import Layout, u8, u32, u64
from zseal.formats.se_header import MAX_HEADER_SIZE

BLOCK_TYPE_PV = 5
# lengths of the whole block; QEMU requires 148
MIN_LENGTH = 148
MAX_LENGTH = 4096
COMPONENT_ALIGNMENT = 4096


class IpibHeader(Layout, size=0x88):
    """The list header and the fixed part of the protected-virtualization (PV) block."""

    length: int = u32(0x00, "total length in bytes")
    flags: int = u8(0x04, default=0)
    list_version: int = u8(0x07, default=1)
    block_length: int = u32(0x08, "length of block 0: 128 + 24 for each component")
    block_type: int = u8(0x0C, "5 = PV", default=BLOCK_TYPE_PV)
    block_flags: int = u8(0x0D, "0x80 = load parameter valid", default=0)
    loadparm: int = u64(0x10, "load parameter, EBCDIC", default=0)
    pv_version: int = u8(0x6F, "PV block version: 1 from pvimg, 0 from genprotimg up to 2.35", default=1)
    num_components: int = u32(0x74, "number of components")
    header_address: int = u64(0x78, "absolute address of the SE header")
    header_size: int = u64(0x80, "size of the SE header in bytes")


class IpibComponent(Layout, size=24):
    """One component: ``size`` is padded to pages; every page's XTS tweak is ``tweak_prefix`` || byte offset."""

    tweak_prefix: int = u64(0x00)
    address: int = u64(0x08, "absolute address, page aligned")
    size: int = u64(0x10, "bytes, a multiple of 4096")


MAX_COMPONENTS = (MAX_LENGTH - IpibHeader.SIZE) // IpibComponent.SIZE


@dataclasses.dataclass(frozen=True)
class Ipib:
    """An IPL parameter block of type 5 with its component list."""

    header: IpibHeader
    components: tuple[IpibComponent, ...]

    @classmethod
    def build(cls, *, header_address: int, header_size: int, components: Sequence[IpibComponent]) -> Ipib:
        """Return the block as pvimg writes it: no padding, PV block version 1."""
        listed = IpibComponent.SIZE * len(components)
        return cls(
            IpibHeader(
                length=IpibHeader.SIZE + listed,
                block_length=IpibHeader.SIZE - 8 + listed,
                num_components=len(components),
                header_address=header_address,
                header_size=header_size,
            ),
            tuple(components),
        )

    def pack(self) -> bytes:
        """Return the bytes of the block, zero padded to its total length."""
        data = self.header.pack() + b"".join(component.pack() for component in self.components)
        return data.ljust(self.header.length, b"\0")

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Ipib:
        """Read the block at the beginning of ``data``, which may be longer.

        Raises FormatError for what QEMU refuses with 0x0402 (length, type, header size, no component, address not
        page aligned, tweak prefixes not ascending) and for what KVM refuses next (component size 0, not whole pages).
        """
        header = IpibHeader.unpack(data)
        if not MIN_LENGTH <= header.length <= MAX_LENGTH:
            raise FormatError(f"the IPL parameter block has an impossible length of {header.length} bytes")
        if header.length > len(data):
            raise FormatError(f"the IPL parameter block is cut off after {len(data)} of its {header.length} bytes")
        if header.block_type != BLOCK_TYPE_PV:
            raise FormatError(f"the IPL parameter block has type {header.block_type} instead of {BLOCK_TYPE_PV}")
        if header.header_size > MAX_HEADER_SIZE:
            raise FormatError(f"the IPL parameter block names an SE header of {header.header_size} bytes")
        if not header.num_components:
            raise FormatError("the IPL parameter block lists no component")
        if IpibHeader.SIZE + IpibComponent.SIZE * header.num_components > header.length:
            raise FormatError(f"the IPL parameter block has no room for its {header.num_components} components")
        components = tuple(
            IpibComponent.unpack(data, IpibHeader.SIZE + IpibComponent.SIZE * index)
            for index in range(header.num_components)
        )
        previous = -1
        for number, component in enumerate(components, 1):
            if component.address % COMPONENT_ALIGNMENT:
                raise FormatError(f"component {number} is at {component.address:#x}, which is not page aligned")
            if component.tweak_prefix <= previous:
                raise FormatError(f"the tweak prefix of component {number} is not larger than the one before")
            if not component.size or component.size % COMPONENT_ALIGNMENT:
                raise FormatError(f"component {number} has {component.size} bytes, which are not whole pages")
            if component.address + component.size > 1 << 64:
                raise FormatError(f"component {number} reaches beyond the address space")
            previous = component.tweak_prefix
        return cls(header, components)
