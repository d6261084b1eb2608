"""The metadata that pvimg 2.36 and newer put at offset 0xc000 of an image; stage3a wipes them when it starts."""

from __future__ import annotations

from zseal.formats.layout import Layout, raw, u32, u64

MAGIC = b"SeImgLnx"
OFFSET = 0xC000
VERSION = 1


class ImageMetadata(Layout, size=28):
    """File offsets of the SE header and the IPL parameter block. Packed: the version is not aligned."""

    magic: bytes = raw(0, 8, "ASCII SeImgLnx", default=MAGIC)
    header_offset: int = u64(8, "file offset of the SE header")
    version: int = u32(16, default=VERSION)
    ipib_offset: int = u64(20, "file offset of the IPL parameter block")
