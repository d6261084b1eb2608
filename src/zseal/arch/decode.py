"""Fields of an instruction, addresses of its operands, EXECUTE resolved: what an interpreter needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from zseal.arch.instructions import instruction_length
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw

_EX, _EXRL = 0x44, 0xC6
_MASK64 = (1 << 64) - 1
Fetch = Callable[[int, int], bytes]
"""Reads guest code at a logical address; raises ProgramInterruption."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction to interpret; ``length`` is how far the PSW advances (that of the EXECUTE, if there is one)."""

    data: bytes
    length: int

    @property
    def opcode(self) -> int:
        """One byte, two, or first and last of six: whatever the format has as its operation code."""
        return opcode(self.data)

    @property
    def r1(self) -> int:
        """Bits 8-11 of RX, RS and SI formats."""
        return self.data[1] >> 4

    @property
    def r3(self) -> int:
        """Bits 12-15 of RS formats (the index register of RX)."""
        return self.data[1] & 15

    @property
    def rre1(self) -> int:
        """Bits 24-27 of RRE."""
        return self.data[3] >> 4

    @property
    def rre2(self) -> int:
        """Bits 28-31 of RRE."""
        return self.data[3] & 15

    def operand(self, gr: Callable[[int], int], psw: Psw, *, index: int = 0) -> int:
        """Return the logical address of the storage operand: base and displacement, 20 bits long in RSY and RXY."""
        base = self.data[2] >> 4
        displacement = (self.data[2] & 15) << 8 | self.data[3]
        if self.data[0] in (0xE3, 0xEB):
            displacement |= int.from_bytes(self.data[4:5], "big", signed=True) << 12
        address = displacement + (gr(base) if base else 0) + (gr(index) if index else 0)
        return address & psw.address_mask


def opcode(data: bytes) -> int:
    """Return the operation code of an instruction; see :attr:`Instruction.opcode`."""
    first = data[0]
    if first in _LAST_BYTE_TOO:
        return first << 8 | data[5]
    if first in _SECOND_BYTE_TOO:
        return first << 8 | data[1]
    if first in _SECOND_HALF_TOO:
        return first << 8 | (data[1] & 15)
    return first


_SECOND_BYTE_TOO = frozenset((0x01, 0xB2, 0xB3, 0xB9, 0xE5))
_SECOND_HALF_TOO = frozenset((0xA5, 0xA7, 0xC0, 0xC2, 0xC4, 0xC6, 0xC8, 0xCC))
_LAST_BYTE_TOO = frozenset((0xE3, 0xE7, 0xEB, 0xEC, 0xED))


def read(fetch: Fetch, address: int) -> bytes:
    """Return the 2, 4 or 6 bytes of the instruction at ``address``."""
    head = fetch(address & _MASK64, 2)
    length = instruction_length(head[0])
    return head if length == 2 else head + fetch(address + 2 & _MASK64, length - 2)


def is_execute(data: bytes) -> bool:
    """Whether ``data`` is EXECUTE or EXECUTE RELATIVE LONG."""
    return data[0] == _EX or (data[0] == _EXRL and data[1] & 15 == 0)


def resolve(fetch: Fetch, gr: Callable[[int], int], psw: Psw, data: bytes) -> Instruction:
    """Return what ``data`` at the PSW amounts to: itself, or the modified target of an EXECUTE.

    Raises ProgramInterruption: specification for an odd target, execute (3) for a target that is an EXECUTE.
    """
    if not is_execute(data):
        return Instruction(data, len(data))
    if data[0] == _EX:
        target = Instruction(data, 4).operand(gr, psw, index=data[1] & 15)
    else:
        target = psw.address + 2 * int.from_bytes(data[2:6], "big", signed=True) & _MASK64
    if target & 1:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    found = bytearray(read(fetch, target))
    if is_execute(bytes(found)):
        raise ProgramInterruption(ProgramCode.EXECUTE)
    if data[1] >> 4:
        found[1] |= gr(data[1] >> 4) & 0xFF
    return Instruction(bytes(found), len(data))


def length(first_byte: int) -> int:
    """Return the length of the instruction that begins with ``first_byte``: 2, 4 or 6."""
    return instruction_length(first_byte)
