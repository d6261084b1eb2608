"""Verifies an image as the ultravisor does at boot, without booting it, and extracts its components."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zseal.arch.machine_model import MachineModel
from zseal.arch.psw import Psw
from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.digests import DigestValues
from zseal.crypto.keyexchange import MachineKeys, key_hash
from zseal.errors import FormatError, InputError, OutputError
from zseal.files import atomic_output
from zseal.formats.image_layout import STAGE3A_ADDRESS, STAGE3A_ENTRY, ComponentKind, Stage3aArguments
from zseal.image.bootloaders import Bootloaders
from zseal.image.locate import read_at, suspected_header
from zseal.image.model import Component, Progress
from zseal.image.pages import check_complete, component_sizes, process_pages
from zseal.image.read import Image, open_image
from zseal.image.source import Source, open_seekable
from zseal.logs import logger
from zseal.ultravisor.image.acceptance import AcceptedHeader, accept_header, check_digests
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Settings

_LOG = logger(__name__)

FILE_NAMES = {ComponentKind.KERNEL: "kernel", ComponentKind.RAMDISK: "ramdisk", ComponentKind.CMDLINE: "parmfile"}
"""File names of extracted components."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """An image that the machine accepts."""

    image: Image
    accepted: AcceptedHeader
    components: tuple[Component, ...]
    """As in ``image``, with sizes before padding if the encrypted bootloader's arguments could be read."""
    backup_key: bool
    """Whether the machine's backup host key opened the header."""
    extracted: tuple[Path, ...]
    """The files that were written."""
    warnings: tuple[str, ...] = ()
    """What is unusual about the image, though the machine starts it."""


