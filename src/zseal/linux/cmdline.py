"""Kernel parameters, and ``prot_virt=`` as each program that reads it understands it.

The kernel, libvirt and Kata Containers parse the parameter by three different rules. Only the kernel's verdict decides
what the machine does; the others decide what those programs believe.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

_PARAMETER = "prot_virt"
_LIBVIRT_ON = ("y", "Y", "on", "ON", "oN", "On", "1")
_KATA_ON = frozenset(("1", "on", "y", "yes"))
_BLANKS = " \t\n\v\f\r\xa0"


@dataclasses.dataclass(frozen=True)
class KernelParameter:
    """One parameter: ``text`` as written, ``name`` and ``value`` without quotes, and the ``offset`` in the line.

    The value is None if there is no ``=``. The offset counts characters from 0.
    """

    text: str
    name: str
    value: str | None
    offset: int


def split_command_line(line: str) -> tuple[KernelParameter, ...]:
    """Split ``line`` as the kernel does (lib/cmdline.c, next_arg).

    Blanks separate, double quotes protect blanks; a quote at the start of the parameter or of its value and one at its
    end are removed.
    """
    found = []
    position, end = 0, len(line)
    while position < end:
        if line[position] in _BLANKS:
            position += 1
            continue
        start = position
        in_quote = False
        equals = None
        while position < end and (in_quote or line[position] not in _BLANKS):
            if line[position] == "=" and equals is None:
                equals = position
            if line[position] == '"':
                in_quote = not in_quote
            position += 1
        text = line[start:position]
        quoted = text.startswith('"')
        name = text[1:] if quoted else text
        value = None
        if equals is not None:
            name, value = line[start + quoted : equals], line[equals + 1 : position]
            if value.startswith('"'):
                value = value[1:].removesuffix('"')
            elif quoted:
                value = value.removesuffix('"')
        elif quoted:
            name = name.removesuffix('"')
        found.append(KernelParameter(text, name, value, start))
    return tuple(found)


_UNITS = "KMGTPE"
_SIZE = re.compile(r"(?P<number>0[xX][0-9a-fA-F]{1,16}|\d{1,20})(?P<unit>[kKmMgGtTpPeE]?)")
_PAGE_MASK = 0xFFF


def memory_limit(parameters: Iterable[KernelParameter]) -> KernelParameter | None:
    """Return the ``mem=`` parameter that limits the kernel's memory, the last one; None if none does."""
    last = None
    for parameter in parameters:
        if parameter.name == "mem" and parameter.value is not None:
            last = parameter
    return last if last is not None and size_of(last) else None


def size_of(parameter: KernelParameter) -> int:
    """Return the bytes that a size like ``mem=512M`` stands for (lib/cmdline.c, memparse), in whole pages.

    Digits with 0x are hexadecimal, with a leading 0 octal. What does not begin with a digit is 0.
    """
    match = _SIZE.match(parameter.value or "")
    if match is None:
        return 0
    digits = match["number"]
    octal = digits.startswith("0") and digits.isdecimal() and not set(digits) & set("89")
    number = int(digits, 8) if octal else int(digits, 0) if "x" in digits.lower() else int(digits)
    if match["unit"]:
        number <<= 10 * (_UNITS.index(match["unit"].upper()) + 1)
    return number & ~_PAGE_MASK


def _kernel_boolean(value: str | None) -> bool:
    # the s390 boot code's own small copy of kstrtobool: it checks one or two characters and knows no words with t, f, e
    # or d
    if not value:
        return False
    return value[0] in "yY1" or (value[0] in "oO" and value[1:2] in ("n", "N"))


def kernel_enables(line: str) -> bool:
    """Return whether the kernel turns on the ultravisor host: any enabling occurrence wins, a later ``=0`` does not."""
    return any(p.name == _PARAMETER and _kernel_boolean(p.value) for p in split_command_line(line))


def libvirt_enables(line: str) -> bool:
    """Return whether libvirt thinks so: it takes ``-`` for ``_`` in the name and compares prefixes of the value."""
    return any(
        p.name.replace("-", "_") == _PARAMETER and p.value is not None and p.value.startswith(_LIBVIRT_ON)
        for p in split_command_line(line)
    )


def kata_enables(line: str) -> bool:
    """Return whether Kata Containers thinks so: it compares whole values, and quotes are part of them."""
    for parameter in split_command_line(line):
        name, equals, value = parameter.text.partition("=")
        if equals and name == _PARAMETER and value.lower() in _KATA_ON:
            return True
    return False


def spellings(line: str) -> tuple[str, ...]:
    """Return every parameter of ``line`` that looks like an attempt at ``prot_virt``, as written."""
    return tuple(
        p.text for p in split_command_line(line) if p.name.lower().replace("-", "").replace("_", "") == "protvirt"
    )
