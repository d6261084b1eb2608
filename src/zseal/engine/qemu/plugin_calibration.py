"""Calibration of the plugin in QEMU: the examples from which it learns why QEMU takes its global lock.

docs/plugin.md explains why that is useful and safe.
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

_EXAMPLES: tuple[tuple[bytes, Mapping[int, int]], ...] = (
    (bytes.fromhex("83000044"), {}),  # DIAGNOSE 0x44 (yield): QEMU does not take the lock for it
    (bytes.fromhex("83240500"), {1: _NO_FUNCTION}),  # DIAGNOSE 0x500
    (bytes.fromhex("83020308"), {0: 0, 2: _NO_SUBCODE}),  # DIAGNOSE 0x308
    (bytes.fromhex("b2332000"), {1: _NO_SUBCHANNEL, 2: _PLACE}),  # START SUBCHANNEL
    (UVC_OPCODE + bytes(2), {}),
)
"""Instructions of 4 bytes, with their general registers.

Their only effects are a condition code, a return code in a register, or an exception.
"""


def calibrate(cpu: QemuCpu, memory: SharedMemory) -> None:
    """Let ``cpu`` execute one instruction of each kind, then restore registers and storage.

    The registers are written when ``cpu`` is resumed. Raises EngineError if QEMU does not execute the instructions.
    """
    psw, general = cpu.psw, [cpu.gr(number) for number in range(16)]
    assigned, code = memory.read(0, lowcore.SIZE), memory.read(_PLACE, _LENGTH)
    # The new PSW of a kernel that has not begun is a disabled wait: a step into it would not end.
    memory.write(lowcore.PROGRAM_NEW_PSW, _AFTER.pack())
    for instruction, registers in _EXAMPLES:
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
    """Store ``instruction`` where it is executed, and discard QEMU's translation of it."""
    memory.write(_PLACE, instruction)
    cpu.storage_changed(_PLACE, _LENGTH)
