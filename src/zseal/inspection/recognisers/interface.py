"""The interface of recognisers, and what they may read of a file: a class for each kind, a module for each family."""

from __future__ import annotations

import abc
import dataclasses
import shlex
import stat
from pathlib import Path
from typing import TypeAlias

from zseal.errors import InputError

Value: TypeAlias = str | int | bool | tuple[str, ...] | None

# enough for one page after the last place that is checked for an SE header
HEAD_BYTES = 0x15000
# the limit for files that are read as a whole: certificates, lists, domains, requests
MAX_WHOLE = 16 << 20


@dataclasses.dataclass(frozen=True)
class Description:
    """The description of a file or directory.

    ``kind`` is a stable identifier, ``title`` names it for people. ``fields`` map stable names to values, the most
    important first. ``problems`` are what is wrong with it. ``next_steps`` are command lines to use next.
    """

    kind: str
    title: str
    fields: dict[str, Value] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()


class Sample:
    """A file or directory to be recognised; all reading is bounded.

    ``size`` is in bytes, 0 for a directory. ``head`` has the first ``HEAD_BYTES`` bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises InputError if it cannot be read, or is neither a file nor a directory."""
        self.path = path
        try:
            status = path.stat()
            self.is_directory = stat.S_ISDIR(status.st_mode)
            # opening a pipe or device may block forever or have side effects
            if not self.is_directory and not stat.S_ISREG(status.st_mode):
                raise InputError("neither a regular file nor a directory", where=str(path))
            self.mode = stat.S_IMODE(status.st_mode)
            self.size = 0 if self.is_directory else status.st_size
            self.head = b"" if self.is_directory else self._read(0, HEAD_BYTES)
            self._names = frozenset(entry.name for entry in path.iterdir()) if self.is_directory else frozenset()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError(f"cannot read it: {reason}", where=str(path)) from error

    def _read(self, offset: int, size: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``, at most 16 MiB, fewer at the end; empty if reading fails."""
        if not 0 <= offset < self.size or size <= 0:
            return b""
        try:
            return self._read(offset, min(size, MAX_WHOLE))
        except OSError:
            return b""

    @property
    def whole(self) -> bytes | None:
        """The whole content, or None if it is larger than 16 MiB."""
        if self.size <= len(self.head):
            return self.head
        return self.read(0, self.size) if self.size <= MAX_WHOLE else None

    def has(self, *names: str) -> bool:
        """Return whether the directory has all entries ``names``."""
        return self._names.issuperset(names)

    def command(self, template: str) -> str:
        """Return ``template`` with ``{file}`` replaced by the path, quoted for a shell."""
        return template.replace("{file}", shlex.quote(str(self.path)))


class Recogniser(abc.ABC):
    """Contract: describes a sample or returns None. A damaged file is described with its problems; it never raises."""

    directories: bool = False
    """Whether it recognises directories; all other recognisers get only files."""

    @abc.abstractmethod
    def recognise(self, sample: Sample) -> Description | None:
        """Return the description of ``sample``, or None if it does not belong to this family."""
