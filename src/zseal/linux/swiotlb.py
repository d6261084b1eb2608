"""The pool of bounce buffers (SWIOTLB) of a protected Linux guest, and ``swiotlb=``, which sizes it.

The numbers and the arithmetic are those of kernel/dma/swiotlb.c. On s390x the pool is below 2 GiB.
"""

from __future__ import annotations

import dataclasses
import re

from zseal.linux.cmdline import KernelParameter

SLOT_SIZE = 2048
SEGMENT_SLOTS = 128
"""Slots of the largest single mapping."""
DEFAULT_SLOTS = 32768
"""The pool of a protected guest without any parameter: 64 MiB."""
RECOMMENDED_SLOTS = 262144
"""The size that IBM, Red Hat and libvirt recommend: 512 MiB."""
LARGEST_SLOTS = 524288
"""1 GiB, the largest pool that fits below 2 GiB."""

_LEADING_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")


@dataclasses.dataclass(frozen=True)
class Swiotlb:
    """How the kernel reads ``swiotlb=``. ``slots`` is the number, None if there is none."""

    parameter: KernelParameter
    slots: int | None
    areas: int | None
    force: bool
    noforce: bool
    junk: str
    """Text after a number that the kernel does not understand, such as the M of 512M."""

    def effective_slots(self, processors: int = 1) -> int:
        """The size of the pool after the kernel's rounding (Linux 6.0 and newer), in slots.

        A multiple of 128, a power of two, at least 128 slots for each area; no more than fits below 2 GiB.
        """
        slots = DEFAULT_SLOTS if self.slots is None else max(self.slots, 1)
        areas = _power_of_two(self.areas or max(processors, 1))
        slots = -(-slots // SEGMENT_SLOTS) * SEGMENT_SLOTS
        slots = _power_of_two(max(slots, areas * SEGMENT_SLOTS))
        return min(slots, LARGEST_SLOTS)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text, 16)
    return int(text, 8) if text.startswith("0") else int(text)


def parse_swiotlb(parameter: KernelParameter) -> Swiotlb:
    """Read one ``swiotlb=`` parameter as the kernel's early parser does: ``[slots][,areas][,force|noforce]``."""
    rest = parameter.value or ""
    numbers: list[int] = []
    junk = ""
    for _ in range(2):
        match = _LEADING_NUMBER.match(rest)
        if match is None:
            break
        numbers.append(_number(match[0][:20]))
        rest = rest[match.end() :]
        if not rest.startswith(","):
            junk = rest
            break
        rest = rest[1:]
    word = rest if not junk else ""
    if word not in ("", "force", "noforce"):
        junk = word
    slots = numbers[0] if numbers else None
    areas = numbers[1] if len(numbers) > 1 else None
    return Swiotlb(parameter, slots, areas, word == "force", word == "noforce", junk)


def find_swiotlb(parameters: tuple[KernelParameter, ...]) -> Swiotlb | None:
    """Return the last ``swiotlb=``, which decides, or None."""
    found = [parse_swiotlb(p) for p in parameters if p.name == "swiotlb" and p.value is not None]
    return found[-1] if found else None
