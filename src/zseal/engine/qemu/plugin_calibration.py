"""What the plugin in QEMU is shown, to learn by: where QEMU takes its global lock for the instructions that it watches.

QEMU takes that lock for all that has to do with devices, and for the exception that a UVC is to it. The plugin is asked
each time, which costs a running guest next to nothing, while a plugin that looks at translations makes it slower. What
the lock is taken for only the place in QEMU's source tells, and each version has others. So the first CPU executes one
instruction of each kind before the guest begins, and the plugin remembers where the lock is taken next.
"""

from __future__ import annotations

from collections.abc import Mapping

from zseal.arch import lowcore
from zseal.arch.instructions import UVC_OPCODE
from zseal.arch.psw import MASK_64BIT, Psw
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu

_PLACE = 0x2000
_LENGTH = 4
_BEFORE, _AFTER = Psw(MASK_64BIT, _PLACE), Psw(MASK_64BIT, _PLACE + _LENGTH)
_NO_FUNCTION, _NO_SUBCODE = 0xFFFF, 2
_NO_SUBCHANNEL = 0x0001_FFFF

_LESSONS: tuple[tuple[bytes, Mapping[int, int]], ...] = (
    (bytes.fromhex("83000044"), {}),  # DIAGNOSE 0x44, which gives way to other CPUs: the lock is not taken for it
    (bytes.fromhex("83240500"), {1: _NO_FUNCTION}),  # DIAGNOSE 0x500
    (bytes.fromhex("83020308"), {0: 0, 2: _NO_SUBCODE}),  # DIAGNOSE 0x308
    (bytes.fromhex("b2332000"), {1: _NO_SUBCHANNEL, 2: _PLACE}),  # START SUBCHANNEL
    (UVC_OPCODE + bytes(2), {}),
)
"""Instructions of 4 bytes with general registers. None has another effect than a condition code or an exception."""


def calibrate(cpu: QemuCpu, memory: SharedMemory) -> None:
    """Have ``cpu`` execute one instruction of each kind; registers and storage are as before when it is resumed.

    Raises EngineError where QEMU does not execute them.
    """
    psw, general = cpu.psw, [cpu.gr(number) for number in range(16)]
    assigned, code = memory.read(0, lowcore.SIZE), memory.read(_PLACE, _LENGTH)
    # The new PSW of a kernel that has not begun is a disabled wait, which would end no step.
    memory.write(lowcore.PROGRAM_NEW_PSW, _AFTER.pack())
    for instruction, registers in _LESSONS:
        _store(cpu, memory, instruction)
        for number, value in registers.items():
            cpu.set_gr(number, value)
        cpu.psw = _BEFORE
        cpu.step()
    memory.write(0, assigned)
    _store(cpu, memory, code)
    cpu.psw = psw
    for number, value in enumerate(general):
        cpu.set_gr(number, value)


def _store(cpu: QemuCpu, memory: SharedMemory, instruction: bytes) -> None:
    """Store ``instruction`` where it is executed, and have QEMU know of it."""
    memory.write(_PLACE, instruction)
    cpu.storage_changed(_PLACE, _LENGTH)
