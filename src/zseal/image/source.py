"""Inputs of an image: files, bytes or file objects, read as streams in bounded memory."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol, TypeGuard

from zseal.errors import InputError
from zseal.files import named_path
from zseal.image.disks import as_disk


class Readable(Protocol):
    """The interface of a file object: ``read`` returns up to ``size`` bytes, none at the end."""

    def read(self, size: int = -1, /) -> bytes:
        """Read."""


Source = str | os.PathLike[str] | bytes | Readable
"""A path, the content itself, or a binary file object (which need not be seekable)."""


class SourceStream:
    """One input: ``what`` it is and ``where`` it comes from, for messages. Raises InputError if reading fails."""

    def __init__(self, stream: Readable, what: str, where: str | None, size: int | None) -> None:
        self._stream = stream
        self._ahead = b""
        self.what = what
        self.where = where
        self.size = size
        """Total size in bytes, None if only reading to the end shows it."""

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise InputError(f"cannot read the {self.what}: {error.strerror or error}", where=self.where) from error

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end, without consuming them."""
        while len(self._ahead) < size:
            part = self._read(size - len(self._ahead))
            if not part:
                break
            self._ahead += part
        return self._ahead[:size]

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` and return the number of bytes read, which is less than its size only at the end."""
        done = min(len(buffer), len(self._ahead))
        buffer[:done] = self._ahead[:done]
        self._ahead = self._ahead[done:]
        if isinstance(self._stream, io.FileIO):
            try:
                while done < len(buffer) and (count := self._stream.readinto(buffer[done:])):
                    done += count
            except OSError as error:
                raise InputError(f"cannot read the {self.what}: {error.strerror or error}", where=self.where) from error
            return done
        while done < len(buffer):
            part = self._read(len(buffer) - done)
            if not part:
                break
            buffer[done : done + len(part)] = part
            done += len(part)
        return done


def is_path(source: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether ``source`` names a file."""
    return isinstance(source, (str, os.PathLike))


@contextlib.contextmanager
def open_source(source: Source, what: str) -> Iterator[SourceStream]:
    """Open an input; ``what`` names it in messages. File objects are left open. Raises InputError."""
    if isinstance(source, bytes):
        yield SourceStream(io.BytesIO(source), what, None, len(source))
    elif isinstance(source, (str, os.PathLike)):
        path = named_path(source)
        try:
            # no buffer in between: whole chunks are read directly into the caller's buffer
            stream = path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(f"cannot read the {what}: {error.strerror or error}", where=str(path)) from error
        with stream:
            status = os.fstat(stream.fileno())
            yield SourceStream(stream, what, str(path), status.st_size if status.st_size else None)
    else:
        name = getattr(source, "name", None)
        yield SourceStream(source, what, name if isinstance(name, str) else None, None)


@contextlib.contextmanager
def open_seekable(source: Source | BinaryIO, what: str) -> Iterator[tuple[BinaryIO, str | None]]:
    """Open an input that is read at several places; yields it and its name.

    A disk in QEMU's format is read as the disk that it holds. Raises InputError, or FormatError for a disk in a format
    that zseal does not read.
    """
    if isinstance(source, bytes):
        yield as_disk(io.BytesIO(source), None), None
    elif isinstance(source, (str, os.PathLike)):
        path = named_path(source)
        try:
            if path.is_fifo():  # opening it would wait for its other end
                raise _not_seekable(what, str(path))
            stream = path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read the {what}: {error.strerror or error}", where=str(path)) from error
        with stream:
            yield as_disk(_checked_seekable(stream, what, str(path)), str(path)), str(path)
    else:
        name = getattr(source, "name", None)
        where = name if isinstance(name, str) else None
        yield as_disk(_checked_seekable(source, what, where), where), where


def _checked_seekable(stream: object, what: str, where: str | None) -> BinaryIO:
    seekable = getattr(stream, "seekable", None)
    if seekable is None or not seekable():
        raise _not_seekable(what, where)
    return stream  # type: ignore[return-value]  # a file object with seek and read, as just checked


def _not_seekable(what: str, where: str | None) -> InputError:
    return InputError(f"the {what} must be a file that can be read at any place, not a pipe", where=where)
