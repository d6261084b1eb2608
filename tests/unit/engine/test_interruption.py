"""A program interruption leaves the PSW at the instruction where that is to be executed again, else after it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from zseal.arch import lowcore
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import MASK_64BIT, Psw
from zseal.arch.storage import MIB
from zseal.engine.interface import Cpu
from zseal.engine.interruption import present
from zseal.engine.memory import SharedMemory

AT, LENGTH, NEW = 0x5000, 4, Psw(MASK_64BIT, 0x7000)
NULLIFYING = {0x10, 0x11, 0x29, 0x38, 0x39, 0x3A, 0x3B, 0x3D, 0x3E, 0x3F}


@pytest.mark.parametrize("code", ProgramCode, ids=lambda code: code.name)
def test_nullifying_interruptions_name_the_instruction(code: ProgramCode) -> None:
    memory = SharedMemory(MIB)
    memory.write(lowcore.PROGRAM_NEW_PSW, NEW.pack())
    cpu = cast(Cpu, SimpleNamespace(psw=Psw(MASK_64BIT, AT), prefix=0))
    present(cpu, memory, ProgramInterruption(code, 0x123000, teid=0x123004), LENGTH)
    old = Psw.unpack(memory.read(lowcore.PROGRAM_OLD_PSW, 16))
    assert old.address == (AT if code in NULLIFYING else AT + LENGTH)
    assert cpu.psw == NEW
    assert int.from_bytes(memory.read(lowcore.PROGRAM_CODE, 2), "big") == code
    assert int.from_bytes(memory.read(lowcore.TRANSLATION_EXCEPTION, 8), "big") == 0x123004
    memory.close()
