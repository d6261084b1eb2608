"""Presenting a program interruption to a guest: the exchange of PSWs that its CPU would make."""

from __future__ import annotations

from zseal.arch import lowcore
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import PSW_SIZE, Psw
from zseal.arch.storage import Storage
from zseal.engine.interface import Cpu

_NULLIFYING = frozenset(
    {
        ProgramCode.SEGMENT_TRANSLATION,
        ProgramCode.PAGE_TRANSLATION,
        ProgramCode.ASCE_TYPE,
        ProgramCode.REGION_FIRST_TRANSLATION,
        ProgramCode.REGION_SECOND_TRANSLATION,
        ProgramCode.REGION_THIRD_TRANSLATION,
        ProgramCode.ALEN_TRANSLATION,
        ProgramCode.SECURE_STORAGE_ACCESS,
        ProgramCode.NON_SECURE_STORAGE_ACCESS,
        ProgramCode.SECURE_STORAGE_VIOLATION,
    }
)
"""Interruptions after which the instruction is executed again: the old PSW points at it, not after it."""


def present(cpu: Cpu, storage: Storage, error: ProgramInterruption, instruction_length: int) -> None:
    """Let ``cpu`` take ``error`` for its current instruction of ``instruction_length`` bytes."""
    psw = cpu.psw
    old = psw if error.code in _NULLIFYING else psw.advanced(instruction_length)
    base = cpu.prefix
    if error.teid is not None:
        storage.write(base + lowcore.TRANSLATION_EXCEPTION, error.teid.to_bytes(8, "big"))
    storage.write(base + lowcore.PROGRAM_LENGTH, bytes([instruction_length]))
    storage.write(base + lowcore.PROGRAM_CODE, int(error.code).to_bytes(2, "big"))
    storage.write(base + lowcore.PROGRAM_OLD_PSW, old.pack())
    cpu.psw = Psw.unpack(storage.read(base + lowcore.PROGRAM_NEW_PSW, PSW_SIZE))
