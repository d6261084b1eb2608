"""The arguments of the encrypted bootloader: the places of the other components and their sizes without padding."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from zseal.arch.storage import PAGE_SIZE
from zseal.formats.image_layout import ComponentKind, Stage3bArguments, page_align
from zseal.image.model import Component

# real ones have a few KiB
MAX_STAGE3B = 1 << 20
# one made to waste time names a component repeatedly
_MAX_CANDIDATES = 1000


def render(template: bytes, components: Sequence[Component]) -> bytes:
    """Return stage3b with its arguments: addresses and original sizes of ``components``."""
    places = {component.kind: (component.address, component.original_size or 0) for component in components}
    kernel, ramdisk, cmdline = (
        places.get(kind, (0, 0)) for kind in (ComponentKind.KERNEL, ComponentKind.RAMDISK, ComponentKind.CMDLINE)
    )
    arguments = Stage3bArguments(
        kernel_address=kernel[0],
        kernel_size=kernel[1],
        cmdline_address=cmdline[0],
        cmdline_size=cmdline[1],
        ramdisk_address=ramdisk[0],
        ramdisk_size=ramdisk[1],
    )
    return template[: -Stage3bArguments.SIZE] + arguments.pack()


def find_arguments(stage3b: bytes, components: Sequence[Component]) -> Stage3bArguments | None:
    """Return the arguments in a decrypted ``stage3b`` component, or None for another tool's bootloader.

    They are its last 64 bytes before the padding, the start of which is not recorded. They are recognised because they
    name components of this image with sizes that fit.
    """
    for offset in itertools.islice(_candidates(stage3b, components), _MAX_CANDIDATES):
        arguments = Stage3bArguments.unpack(stage3b, offset)
        if all(_fits(*place, components) for place in _places(arguments).values()):
            return arguments
    return None


def _candidates(stage3b: bytes, components: Sequence[Component]) -> Iterator[int]:
    """Yield where a component's address could be that of the kernel, the last place first."""
    for part in components:
        end = max(0, len(stage3b) - Stage3bArguments.SIZE + 8)
        while part.address and (offset := stage3b.rfind(part.address.to_bytes(8, "big"), 0, end)) >= 0:
            yield offset
            end = offset + 7


def _places(arguments: Stage3bArguments) -> dict[ComponentKind, tuple[int, int]]:
    return {
        ComponentKind.KERNEL: (arguments.kernel_address, arguments.kernel_size),
        ComponentKind.RAMDISK: (arguments.ramdisk_address, arguments.ramdisk_size),
        ComponentKind.CMDLINE: (arguments.cmdline_address, arguments.cmdline_size),
    }


def _fits(address: int, size: int, components: Sequence[Component]) -> bool:
    if not address:
        return not size
    return any(part.address == address and part.size == (page_align(size) or PAGE_SIZE) for part in components)


def with_sizes(components: Sequence[Component], arguments: Stage3bArguments) -> tuple[Component, ...]:
    """Return ``components`` with the kinds and the sizes without padding that ``arguments`` give."""
    known = {address: (kind, size) for kind, (address, size) in _places(arguments).items() if address}
    return tuple(
        dataclasses.replace(part, kind=known[part.address][0], original_size=known[part.address][1])
        if part.address in known
        else part
        for part in components
    )
