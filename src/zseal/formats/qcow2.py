"""QEMU's disk format, qcow2: its header and the entries of its tables (QEMU's docs/interop/qcow2.rst).

The disk's content lies in clusters. A first table has the places of second tables, which have the places of the
clusters. Numbers are big-endian.
"""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.layout import Layout, raw, u8, u32, u64

MAGIC = b"QFI\xfb"
ENTRY_SIZE = 8
_CLUSTER_BITS = range(9, 22)
# a first table of QEMU's has at most 32 MiB
_MAX_L1_ENTRIES = (32 << 20) // ENTRY_SIZE
_MAX_SIZE = 1 << 62
_PLACE = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_SECTOR = 512
# incompatible features: bit, and what such a disk is
_DIRTY, _COMPRESSION = 1 << 0, 1 << 3
_FEATURES = {
    1 << 1: "is marked as damaged",
    1 << 2: "keeps its content in another file",
    1 << 4: "has extended table entries",
}
DEFLATE, ZSTANDARD = 0, 1


class RawHeader(Layout, size=72):
    """The fields that versions 2 and 3 have in common."""

    magic: bytes = raw(0, 4, "QFI and 0xfb")
    version: int = u32(4, "2 or 3")
    backing_offset: int = u64(8, "place of the name of the file underneath, 0: none")
    backing_size: int = u32(16, "length of that name")
    cluster_bits: int = u32(20, "binary logarithm of the cluster's size")
    size: int = u64(24, "size of the disk in bytes")
    encryption: int = u32(32, "0: none")
    l1_entries: int = u32(36, "entries of the first table")
    l1_offset: int = u64(40, "its place")


class RawExtension(Layout, size=40):
    """What version 3 adds at offset 72."""

    incompatible: int = u64(0, "features without which the disk cannot be read")
    header_size: int = u32(28, "bytes of the header")
    compression: int = u8(32, "method, if the header is longer than 104 bytes")


HEADER_SIZE = RawHeader.SIZE + RawExtension.SIZE


@dataclasses.dataclass(frozen=True)
class Qcow2Header:
    """A disk that can be read: sizes and places are in bytes, ``compression`` is DEFLATE or ZSTANDARD."""

    size: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    compression: int

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @classmethod
    def parse(cls, data: bytes) -> Qcow2Header:
        """Read the first ``HEADER_SIZE`` bytes of a disk (fewer if it ends); raises FormatError if it is unusable."""
        if len(data) < RawHeader.SIZE or not data.startswith(MAGIC):
            raise FormatError("no qcow2 header")
        header = RawHeader.unpack(data)
        if header.version not in (2, 3):
            raise _refused(f"has version {header.version}")
        if header.encryption:
            raise _refused("is encrypted")
        if header.backing_offset:
            raise _refused("has only what differs from another disk, its backing file")
        compression = DEFLATE
        if header.version == 3:
            more = RawExtension.unpack(data[RawHeader.SIZE : HEADER_SIZE].ljust(RawExtension.SIZE, b"\0"))
            compression = more.compression if more.incompatible & _COMPRESSION and more.header_size > 104 else DEFLATE
            _check_features(more.incompatible)
        if header.cluster_bits not in _CLUSTER_BITS or not 0 < header.size < _MAX_SIZE:
            raise _refused("has an invalid size")
        per_table = 1 << 2 * header.cluster_bits - 3
        if header.l1_entries > _MAX_L1_ENTRIES or header.l1_entries < -(-header.size // per_table):
            raise _refused("has a first table of the wrong size")
        return cls(header.size, header.cluster_bits, header.l1_offset, header.l1_entries, compression)

    def place_of_table(self, entry: int) -> int:
        """Return the place that an ``entry`` of the first table gives, 0 for a table of empty clusters."""
        return entry & _PLACE

    def cluster(self, entry: int) -> Cluster | None:
        """Return the place that an ``entry`` of a second table gives; None for a cluster of zeros."""
        if entry & _COMPRESSED:
            bits = 62 - (self.cluster_bits - 8)
            place = entry & (1 << bits) - 1
            sectors = (entry & _COMPRESSED - 1) >> bits
            return Cluster(place, (sectors + 1) * _SECTOR - place % _SECTOR, True)
        place = entry & _PLACE
        return None if entry & _ZERO or not place else Cluster(place, self.cluster_size, False)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """``size`` bytes at ``place`` in the file; at most that many if ``compressed``."""

    place: int
    size: int
    compressed: bool


def _refused(why: str) -> FormatError:
    return FormatError(
        f"the disk is in QEMU's format (qcow2) and {why}",
        hint="convert it: qemu-img convert -O raw DISK disk.raw",
    )


def _check_features(incompatible: int) -> None:
    for bit, meaning in _FEATURES.items():
        if incompatible & bit:
            raise _refused(meaning)
    if incompatible & ~(_DIRTY | _COMPRESSION):
        raise _refused("uses a feature that zseal does not know")