def verify_image(
    source: Source | BinaryIO,
    keys: MachineKeys,
    *,
    model: MachineModel = MachineModel.Z17,
    extract: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Do everything with the image in ``source`` that a machine with ``keys`` does before it starts a guest.

    ``model`` is the machine's generation (default: the newest).

    The header is opened and authenticated, and the pages of all components are digested and compared with it. With
    ``extract``, kernel, ramdisk and command line are decrypted into that directory (created if it is missing; files get
    mode 0600 and replace others only with ``overwrite``), trimmed to their original sizes; nothing appears unless every
    check passes. The NUL that ends a command line is not part of the extracted ``parmfile``.

    Raises UvcRefusal with the rc and rrc of the failing check, FormatError if the file is not a complete image or its
    plain parts do not lead to these components, InputError and OutputError if files cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            image, stream = stack.enter_context(open_image(source))
        except FormatError:
            _refuse_header(source, keys, Settings.of_model(model))
            raise
        try:
            target = Path(extract) if extract is not None else None
            return _verify(image, stream, keys, Settings.of_model(model), target, overwrite, progress)
        except UvcRefusal as refusal:
            refusal.where = image.where
            raise


def _refuse_header(source: Source | BinaryIO, keys: MachineKeys, settings: Settings) -> None:
    """Raise the ultravisor's answer to a malformed header, if the image has one."""
    with open_seekable(source, "image") as (stream, where):
        suspected = suspected_header(stream)
    if suspected:
        try:
            accept_header(suspected, keys, settings=settings)
        except UvcRefusal as refusal:
            refusal.where = where
            raise


def _verify(
    image: Image,
    stream: BinaryIO,
    keys: MachineKeys,
    settings: Settings,
    extract: Path | None,
    overwrite: bool,
    progress: Progress | None,
) -> Verification:
    accepted = accept_header(image.header.pack(), keys, settings=settings)
    _LOG.info("the header is authentic")
    check_complete(image, stream)
    _check_way_to_the_components(image, stream)
    _check_count(image, accepted)
    xts = accepted.cipher()
    components = component_sizes(image, stream, accepted.psw.address, xts)
    with contextlib.ExitStack() as stack:
        outputs: dict[int, BinaryIO] = {}
        paths = []
        if extract is not None:
            stack.enter_context(_directory(extract))
            for component, path in _extracted_files(components, extract).items():
                outputs[component.address] = stack.enter_context(atomic_output(path, overwrite=overwrite))
                paths.append(path)
        digests = process_pages(image, stream, components, xts=xts, outputs=outputs, progress=progress)
        check_digests(accepted, digests)
        _LOG.info("the digests of %d pages are those in the header", digests.nep)
        warning = _check_start(image, accepted.psw.address)
    return Verification(
        image=image,
        accepted=accepted,
        components=components,
        backup_key=accepted.host_key_hash != key_hash(keys.host.public_key()),
        extracted=tuple(paths),
        warnings=() if warning is None else (warning,),
    )


def _check_way_to_the_components(image: Image, stream: BinaryIO) -> None:
    """Raise FormatError if starting the image does not lead to the components that are verified.

    These parts are plain and the ultravisor never sees them, but they decide what it is asked to verify. If the
    bootloader does not store them as known ones do (``image.stage3a`` is None), only a start can show that.
    """
    if image.stage3a is None:
        ours = Bootloaders.default().stage3a[: -Stage3aArguments.SIZE]
        if read_at(stream, image.base + STAGE3A_ADDRESS, len(ours)) == ours:
            raise FormatError(
                "the bootloader (stage3a) is zseal's, but its arguments do not name this SE header",
                where=image.where,
                hint="take an undamaged copy",
            )
        return
    if image.stage3a.ipib_offset != image.ipib_offset:
        raise FormatError(
            f"the bootloader (stage3a) hands over the component list at byte {image.stage3a.ipib_offset}, the image's "
            f"metadata name the one at byte {image.ipib_offset}",
            where=image.where,
            hint="take an undamaged copy",
        )
    start = Psw.from_short(int.from_bytes(read_at(stream, image.base, 8), "big"))
    if start.address not in (STAGE3A_ADDRESS, STAGE3A_ENTRY):
        inside = 0 <= start.address - STAGE3A_ADDRESS < image.stage3a.size
        raise FormatError(
            f"the PSW at its beginning leads to {start.address:#x}, "
            f"{'into the middle of' if inside else 'not to'} the bootloader (stage3a)",
            where=image.where,
            hint="take an undamaged copy",
        )


def _check_start(image: Image, address: int) -> str | None:
    """Return what is unusual about the ``address`` at which the guest starts; None if nothing is.

    The PSW in the header's encrypted part gives it, and the ultravisor does not compare it with the components. Raises
    FormatError if the guest would start in pages of zeros, or at an odd address, where no instruction can be.
    """
    part = next((part for part in image.components if 0 <= address - part.address < part.size), None)
    if part is None or address % 2:
        reason = "outside all components" if part is None else "an odd address"
        raise FormatError(
            f"the start PSW in the header leads to {address:#x}, {reason}",
            where=image.where,
            hint="build the image again",
        )
    loaders = {part.address for part in image.components if part.kind is ComponentKind.STAGE3B}
    if not loaders or address in loaders:
        return None  # another tool's image may start anywhere in a component
    return (
        f"the guest starts at byte {address - part.address:#x} of the component {part.name}, not where its bootloader "
        "begins"
    )


def _check_count(image: Image, accepted: AcceptedHeader) -> None:
    """Refuse a wrong number of pages immediately, which also limits the work that a hostile list causes."""
    pages = sum(part.size for part in image.components) // PAGE_SIZE
    if pages != accepted.digests.nep:
        check_digests(accepted, DigestValues(pld=b"", ald=b"", tld=b"", nep=pages))


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[None]:
    """Create the directory ``path`` if it is missing, and remove it again if the block fails."""
    try:
        path.mkdir(mode=0o700)
        created = True
    except FileExistsError:
        created = False
        if not path.is_dir():
            raise OutputError("not a directory", where=str(path)) from None
    except OSError as error:
        raise OutputError(f"cannot create the directory: {error.strerror}", where=str(path)) from error
    try:
        yield
    except BaseException:
        if created:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _extracted_files(components: tuple[Component, ...], directory: Path) -> dict[Component, Path]:
    named = {part: directory / FILE_NAMES[part.kind] for part in components if part.kind in FILE_NAMES}
    if not named or len(set(named.values())) < len(named):
        raise InputError("the kernel cannot be identified: another tool's numbering and bootloader")
    return named
