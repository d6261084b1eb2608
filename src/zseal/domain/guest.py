"""The inside of the guest: the sealed image, the kernel, its parameters, and the host keys of the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from zseal.domain.document import LineIndex, Position
from zseal.domain.edits import Change, Edit
from zseal.errors import FormatError, InputError
from zseal.files import read_limited
from zseal.linux.cmdline import KernelParameter, memory_limit, split_command_line
from zseal.linux.guest_support import KernelSupport, kernel_support
from zseal.linux.swiotlb import DEFAULT_SLOTS, SLOT_SIZE, Swiotlb, find_swiotlb

MAX_PARAMETERS = 64 << 10
"""Largest parmfile, in bytes; the longest command line that a kernel takes is far below."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """A boot image: whether it is sealed, the hashes of the host keys it is sealed for, and the memory it takes.

    ``end`` is the first byte of guest memory after the image, which is loaded at address 0.
    """

    name: str
    sealed: bool
    key_hashes: frozenset[bytes]
    end: int


@dataclasses.dataclass(frozen=True)
class ParameterFile:
    """A guest's kernel parameters and their places."""

    name: str
    text: str

    @cached_property
    def parameters(self) -> tuple[KernelParameter, ...]:
        """The parameters, in order."""
        return split_command_line(self.text)

    @cached_property
    def swiotlb(self) -> Swiotlb | None:
        """The deciding ``swiotlb=``."""
        return find_swiotlb(self.parameters)

    @cached_property
    def memory_limit(self) -> KernelParameter | None:
        """The deciding ``mem=``."""
        return memory_limit(self.parameters)

    def position(self, parameter: KernelParameter | None) -> Position:
        """The place of a parameter; the beginning of the file for None."""
        if parameter is None:
            return Position(1, 1)
        offset = len(self.text[: parameter.offset].encode())
        return LineIndex(self.text.encode()).position(offset)

    def _span(self, parameter: KernelParameter) -> tuple[int, int]:
        start = len(self.text[: parameter.offset].encode())
        return start, start + len(parameter.text.encode())

    def replace(self, parameter: KernelParameter, text: str) -> Change:
        """The change that replaces the parameter with ``text``."""
        start, end = self._span(parameter)
        return Change([Edit(start, end, text.encode())])

    def remove(self, parameter: KernelParameter) -> Change:
        """The change that removes the parameter and the blanks before it (after it, for the first one)."""
        start, end = self._span(parameter)
        data = self.text.encode()
        before = len(data[:start].rstrip(b" \t"))
        if before and data[before - 1 : before] != b"\n":
            return Change([Edit(before, end, b"")])
        return Change([Edit(start, end + len(data[end:]) - len(data[end:].lstrip(b" \t")), b"")])

    def append(self, words: str) -> Change:
        """The change that adds ``words`` after the last parameter."""
        if not self.parameters:
            return Change([Edit(0, 0, words.encode())])
        _, end = self._span(self.parameters[-1])
        return Change([Edit(end, end, f" {words}".encode())])


@dataclasses.dataclass(frozen=True)
class HostKeyHash:
    """The name of a host-key document and the SHA-256 hash of its key, as in key slots."""

    name: str
    digest: bytes


@dataclasses.dataclass(frozen=True)
class GuestInputs:
    """Everything that is given about the inside of the guest."""

    image: ImageFacts | None = None
    kernel: KernelSupport | None = None
    parameters: ParameterFile | None = None
    host_keys: tuple[HostKeyHash, ...] = ()

    @property
    def pool(self) -> int | None:
        """The size in bytes of the bounce-buffer pool, or None if the parameters are unknown."""
        if self.parameters is None:
            return None
        swiotlb = self.parameters.swiotlb
        slots = swiotlb.effective_slots() if swiotlb is not None else None
        return (slots or DEFAULT_SLOTS) * SLOT_SIZE


def read_parameters(path: Path) -> ParameterFile:
    """Read a parmfile; raises InputError if it cannot be read or is not text."""
    data = read_limited(path, MAX_PARAMETERS, "parmfile")
    try:
        return ParameterFile(str(path), data.decode())
    except UnicodeDecodeError as error:
        raise InputError("the parmfile is not UTF-8 text", where=str(path)) from error


def read_guest_inputs(
    *,
    image: Path | None = None,
    kernel: Path | None = None,
    kernel_config: Path | None = None,
    parmfile: Path | None = None,
    host_keys: Sequence[Path] = (),
) -> GuestInputs | None:
    """Read the given files; None if there are none. Raises InputError for a file that cannot be read."""
    if image is None and kernel is None and parmfile is None and not host_keys:
        return None
    return GuestInputs(
        image=read_image(image) if image is not None else None,
        kernel=kernel_support(kernel, kernel_config) if kernel is not None else None,
        parameters=read_parameters(parmfile) if parmfile is not None else None,
        host_keys=tuple(read_host_key(path) for path in host_keys),
    )


def read_host_key(path: Path) -> HostKeyHash:
    """Read the hash of a host-key document's key. Its signature is not checked; ``zseal hostkey verify`` does that."""
    from zseal.hostkeys.document import load_host_key_document

    return HostKeyHash(str(path), load_host_key_document(path).key_hash)


def read_image(path: Path) -> ImageFacts:
    """Read what a boot image shows without any key; a file without an SE header is not sealed.

    Raises InputError if the file cannot be read.
    """
    from zseal.image.read import read_image as read_sealed

    if not path.is_file():
        raise InputError("not a file", where=str(path))
    try:
        image = read_sealed(path)
    except FormatError:
        return ImageFacts(str(path), False, frozenset(), path.stat().st_size)
    end = max((part.address + part.size for part in image.components), default=image.file_size)
    return ImageFacts(str(path), True, frozenset(slot.phkh for slot in image.header.slots), end)


def local_image_state(name: str) -> bool | None:
    """Whether the file that a domain names is sealed; None if there is no such regular file on this computer."""
    path = Path(name)
    try:
        if not path.is_absolute() or not path.is_file():
            return None
        return read_image(path).sealed
    except (InputError, OSError):
        return None
