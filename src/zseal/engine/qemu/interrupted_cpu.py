"""Ultravisor calls without a breakpoint: they end in the guest kernel's handler of operation exceptions.

To QEMU's CPU a UVC is an unknown instruction. A breakpoint on each known one makes every other instruction slower, and
modules can bring more at any time. One breakpoint on the kernel's own handler (:mod:`zseal.linux.program_checks`) costs
almost nothing and misses none.
"""

from __future__ import annotations

from zseal.arch import lowcore
from zseal.arch.dat import CpuMemory, translate
from zseal.arch.instructions import UVC_LENGTH, UVC_OPCODE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import Storage
from zseal.engine.errors import EngineError
from zseal.engine.interface import Cpu, Interrupted
from zseal.linux.program_checks import PT_REGS_GR, PT_REGS_POINTER, PT_REGS_PSW, PT_REGS_SIZE, RETURN_ADDRESS

_LENGTHS = (2, 4, 6)
_SUPPRESSING = (ProgramCode.OPERATION, ProgramCode.PRIVILEGED_OPERATION, ProgramCode.SPECIFICATION)
_HOME_SPACE = 13  # the control register of the address space in which Linux keeps its kernel


def last_interruption(cpu: Cpu, storage: Storage) -> Interrupted | None:
    """Return the last program interruption of ``cpu``, if it was in the kernel and suppressed an instruction.

    Returns None for others, such as a page fault.
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
        self._address = cpu.gr(PT_REGS_POINTER)
        saved = self._memory.read(self._address, PT_REGS_SIZE)
        words = [int.from_bytes(saved[at : at + 8], "big") for at in range(0, PT_REGS_SIZE, 8)]
        self._general = words[PT_REGS_GR // 8 :]
        # The exception suppresses the instruction: the saved PSW points past it.
        self.psw = Psw(words[PT_REGS_PSW // 8], words[PT_REGS_PSW // 8 + 1]).advanced(-UVC_LENGTH)
        self.number = cpu.number

    @property
    def prefix(self) -> int:
        """The prefix register."""
        return self._cpu.prefix

    def uvc(self) -> bytes | None:
        """Return the interrupted instruction if it is a UVC of the kernel, which firmware completes."""
        if self.psw.problem_state or not self.psw.dat:
            return None
        instruction = self._memory.read(self.psw.address, UVC_LENGTH)
        return instruction if instruction[:2] == UVC_OPCODE else None

    def finish(self) -> None:
        """Store the registers where the kernel takes them from, and let its handler return immediately."""
        words = [self.psw.mask, self.psw.address, *self._general]
        self._memory.write(self._address + PT_REGS_PSW, b"".join(word.to_bytes(8, "big") for word in words))
        self._cpu.psw = Psw(self._cpu.psw.mask, self._cpu.gr(RETURN_ADDRESS))

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
        """Refuse: the interrupted instruction is over."""
        raise EngineError("an interrupted CPU cannot be stepped")
