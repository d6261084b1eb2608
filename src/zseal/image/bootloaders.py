"""The two bootloaders that every boot image carries, as templates without their arguments.

stage3a is in plaintext and asks the hypervisor for protected mode; stage3b is encrypted and starts the kernel. zseal's
own are built from ``native/bootloaders/``; those of s390-tools work as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from zseal import _native
from zseal.errors import InputError
from zseal.formats.image_layout import Stage3aArguments, Stage3bArguments

MAX_SIZE = 1 << 20
"""Upper limit in bytes: real ones have some 10 KiB, and a wrong file must not be read whole."""

_STAGE3A = "stage3a.bin"
_STAGE3B = ("stage3b_reloc.bin", "stage3b.bin")


@dataclasses.dataclass(frozen=True)
class Bootloaders:
    """``stage3a`` and ``stage3b`` as raw binaries; the arguments at their ends are not filled in yet.

    stage3a is loaded and linked at 0x10000. stage3b can be entered at its first byte at any page-aligned address. A
    binary with room only for its arguments raises InputError.
    """

    stage3a: bytes
    stage3b: bytes

    def __post_init__(self) -> None:
        _check_size(self.stage3a, Stage3aArguments.SIZE, "stage3a")
        _check_size(self.stage3b, Stage3bArguments.SIZE, "stage3b")

    @classmethod
    def default(cls) -> Bootloaders:
        """Return the bootloaders that come with zseal."""
        return cls(stage3a=_native.guest_program("stage3a"), stage3b=_native.guest_program("stage3b"))

    @classmethod
    def from_directory(cls, path: str | Path) -> Bootloaders:
        """Return the bootloaders in the directory ``path``, as pvimg's hidden ``--x-bootloader-directory`` takes it.

        Reads ``stage3a.bin`` and ``stage3b_reloc.bin``, or ``stage3b.bin`` if there is no relocatable one. Raises
        InputError for files that are missing, unreadable, too small or too large.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError("not a directory", where=str(folder), hint=f"it must contain {_STAGE3A} and {_STAGE3B[0]}")
        stage3b = next((folder / name for name in _STAGE3B if (folder / name).exists()), folder / _STAGE3B[0])
        return cls(
            stage3a=_read(folder / _STAGE3A, Stage3aArguments.SIZE), stage3b=_read(stage3b, Stage3bArguments.SIZE)
        )


@dataclasses.dataclass(frozen=True)
class FoundStage3a:
    """The stage3a of an image, which a machine runs before the image is protected. Nothing authenticates it."""

    size: int
    """Size in bytes, including the arguments."""
    sha256: bytes
    """Digest of everything but the arguments, which differ in every image."""
    ipib_offset: int
    """File offset of the IPL parameter block that it hands to the hypervisor."""

    @classmethod
    def identify(cls, stage3a: bytes, ipib_offset: int) -> FoundStage3a:
        """Return the description of the content ``stage3a``."""
        return cls(len(stage3a), _digest(stage3a), ipib_offset)

    @property
    def owner(self) -> str:
        """Its origin: ``zseal`` for the one of this version, otherwise ``unknown``."""
        return "zseal" if self.sha256 == _digest(Bootloaders.default().stage3a) else "unknown"

    def __str__(self) -> str:
        if self.owner == "zseal":
            return "zseal's"
        return f"from another tool or version, {self.size} bytes, SHA-256 {self.sha256.hex()[:16]}…"


def _digest(stage3a: bytes) -> bytes:
    return hashlib.sha256(stage3a[: -Stage3aArguments.SIZE]).digest()


def _read(path: Path, arguments_size: int) -> bytes:
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise InputError(f"cannot read the bootloader: {error.strerror}", where=str(path)) from error
    _check_size(blob, arguments_size, str(path))
    return blob


def _check_size(blob: bytes, arguments_size: int, where: str) -> None:
    if len(blob) <= arguments_size:
        raise InputError(
            f"not a bootloader: {len(blob)} bytes, but its arguments alone take {arguments_size}", where=where
        )
    if len(blob) > MAX_SIZE:
        raise InputError(f"not a bootloader: larger than {MAX_SIZE} bytes", where=where)
