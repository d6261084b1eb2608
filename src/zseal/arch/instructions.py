"""Instruction encodings: lengths, operands, and the search for the instructions that firmware completes."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from zseal.arch.psw import Psw

UVC_OPCODE, UVC_LENGTH = b"\xb9\xa4", 4
LPSWE_LENGTH = 4


class Pattern(enum.Enum):
    """Instructions to search for in guest code; the values are those of the engine's trap kinds."""

    STFLE = "stfle"
    DIAG_308 = "diag308"
    DIAG_500 = "diag500"
    UVC = "uvc"
    LPSWE = "lpswe"


def instruction_length(first_byte: int) -> int:
    """Return 2, 4 or 6: the two leftmost bits of an instruction are its length in bytes."""
    return (2, 4, 4, 6)[first_byte >> 6 & 3]


def classify(instruction: bytes) -> Pattern | None:
    """Return which of the searched instructions ``instruction`` starts with, if any."""
    opcode = instruction[:2]
    if opcode == UVC_OPCODE and instruction[2:3] == b"\x00":
        return Pattern.UVC
    if opcode == b"\xb2\xb0":
        return Pattern.STFLE
    if opcode == b"\xb2\xb2":
        return Pattern.LPSWE
    if opcode[:1] == b"\x83":
        return {b"\x03\x08": Pattern.DIAG_308, b"\x05\x00": Pattern.DIAG_500}.get(instruction[2:4])
    return None


def _halfword(value: int) -> np.uint16:
    """Return a big-endian halfword as it reads in an array of the host's byte order."""
    return np.uint16(int.from_bytes(value.to_bytes(2, "big"), sys.byteorder))


_FIRST_BYTE = _halfword(0xFF00)


def find_patterns(
    data: bytes | bytearray | memoryview, patterns: Iterable[Pattern] = Pattern
) -> list[tuple[int, Pattern]]:
    """Return (offset, pattern) of every match at an even offset, ascending; ``data`` starts at an even address.

    These are byte patterns: they occur in data and inside longer instructions as well, so a match is a candidate.
    """
    half = np.frombuffer(data, np.uint16, count=len(data) // 2)
    wanted = set(patterns)
    found: list[tuple[int, Pattern]] = []

    def add(pattern: Pattern, index: npt.NDArray[np.int64]) -> None:
        found.extend((int(at) * 2, pattern) for at in index)

    if len(half) >= 2:
        first, second = half[:-1], half[1:]
        for pattern, opcode in ((Pattern.STFLE, 0xB2B0), (Pattern.LPSWE, 0xB2B2)):
            if pattern in wanted:
                add(pattern, np.flatnonzero(first == _halfword(opcode)))
        if Pattern.UVC in wanted:
            index = np.flatnonzero(first == _halfword(0xB9A4))
            add(Pattern.UVC, index[second[index] & _FIRST_BYTE == 0])
        for pattern, function in ((Pattern.DIAG_308, 0x0308), (Pattern.DIAG_500, 0x0500)):
            if pattern in wanted:
                index = np.flatnonzero(second == _halfword(function))
                add(pattern, index[first[index] & _FIRST_BYTE == _halfword(0x8300)])
    return sorted(found, key=lambda match: match[0])


def storage_operand(instruction: bytes, gr: Callable[[int], int], psw: Psw) -> int:
    """Return the logical address of an S-format operand (base in bits 16-19, displacement in bits 20-31)."""
    base, displacement = instruction[2] >> 4, (instruction[2] & 15) << 8 | instruction[3]
    return (gr(base) if base else 0) + displacement & psw.address_mask
