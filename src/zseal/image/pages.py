"""Reads the pages of an image's components, digests them, and decrypts those that are requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.digests import DigestValues
from zseal.crypto.xts import XtsPages
from zseal.errors import FormatError, InputError
from zseal.formats.image_layout import ComponentKind
from zseal.formats.ipib import MAX_LENGTH, Ipib
from zseal.image.locate import read_at
from zseal.image.model import Component, Progress
from zseal.image.pipeline import CHUNK, PagePipeline, Writable
from zseal.image.read import Image
from zseal.image.stage3b import MAX_STAGE3B, find_arguments, with_sizes


def check_complete(image: Image, stream: BinaryIO) -> None:
    """Raise FormatError if the list of components is missing or damaged, or the file ends too early."""
    if image.ipib is None:
        if image.ipib_offset is not None:
            if image.ipib_offset >= image.file_size:
                raise FormatError(
                    f"the image is cut off: it has {image.file_size} bytes, and its component list is at byte "
                    f"{image.ipib_offset}",
                    where=image.where,
                )
            try:
                Ipib.parse(read_at(stream, image.ipib_offset, MAX_LENGTH))
            except FormatError as error:
                raise FormatError(
                    f"{error.message} (a hypervisor refuses it with diag 308 code 0x0402)", where=image.where
                ) from error
        raise FormatError(
            "there is an SE header, but no IPL parameter block that lists an image's components",
            where=image.where,
            hint="give the whole image",
        )
    if missing := image.missing_bytes():
        raise FormatError(
            f"the image is cut off, or its component list was changed: {missing} bytes are missing at the end",
            where=image.where,
        )


def component_sizes(image: Image, stream: BinaryIO, start_address: int, xts: XtsPages | None) -> tuple[Component, ...]:
    """Return the components with their sizes before padding, which the encrypted bootloader's arguments give.

    That bootloader is the component at which the guest starts, otherwise the last one. It is decrypted with ``xts``, if
    given. If it is another tool's with other arguments, the components are returned unchanged.
    """
    started = [part for part in image.components if 0 <= start_address - part.address < part.size]
    loader = next(iter([*started, *image.components[-1:]]), None)
    if loader is None or loader.size > MAX_STAGE3B:
        return image.components
    stored = read_at(stream, image.base + loader.address, loader.size)
    plain = xts.decrypt_run(stored, loader.tweak_prefix, 0) if xts else stored
    arguments = find_arguments(bytes(plain), image.components)
    return with_sizes(image.components, arguments) if arguments else image.components


def plain_size(part: Component) -> int:
    """Return how many bytes of a decrypted component are content: all, if that is not known.

    The NUL that ends a command line belongs to the bootloader's contract, not to the text.
    """
    if part.original_size is None:
        return part.size
    return max(0, part.original_size - 1) if part.kind is ComponentKind.CMDLINE else part.original_size


def process_pages(
    image: Image,
    stream: BinaryIO,
    components: Sequence[Component],
    *,
    xts: XtsPages | None = None,
    outputs: Mapping[int, Writable] | None = None,
    progress: Progress | None = None,
) -> DigestValues:
    """Return the digests of all pages of ``components``; decrypt some of them on the way.

    ``outputs`` maps addresses of components to the outputs of their content, decrypted with ``xts`` if given. Raises
    InputError if reading fails; call :func:`check_complete` first.
    """
    outputs = outputs or {}
    total, done = sum(part.size for part in components), 0
    with PagePipeline() as pipeline:
        for part in components:
            output, wanted = outputs.get(part.address), plain_size(part)
            stream.seek(image.base + part.address)
            for offset in range(0, part.size, CHUNK):
                size = min(CHUNK, part.size - offset)
                stored = memoryview(pipeline.buffer())[:size]
                _read_exactly(stream, stored, image)
                pipeline.digest(stored, part.address + offset, part.tweak_prefix, offset)
                if output is not None and offset < wanted:
                    plain = stored
                    if xts:
                        buffer = pipeline.buffer()
                        out = buffer if size == CHUNK else None
                        plain = memoryview(xts.decrypt_run(stored, part.tweak_prefix, offset, out=out))
                    pipeline.write(output, plain[: wanted - offset])
                done += size
                if progress:
                    progress(done, total)
        return pipeline.values()


def digests_match(image: Image, stream: BinaryIO, *, progress: Progress | None = None) -> bool:
    """Return whether the components match the header's digests. Needs no key.

    The header itself is not authenticated. Raises FormatError if components are missing.
    """
    check_complete(image, stream)
    fixed = image.header.fixed
    if sum(part.size for part in image.components) != fixed.nep * PAGE_SIZE:
        return False
    found = process_pages(image, stream, image.components, progress=progress)
    return found == DigestValues(pld=fixed.pld, ald=fixed.ald, tld=fixed.tld, nep=fixed.nep)


def _read_exactly(stream: BinaryIO, target: memoryview, image: Image) -> None:
    try:
        count = stream.readinto(target)  # type: ignore[attr-defined]  # all binary file objects have it
    except OSError as error:
        raise InputError(f"cannot read the image: {error.strerror or error}", where=image.where) from error
    if count != len(target):
        raise InputError("the image became shorter while it was read", where=image.where)
