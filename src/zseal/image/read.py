"""Reads an image without opening it: its header, components and builder. Nothing here needs a key."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

from zseal.errors import FormatError
from zseal.formats.image_layout import Dialect, classify_prefix
from zseal.formats.ipib import Ipib
from zseal.formats.se_header import SeHeader
from zseal.image.bootloaders import FoundStage3a
from zseal.image.locate import SEARCHED_FIRST, file_size, locate, locate_others
from zseal.image.model import Component
from zseal.image.source import Source, open_seekable


@dataclasses.dataclass(frozen=True)
class Image:
    """A boot image, or as much of it as a file holds.

    ``base`` is the file offset of the image's address 0, ``header_offset`` and ``ipib_offset`` are file offsets.
    """

    header: SeHeader
    header_offset: int
    base: int
    ipib: Ipib | None
    ipib_offset: int | None
    components: tuple[Component, ...]
    """The components in the order of the IPL parameter block; empty for a bare header."""
    dialect: Dialect | None
    """The tool whose order of components this is; None for a bare header or another numbering."""
    stage3a: FoundStage3a | None
    """The plaintext bootloader; None if none was found that names this header."""
    file_size: int
    where: str | None
    """The file's name, for messages."""

    @property
    def inside_another_file(self) -> bool:
        """Whether the file is not the image itself, but a disk, an archive or the like that contains it."""
        return bool(self.base) or self.header_offset >= SEARCHED_FIRST

    def missing_bytes(self) -> int:
        """Return how many bytes of the components are missing at the end of the file."""
        end = max((self.base + part.address + part.size for part in self.components), default=0)
        return max(0, end - self.file_size)


def read_image(source: Source | BinaryIO) -> Image:
    """Describe the image in ``source``: a bare SE header, an image, or any file with an image in it.

    ``source`` is a path, the content, or a seekable binary file object. Nothing is authenticated. Raises FormatError if
    there is no well-formed SE header, InputError if the file cannot be read.
    """
    with open_image(source) as (image, _):
        return image


def other_images(source: Source | BinaryIO, image: Image) -> tuple[int, ...]:
    """Return the file offsets of the SE headers in ``source`` besides that of ``image``; a disk may have several.

    Searches the whole file. Raises InputError if it cannot be read.
    """
    with open_seekable(source, "image") as (stream, _):
        return locate_others(stream, image.header_offset)


@contextlib.contextmanager
def open_image(source: Source | BinaryIO) -> Iterator[tuple[Image, BinaryIO]]:
    """Yield the result of :func:`read_image` and the open file."""
    with open_seekable(source, "image") as (stream, where):
        try:
            image = _read(stream, where)
        except FormatError as error:
            if error.where is None:
                error.where = where
            raise
        yield image, stream


def _read(stream: BinaryIO, where: str | None) -> Image:
    size = file_size(stream)
    if not size:
        raise FormatError("the file is empty")
    place = locate(stream)
    components = tuple(Component.from_ipib(listed) for listed in place.ipib.components) if place.ipib else ()
    dialects = {known[1] if known else None for known in (classify_prefix(part.tweak_prefix) for part in components)}
    return Image(
        header=place.header,
        header_offset=place.header_offset,
        base=place.base,
        ipib=place.ipib,
        ipib_offset=place.ipib_offset,
        components=components,
        dialect=dialects.pop() if len(dialects) == 1 else None,
        stage3a=place.stage3a,
        file_size=size,
        where=where,
    )
