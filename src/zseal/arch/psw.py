"""The program-status word: mask bits, address, condition code, short format."""

from __future__ import annotations

import enum
from typing import NamedTuple

DAT = 1 << (63 - 5)
IO = 1 << (63 - 6)
EXTERNAL = 1 << (63 - 7)
MACHINE_CHECK = 1 << (63 - 13)
WAIT = 1 << (63 - 14)
PROBLEM_STATE = 1 << (63 - 15)
ADDRESS_SPACE_SHIFT = 63 - 17
CONDITION_CODE_SHIFT = 63 - 19
EA = 1 << (63 - 31)
BA = 1 << (63 - 32)
SHORT_FORMAT = 1 << (63 - 12)
MUST_BE_ZERO = 0xB80800FE7FFFFFFF
"""Bits 0, 2-4, 12, 24-30 and 33-63 of a mask: a PSW with one of them on is not valid."""
MASK_64BIT = EA | BA
_INTERRUPTS = IO | EXTERNAL | MACHINE_CHECK


class AddressSpace(enum.IntEnum):
    """PSW bits 16-17: which control register contains the address-space-control element (ASCE) of an access."""

    PRIMARY = 0  # CR1
    ACCESS_REGISTER = 1
    SECONDARY = 2  # CR7
    HOME = 3  # CR13


PSW_SIZE = 16
"""Bytes of a PSW in storage."""
_SPACES = tuple(AddressSpace)  # indexing is much faster than looking a value up in an enumeration


class Psw(NamedTuple):
    """A 128-bit PSW: 64-bit ``mask`` and 64-bit instruction ``address``."""

    mask: int
    address: int

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Psw:
        """Return the PSW in the 16 bytes of ``data`` from ``offset`` on, big-endian."""
        mask, address = (int.from_bytes(data[at : at + 8], "big") for at in (offset, offset + 8))
        return cls(mask, address)

    def pack(self) -> bytes:
        """Return the PSW in 16 bytes, big-endian."""
        return self.mask.to_bytes(8, "big") + self.address.to_bytes(8, "big")

    @classmethod
    def from_short(cls, value: int) -> Psw:
        """Expand the 64-bit short format, as found at absolute address 0."""
        return cls(value & ~0x7FFFFFFF & ~SHORT_FORMAT, value & 0x7FFFFFFF)

    def to_short(self) -> int:
        """Return the 64-bit short format; raises ValueError if mask or address has no short form."""
        if self.mask & 0x7FFFFFFF or self.mask & SHORT_FORMAT or not 0 <= self.address <= 0x7FFFFFFF:
            raise ValueError("this PSW has no short form")
        return self.mask | SHORT_FORMAT | self.address

    @property
    def condition_code(self) -> int:
        """The condition code, 0 to 3."""
        return self.mask >> CONDITION_CODE_SHIFT & 3

    @property
    def address_space(self) -> AddressSpace:
        """The address space that storage operands are in while DAT is on."""
        return _SPACES[self.mask >> ADDRESS_SPACE_SHIFT & 3]

    @property
    def dat(self) -> bool:
        """Whether dynamic address translation is on."""
        return bool(self.mask & DAT)

    @property
    def problem_state(self) -> bool:
        """Whether the CPU may not issue privileged instructions."""
        return bool(self.mask & PROBLEM_STATE)

    @property
    def disabled_wait(self) -> bool:
        """Whether a CPU with this PSW has stopped for good: wait state with all interruptions masked off."""
        return bool(self.mask & WAIT) and not self.mask & _INTERRUPTS

    @property
    def valid(self) -> bool:
        """Whether loading it causes no early specification exception: zeros, addressing mode and address fit."""
        if self.mask & MUST_BE_ZERO or self.mask & MASK_64BIT == EA:
            return False
        return self.address <= self.address_mask

    @property
    def address_mask(self) -> int:
        """The mask of an address in the current addressing mode: 24, 31 or 64 bits."""
        if self.mask & EA:
            return (1 << 64) - 1
        return 0x7FFFFFFF if self.mask & BA else 0xFFFFFF

    def with_condition_code(self, cc: int) -> Psw:
        """Return this PSW with condition code ``cc``."""
        return Psw(self.mask & ~(3 << CONDITION_CODE_SHIFT) | cc << CONDITION_CODE_SHIFT, self.address)

    def advanced(self, length: int) -> Psw:
        """Return this PSW after an instruction of ``length`` bytes (64-bit addressing wraps)."""
        return Psw(self.mask, self.address + length & (1 << 64) - 1)
