"""Ultravisor calls that nobody waited for: they end in the guest kernel's handler of operation exceptions.

To QEMU's CPU a UVC is an unknown instruction. A breakpoint on each one known makes every other instruction slower, and
modules bring more at any time; one on the kernel's own handler costs next to nothing and misses none. The handler is
found through the table that Linux calls program-check handlers from (``pgm_check_table``, one pointer for each of 128
interruption codes), and the table by its shape, which 5.10 to 7.x share.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from zseal.arch import lowcore
from zseal.arch.dat import CpuMemory, translate
from zseal.arch.instructions import UVC_LENGTH, UVC_OPCODE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import Storage
from zseal.engine.errors import EngineError
from zseal.engine.interface import Cpu, Interrupted

_ENTRIES = 128
_OPERATION = 1
# Interruption codes that share a handler with each other.
_ALIKE = ((0x08, 0x0A), (0x09, 0x0B), (0x10, 0x11), (0x10, 0x38), (0x10, 0x39), (0x10, 0x3A), (0x10, 0x3B))
_UNASSIGNED = range(0x41, _ENTRIES)
_UNASSIGNED_LEAST = 48  # of 63; the rest may have handlers (0x50, 0x60…)
_REGISTERS = 2  # general register with the first argument, the address of struct pt_regs
_RETURN = 14
# struct user_pt_regs (uapi/asm/ptrace.h): one argument word, the PSW, the general registers.
_PSW_OFFSET, _GR_OFFSET, _SIZE = 8, 24, 152
_LENGTHS = (2, 4, 6)
_SUPPRESSING = (ProgramCode.OPERATION, ProgramCode.PRIVILEGED_OPERATION, ProgramCode.SPECIFICATION)
_HOME_SPACE = 13  # the control register of the address space that Linux keeps its kernel in


def find_handler(storage: Storage, ranges: Iterable[tuple[int, int, int]]) -> int | None:
    """Return the virtual address of the operation-exception handler of the Linux kernel mapped at ``ranges``.

    ``ranges`` are (virtual, absolute, length). None where there is no such table, or more than one that differ.
    """
    mapped = list(ranges)
    low = min((virtual for virtual, _, _ in mapped), default=0)
    high = max((virtual + length for virtual, _, length in mapped), default=0)
    handlers = set()
    for _, absolute, length in mapped:
        with storage.view(absolute & ~7, length & ~7) as view:
            handlers |= set(_handlers(np.frombuffer(view, np.uint64), low, high))
    return handlers.pop() if len(handlers) == 1 else None


def _handlers(words: npt.NDArray[np.uint64], low: int, high: int) -> list[int]:
    """Return the operation-exception entries of all tables in ``words``, which are big-endian."""
    count = len(words) - _ENTRIES
    if count <= 0:
        return []
    # Comparing for equality needs no byte order: what is left after that is little.
    alike = np.ones(count, bool)
    for first, second in _ALIKE[:3]:
        alike &= words[first : first + count] == words[second : second + count]
    alike &= words[:count] != words[_OPERATION : _OPERATION + count]
    alike &= words[0x08 : 0x08 + count] != words[0x09 : 0x09 + count]
    found = []
    for at in np.flatnonzero(alike).tolist():
        table = words[at : at + _ENTRIES].byteswap() if sys.byteorder == "little" else words[at : at + _ENTRIES]
        default = table[0]
        unassigned = int(np.count_nonzero(table[list(_UNASSIGNED)] == default))
        inside = bool(((table >= low) & (table < high)).all())
        distinct = table[_OPERATION] not in np.delete(table, _OPERATION) and table[0x10] != default
        same = all(table[first] == table[second] for first, second in _ALIKE)
        if inside and distinct and same and unassigned >= _UNASSIGNED_LEAST:
            found.append(int(table[_OPERATION]))
    return found


def last_interruption(cpu: Cpu, storage: Storage) -> Interrupted | None:
    """Return the last program interruption of ``cpu``, where it was one of the kernel and suppressed an instruction.

    None where it was another one, such as a page fault.
    """
    assigned = storage.read(cpu.prefix, lowcore.SIZE)
    length = assigned[lowcore.PROGRAM_LENGTH]
    code = int.from_bytes(assigned[lowcore.PROGRAM_CODE : lowcore.PROGRAM_CODE + 2], "big")
    if code not in _SUPPRESSING or length not in _LENGTHS:
        return None
    old = Psw.unpack(assigned, lowcore.PROGRAM_OLD_PSW).advanced(-length)
    if old.problem_state or not old.dat:
        return None
    try:
        place = translate(storage, cpu.cr(_HOME_SPACE), old.address, prefix=cpu.prefix)
        return Interrupted(code, old.address, storage.read(place, length))
    except (ProgramInterruption, EngineError):
        return None


class InterruptedCpu:
    """A CPU (``zseal.engine.interface.Cpu``) as it was when the operation exception interrupted it.

    ``cpu`` stands at the first instruction of the handler. PSW and general registers are those that the kernel saved,
    and changes go there, for the kernel to load when its handler returns.
    """

    def __init__(self, cpu: Cpu, storage: Storage) -> None:
        self._cpu = cpu
        self._memory = CpuMemory(cpu, storage, space=cpu.psw.address_space if cpu.psw.dat else None)
        self._address = cpu.gr(_REGISTERS)
        saved = self._memory.read(self._address, _SIZE)
        words = [int.from_bytes(saved[at : at + 8], "big") for at in range(0, _SIZE, 8)]
        self._general = words[_GR_OFFSET // 8 :]
        # The exception suppresses the instruction: the saved PSW is behind it.
        self.psw = Psw(words[_PSW_OFFSET // 8], words[_PSW_OFFSET // 8 + 1]).advanced(-UVC_LENGTH)
        self.number = cpu.number

    @property
    def prefix(self) -> int:
        """The prefix register."""
        return self._cpu.prefix

    def uvc(self) -> bytes | None:
        """Return the interrupted instruction where it is a UVC of the kernel, which firmware completes."""
        if self.psw.problem_state or not self.psw.dat:
            return None
        instruction = self._memory.read(self.psw.address, UVC_LENGTH)
        return instruction if instruction[:2] == UVC_OPCODE else None

    def finish(self) -> None:
        """Store the registers where the kernel takes them from, and let its handler return at once."""
        words = [self.psw.mask, self.psw.address, *self._general]
        self._memory.write(self._address + _PSW_OFFSET, b"".join(word.to_bytes(8, "big") for word in words))
        self._cpu.psw = Psw(self._cpu.psw.mask, self._cpu.gr(_RETURN))

    def gr(self, number: int) -> int:
        """Return general register ``number``."""
        return self._general[number]

    def set_gr(self, number: int, value: int) -> None:
        """Set general register ``number``."""
        self._general[number] = value

    def cr(self, number: int) -> int:
        """Return control register ``number``."""
        return self._cpu.cr(number)

    def set_cr(self, number: int, value: int) -> None:
        """Set control register ``number``."""
        self._cpu.set_cr(number, value)

    def ar(self, number: int) -> int:
        """Return access register ``number``."""
        return self._cpu.ar(number)

    def set_ar(self, number: int, value: int) -> None:
        """Set access register ``number``."""
        self._cpu.set_ar(number, value)

    def step(self) -> None:
        """Refuse: what was interrupted is over."""
        raise EngineError("an interrupted CPU can't be stepped")
