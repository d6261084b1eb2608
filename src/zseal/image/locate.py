"""Finds the SE header and the IPL parameter block in a bare header, an image of either dialect, or a file that contains
an image.
"""

from __future__ import annotations

import dataclasses
import errno
import heapq
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.errors import FormatError, InputError
from zseal.formats.image_layout import STAGE3A_ADDRESS, Stage3aArguments, page_align
from zseal.formats.image_metadata import MAGIC as METADATA_MAGIC
from zseal.formats.image_metadata import OFFSET as METADATA_OFFSET
from zseal.formats.image_metadata import ImageMetadata
from zseal.formats.ipib import MAX_LENGTH, Ipib
from zseal.formats.se_header import MAGIC, MAX_HEADER_SIZE, SIZE_PREFIX, SeHeader, parse_header, read_header_size
from zseal.image.bootloaders import MAX_SIZE as MAX_STAGE3A
from zseal.image.bootloaders import FoundStage3a
from zseal.image.disks import Qcow2Disk

# pvimg searches 21 pages for the header, including the first
_PROBES = 21
SEARCHED_FIRST = _PROBES * PAGE_SIZE
"""The header of an image that is a file of its own lies below this offset."""
_WINDOW = 4 << 20
# offsets found in a file may be any u64, but no file is that long
_MAX_OFFSET = 1 << 62
# a file made to waste time repeats the magic: the search ends after this many false ones
_MAX_CANDIDATES = 1000


@dataclasses.dataclass(frozen=True)
class Place:
    """The places that were found. All are file offsets; ``base`` is that of the image's address 0."""

    header: SeHeader
    header_offset: int
    metadata: ImageMetadata | None = None
    ipib: Ipib | None = None
    ipib_offset: int | None = None
    stage3a: FoundStage3a | None = None
    """None if no arguments that name this header were found."""
    base: int = 0


def read_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    """Return up to ``size`` bytes at ``offset``: fewer at the end of the file. Raises InputError."""
    if not 0 <= offset < _MAX_OFFSET:
        return b""
    try:
        stream.seek(offset)
        return stream.read(size)
    except OSError as error:
        raise InputError(f"cannot read the image: {error.strerror or error}") from error


def file_size(stream: BinaryIO) -> int:
    """Return the number of bytes in ``stream``."""
    return stream.seek(0, os.SEEK_END)


def locate(stream: BinaryIO) -> Place:
    """Find the SE header in ``stream`` and the rest of the image around it, if there is one.

    The search is that of pvimg: metadata at 0xc000 decide; otherwise the header is searched for on the first 21 pages.
    After that, the whole file is searched, because it may be a disk or archive with an image somewhere in it.

    Raises FormatError if there is no header, and HeaderError if the one found is damaged or unknown.
    """
    metadata = _metadata_at(stream, METADATA_OFFSET)
    if metadata:
        if read_at(stream, metadata.header_offset, len(MAGIC)) != MAGIC:
            raise FormatError(f"the image's metadata name {metadata.header_offset:#x}, but no SE header is there")
        return _complete(stream, metadata.header_offset, metadata, 0)
    for offset in range(0, SEARCHED_FIRST, PAGE_SIZE):
        if read_at(stream, offset, len(MAGIC)) == MAGIC:
            return _complete(stream, offset, None, 0)
    place = _search(stream)
    if place is None:
        raise FormatError("no SE header found: this is not a Secure Execution image")
    return place


def suspected_header(stream: BinaryIO) -> bytes:
    """Return the bytes that a machine would take for the SE header, whatever they are; empty if nothing points to them.

    For images whose header :func:`locate` refuses: the metadata give its place, the IPL parameter block its size.
    """
    metadata = _metadata_at(stream, METADATA_OFFSET)
    if metadata:
        ipib = _ipib_at(stream, metadata.ipib_offset)
        return _claimed(stream, metadata.header_offset, ipib.header.header_size if ipib else None)
    for offset in range(0, SEARCHED_FIRST, PAGE_SIZE):
        if read_at(stream, offset, len(MAGIC)) == MAGIC:
            return _claimed(stream, offset, None)
    return b""


def _claimed(stream: BinaryIO, offset: int, size: int | None) -> bytes:
    if size is None:
        size = int.from_bytes(read_at(stream, offset, SIZE_PREFIX)[12:], "big")
    return read_at(stream, offset, min(size, MAX_HEADER_SIZE))


def _metadata_at(stream: BinaryIO, offset: int) -> ImageMetadata | None:
    data = read_at(stream, offset, ImageMetadata.SIZE)
    if len(data) < ImageMetadata.SIZE or not data.startswith(METADATA_MAGIC):
        return None
    return ImageMetadata.unpack(data)


def _header_at(stream: BinaryIO, offset: int) -> SeHeader:
    size = read_header_size(read_at(stream, offset, SIZE_PREFIX))
    data = read_at(stream, offset, size)
    if len(data) < size:
        raise FormatError(f"the file ends {size - len(data)} bytes before its SE header does")
    return parse_header(data)


