"""The guest's kernel parameters, where they matter for a protected guest: the swiotlb pool above all.

The arithmetic is the Linux kernel's; the pool lies below 2 GiB on s390x.
"""

from __future__ import annotations

import dataclasses
import re

from zseal.linux.cmdline import split_command_line
from zseal.linux.swiotlb import DEFAULT_SLOTS, LARGEST_SLOTS, SEGMENT_SLOTS

_LEADING_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One kernel parameter: as written, its name and value without quotes, and its offset in the text."""

    text: str
    name: str
    value: str | None
    offset: int


def parse_parameters(text: str) -> tuple[Parameter, ...]:
    """Split a parameter file or command line as the kernel does."""
    found = []
    offset = 0
    for parameter in split_command_line(text):
        offset = text.index(parameter.text, offset)
        found.append(Parameter(parameter.text, parameter.name, parameter.value, offset))
        offset += len(parameter.text)
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Swiotlb:
    """What the kernel makes of ``swiotlb=``. ``slots`` is the number read, None where there is none."""

    parameter: Parameter
    slots: int | None
    areas: int | None
    force: bool
    noforce: bool
    junk: str
    """What follows a number and is not understood, such as the M of 512M."""

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


def parse_swiotlb(parameter: Parameter) -> Swiotlb:
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


def find_swiotlb(parameters: tuple[Parameter, ...]) -> Swiotlb | None:
    """Return the last ``swiotlb=``, which decides, or None."""
    found = [parse_swiotlb(p) for p in parameters if p.name == "swiotlb" and p.value is not None]
    return found[-1] if found else None
