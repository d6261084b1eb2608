"""Checks a boot image before QEMU gets it: that it is one, where it begins, and how much room it needs."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from zseal.arch.psw import Psw
from zseal.arch.storage import MIB
from zseal.errors import FormatError, InputError
from zseal.formats.ipib import IpibComponent
from zseal.image.pages import check_complete
from zseal.image.read import Image, read_image
from zseal.linux import kernel_file


class ImageExpecter(Protocol):
    """A hypervisor that can work on an image before its guest asks for it (``zseal.hypervisor.vmm.Vmm``)."""

    def expect_image(
        self, header: bytes, components: Sequence[IpibComponent], read: Callable[[int, int], bytes]
    ) -> None:
        """Begin with the image that has this SE header; ``read`` returns stored bytes from an address on."""


@dataclasses.dataclass(frozen=True)
class BootImage:
    """An image opened for reading: ``descriptor`` stays the same file whatever happens to its name."""

    path: Path
    descriptor: int
    size: int
    entry: int
    image: Image

    @property
    def end(self) -> int:
        """The end of the highest address that the image occupies."""
        return max([self.size, *(part.address + part.size for part in self.image.components)])

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes stored from ``offset`` on, fewer at the end; raises OSError."""
        return os.pread(self.descriptor, length, offset)

    def announce(self, hypervisor: ImageExpecter) -> None:
        """Let ``hypervisor`` begin with the image, unless its bootloader hides where the components are."""
        if self.image.ipib is not None:
            header = self.read(self.image.header_offset, self.image.header.size)
            hypervisor.expect_image(header, self.image.ipib.components, self.read)

    def check_memory(self, memory: int) -> None:
        """Raise InputError if a guest with ``memory`` bytes cannot even hold the image."""
        if memory < self.end:
            raise InputError(
                f"the guest's {memory // MIB} MiB of memory are too small for an image of {-(-self.end // MIB)} MiB",
                where=str(self.path),
                hint="give it more with `memory`",
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def inspect_image(path: Path) -> BootImage:
    """Open the boot image ``path``; raises InputError or FormatError if it cannot be run, and why."""
    try:
        # without O_NONBLOCK, opening a pipe would wait for its other end
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"cannot read the image: {error.strerror}", where=str(path)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError("an image must be a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            image = read_image(stream)
            check_complete(image, stream)
            entry = Psw.from_short(int.from_bytes(os.pread(descriptor, 8, 0), "big")).address
        size = os.fstat(descriptor).st_size
        if image.base:
            raise FormatError(
                "the file only contains a boot image: it cannot be booted", hint="give the image as it was built"
            )
        if entry >= size:
            raise FormatError(f"the image's entry point {entry:#x}lies beyond its end")
    except (FormatError, InputError) as error:
        os.close(descriptor)
        error.where = error.where or str(path)
        raise
    except BaseException:
        os.close(descriptor)
        raise
    return BootImage(path, descriptor, size, entry or kernel_file.ENTRY, image)