def _complete(stream: BinaryIO, offset: int, metadata: ImageMetadata | None, base: int | None) -> Place:
    """Return the place of the header at ``offset`` with everything that can be found around it.

    The IPL parameter block is at the place given by the metadata or stage3a's arguments, otherwise on the page before
    the header. If nothing else gives the ``base`` at which the image begins, that block does.
    """
    header = _header_at(stream, offset)
    arguments = _stage3a_arguments(stream, offset, header)
    if metadata:
        at = (base or 0) + metadata.ipib_offset
        ipib = _ipib_at(stream, at)
    elif arguments is not None:
        at = _named_ipib(stream, arguments)
        ipib = _ipib_at(stream, at)
    else:
        at = offset - PAGE_SIZE
        ipib = _ipib_at(stream, at)
        if ipib is None or ipib.header.header_size != header.size:
            return Place(header, offset)
    if base is None:
        base = max(0, offset - _header_address(ipib, header)) if ipib else 0
    stage3a = None if arguments is None else _stage3a(stream, base + STAGE3A_ADDRESS, arguments)
    return Place(header, offset, metadata, ipib, at, stage3a, base)


def _header_address(ipib: Ipib, header: SeHeader) -> int:
    """Return the header's address; genprotimg does not store it, but its first component is on the next page."""
    return ipib.header.header_address or ipib.components[0].address - page_align(header.size)


def _ipib_at(stream: BinaryIO, offset: int) -> Ipib | None:
    try:
        return Ipib.parse(read_at(stream, offset, MAX_LENGTH))
    except FormatError:
        return None


def _stage3a_arguments(stream: BinaryIO, header_offset: int, header: SeHeader) -> int | None:
    """Return the file offset of stage3a's arguments, which give the distance and the size of this header."""
    start = header_offset - min(header_offset // 8 * 8, MAX_STAGE3A)
    words = np.frombuffer(read_at(stream, start, header_offset - start), ">u8")
    if len(words) * 8 < Stage3aArguments.SIZE:
        return None
    distances = np.arange(header_offset - start, 0, -8, dtype=np.uint64)
    hits = np.flatnonzero((words[:-2] == distances[:-2]) & (words[1:-1] == header.size))
    return start + 8 * int(hits[-1]) if len(hits) else None


def _named_ipib(stream: BinaryIO, arguments: int) -> int:
    """Return the file offset of the IPL parameter block that stage3a's arguments at the offset ``arguments`` name."""
    return arguments + Stage3aArguments.unpack(read_at(stream, arguments, Stage3aArguments.SIZE)).ipib_offset


def _stage3a(stream: BinaryIO, start: int, arguments: int) -> FoundStage3a | None:
    """Return the description of the stage3a that begins at the file offset ``start`` and ends with its arguments."""
    size = arguments + Stage3aArguments.SIZE - start
    if not Stage3aArguments.SIZE < size <= MAX_STAGE3A:
        return None
    return FoundStage3a.identify(read_at(stream, start, size), _named_ipib(stream, arguments))


def _magics(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offsets of all magics of metadata and headers in ascending order, with their kind."""
    overlap = len(MAGIC) - 1
    start = _next_data(stream, 0, size)
    while start < size:
        window = read_at(stream, start, _WINDOW + overlap)
        found = heapq.merge(_find_all(window, MAGIC), _find_all(window, METADATA_MAGIC))
        yield from ((start + at, magic) for at, magic in found)
        start = _next_data(stream, start + _WINDOW, size)


def _next_data(stream: BinaryIO, offset: int, size: int) -> int:
    """Return where content continues at or after ``offset``: a sparse file may have terabytes of holes."""
    disk = getattr(stream, "raw", None)
    if isinstance(disk, Qcow2Disk):
        return disk.next_data(offset)
    if not hasattr(os, "SEEK_DATA"):
        return offset
    try:
        descriptor = stream.fileno()
        # the stream must not notice that its position was moved
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            return os.lseek(descriptor, offset, os.SEEK_DATA)
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
    except (OSError, AttributeError) as error:
        # not a file of the system, or only a hole up to the end
        return size if getattr(error, "errno", None) == errno.ENXIO else offset


def _find_all(window: bytes, magic: bytes) -> Iterator[tuple[int, bytes]]:
    at = window.find(magic)
    while at >= 0:
        yield at, magic
        at = window.find(magic, at + 1)


def _search(stream: BinaryIO) -> Place | None:
    """Return the first image or bare header anywhere in the file."""
    return next(_places(stream), None)


def _places(stream: BinaryIO) -> Iterator[Place]:
    """Yield the images and bare headers in the file, in their order, none of those that lie in another image."""
    false = beyond = 0
    for offset, magic in _magics(stream, file_size(stream)):
        if offset < beyond:
            continue
        if false == _MAX_CANDIDATES:
            break
        try:
            place = _place_at(stream, offset, magic)
        except FormatError:
            place = None
        if place is None:
            false += 1
        else:
            beyond = _end(place)
            yield place


def _place_at(stream: BinaryIO, offset: int, magic: bytes) -> Place | None:
    """Return the place of the image that ``magic`` at ``offset`` belongs to; None or FormatError if there is none."""
    if magic == MAGIC:
        return _complete(stream, offset, None, None)
    base, metadata = offset - METADATA_OFFSET, _metadata_at(stream, offset)
    if base < 0 or metadata is None or metadata.header_offset < STAGE3A_ADDRESS:
        return None
    return _complete(stream, base + metadata.header_offset, metadata, base)


def _end(place: Place) -> int:
    """Return the file offset after an image or a bare header."""
    components = place.ipib.components if place.ipib is not None else ()
    ends = (place.base + part.address + part.size for part in components)
    return max(place.header_offset + place.header.size, *ends, 0)


def locate_others(stream: BinaryIO, header_offset: int) -> tuple[int, ...]:
    """Return the file offsets of the SE headers in ``stream`` besides the one at ``header_offset``, in their order.

    This searches the whole file.
    """
    return tuple(place.header_offset for place in _places(stream) if place.header_offset != header_offset)
