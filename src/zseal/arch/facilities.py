"""Facility bits and the list that STFLE (store facility list extended) stores.

Bit 0 is the most significant bit of the list's first doubleword. STFLE takes the number of doublewords wanted, less
one, in bits 56-63 of general register 0 and leaves the number needed there, less one. Condition code 3 means that the
list was cut (z/Architecture Principles of Operation, "STORE FACILITY LIST EXTENDED").
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from zseal.arch.storage import OperandMemory


class Facility(enum.IntEnum):
    """Facility bit numbers that matter to protected virtualization and its boot code."""

    Z_ARCHITECTURE_INSTALLED = 1
    Z_ARCHITECTURE_ACTIVE = 2
    STFLE = 7
    EDAT_1 = 8
    EDAT_2 = 78
    INSTRUCTION_EXECUTION_PROTECTION = 130
    ULTRAVISOR_CALL = 158
    UNPACK = 161


def _location(bit: int) -> tuple[int, int]:
    return bit // 8, 0x80 >> bit % 8


def facility_list(bits: Iterable[int]) -> bytes:
    """Return the shortest list of whole doublewords with exactly ``bits`` set (8 bytes if there are none)."""
    bits = set(bits)
    data = bytearray(8 * (max(bits, default=0) // 64 + 1))
    for bit in bits:
        byte, mask = _location(bit)
        data[byte] |= mask
    return bytes(data)


def facility_bits(data: bytes) -> list[int]:
    """Return the numbers of the bits set in a stored list, ascending."""
    return [8 * at + bit for at, byte in enumerate(data) for bit in range(8) if byte & 0x80 >> bit]


def has_facility(data: bytes, bit: int) -> bool:
    """Whether ``bit`` is set in a stored list; bits beyond its end are off."""
    byte, mask = _location(bit)
    return byte < len(data) and bool(data[byte] & mask)


def store_facility_list(memory: OperandMemory, address: int, r0: int, facilities: bytes) -> tuple[int, int]:
    """Do what STFLE does with the operand at ``address`` (a doubleword boundary) and general register 0 ``r0``.

    Returns register 0 and the condition code. Raises ProgramInterruption if the operand cannot be stored.
    """
    needed = len(facilities) // 8
    wanted = (r0 & 0xFF) + 1
    memory.write(address, facilities[: 8 * wanted])
    return r0 & ~0xFF | needed - 1, 0 if wanted >= needed else 3


def amend_facility_list(
    memory: OperandMemory, address: int, *, r0_before: int, r0_after: int, add: Iterable[int]
) -> tuple[int, int]:
    """Turn on the facilities ``add`` in a list that a CPU has just stored at ``address``.

    ``r0_before`` and ``r0_after`` are general register 0 before and after the CPU's own STFLE. Only doublewords that
    the program asked for are changed; if the CPU's own list was too short for the bits, it grows. Returns register 0
    and the condition code as STFLE on a machine with these facilities would leave them.
    """
    present = (r0_after & 0xFF) + 1
    stored = min((r0_before & 0xFF) + 1, present)
    data = bytearray(memory.read(address, 8 * stored))
    # Facilities that the CPU has, but the program did not ask for, still count as needed.
    data += bytes(8 * (present - stored))
    extra = facility_list(add)
    data += bytes(max(0, len(extra) - len(data)))
    for at, byte in enumerate(extra):
        data[at] |= byte
    return store_facility_list(memory, address, r0_after & ~0xFF | r0_before & 0xFF, bytes(data))
