"""Disk images that are not raw: qcow2 is read like the disk that it holds, others are refused by name."""

from __future__ import annotations

import array
import io
import os
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO

from zseal.errors import FormatError, InputError
from zseal.formats.qcow2 import DEFLATE, ENTRY_SIZE, HEADER_SIZE, MAGIC, Cluster, Qcow2Header

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# magic, place, and whose format it is
_OTHER_FORMATS: tuple[tuple[bytes, int, str], ...] = (
    (b"KDMV", 0, "VMware's format (VMDK)"),
    (b"# Disk DescriptorFile", 0, "VMware's format (VMDK)"),
    (b"vhdxfile", 0, "Hyper-V's format (VHDX)"),
    (b"conectix", 0, "Hyper-V's format (VHD)"),
    (b"\x7f\x10\xda\xbe", 64, "VirtualBox's format (VDI)"),
    (b"LUKS\xba\xbe", 0, "LUKS, encrypted"),
    (b"QED\0", 0, "QEMU's old format (QED)"),
)
_LONGEST_MAGIC = 96


def as_disk(stream: BinaryIO, where: str | None) -> BinaryIO:
    """Return ``stream``, or what it holds if it is a qcow2 disk; ``where`` is its name for messages.

    Raises FormatError for a disk that cannot be read, InputError if reading fails.
    """
    try:
        position = stream.tell()
        stream.seek(0)
        head = stream.read(_LONGEST_MAGIC)
        stream.seek(position)
    except OSError as error:
        raise InputError(f"cannot read the image: {error.strerror or error}", where=where) from error
    if head.startswith(MAGIC):
        return io.BufferedReader(Qcow2Disk(stream, where))
    for magic, offset, name in _OTHER_FORMATS:
        if head[offset:].startswith(magic):
            raise FormatError(
                f"the disk is in {name}, which zseal does not read",
                where=where,
                hint="convert it: qemu-img convert -O raw DISK disk.raw",
            )
    return stream


class Qcow2Disk(io.RawIOBase):
    """The current content of the qcow2 disk in ``file``, without its snapshots; read-only. ``where`` is its name.

    ``file`` stays open and is the caller's. Raises FormatError if the disk is damaged or cannot be read for another
    reason.
    """

    def __init__(self, file: BinaryIO, where: str | None = None) -> None:
        self._file = file
        self._where = where
        file.seek(0)
        try:
            self._header = Qcow2Header.parse(file.read(HEADER_SIZE))
        except FormatError as error:
            error.where = where
            raise
        self._file_size = file.seek(0, os.SEEK_END)
        self._position = 0
        self._l1 = self._table(self._header.l1_offset, self._header.l1_entries)
        self._l2: tuple[int, array.array[int]] = (-1, array.array("Q"))
        self._cluster: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read at any place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the start, the current place or the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._header.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the current place."""
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``; return the number of bytes, which is smaller only at the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._header.size - self._position))
        done = 0
        while done < wanted:
            number, within = divmod(self._position, self._header.cluster_size)
            count = min(wanted - done, self._header.cluster_size - within)
            view[done : done + count] = self._content(number)[within : within + count]
            self._position += count
            done += count
        return done

    def next_data(self, offset: int) -> int:
        """Return the first place from ``offset`` on that is not in a cluster of zeros, or the size of the disk."""
        number = offset // self._header.cluster_size
        last = -(-self._header.size // self._header.cluster_size)
        per_table = self._header.cluster_size // ENTRY_SIZE
        while number < last:
            index, within = divmod(number, per_table)
            if not self._header.place_of_table(self._l1[index]):
                number = (index + 1) * per_table
                continue
            if self._header.cluster(self._second_table(index)[within]) is not None:
                return max(offset, number * self._header.cluster_size)
            number += 1
        return self._header.size

    def _table(self, offset: int, entries: int) -> array.array[int]:
        data = self._read(offset, entries * ENTRY_SIZE)
        table = array.array("Q", data)
        if sys.byteorder == "little":
            table.byteswap()
        return table

    def _second_table(self, index: int) -> array.array[int]:
        if self._l2[0] != index:
            place = self._header.place_of_table(self._l1[index])
            self._l2 = index, self._table(place, self._header.cluster_size // ENTRY_SIZE)
        return self._l2[1]

    def _content(self, number: int) -> bytes:
        if self._cluster[0] != number:
            self._cluster = number, self._load(number)
        return self._cluster[1]

    def _load(self, number: int) -> bytes:
        index, within = divmod(number, self._header.cluster_size // ENTRY_SIZE)
        zeros = bytes(self._header.cluster_size)
        if not self._header.place_of_table(self._l1[index]):
            return zeros
        cluster = self._header.cluster(self._second_table(index)[within])
        if cluster is None:
            return zeros
        return self._unpacked(cluster) if cluster.compressed else self._read(cluster.place, cluster.size)

    def _unpacked(self, cluster: Cluster) -> bytes:
        if self._header.compression != DEFLATE:
            raise FormatError(
                "the disk is in QEMU's format (qcow2), compressed with Zstandard, which zseal does not read",
                where=self._where,
                hint="convert it: qemu-img convert -O raw DISK disk.raw",
            )
        # the size is rounded up to whole sectors, so the last cluster of a file may end earlier
        packed = self._read(cluster.place, min(cluster.size, max(0, self._file_size - cluster.place)))
        try:
            data = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(packed, self._header.cluster_size)
        except zlib.error as error:
            raise self._damaged("a compressed cluster cannot be unpacked") from error
        if len(data) < self._header.cluster_size:
            raise self._damaged("a compressed cluster is too short")
        return data

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._file_size:
            raise self._damaged(f"a part of it lies at {offset:#x}, after the end of the file")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise self._damaged("the file ended while it was read")
        return data

    def _damaged(self, why: str) -> FormatError:
        return FormatError(f"the disk is in QEMU's format (qcow2), and it is damaged: {why}", where=self._where)
