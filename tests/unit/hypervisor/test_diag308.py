"""What firmware answers, with a CPU and a hypervisor that are told what to be."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from zseal.arch.facilities import facility_bits, facility_list
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import MASK_64BIT, PROBLEM_STATE, Psw
from zseal.arch.storage import OperandMemory
from zseal.engine.interface import Action, Engine, Series, Trap, TrapKind
from zseal.engine.memory import SharedMemory
from zseal.formats.ipib import Ipib, IpibComponent
from zseal.hypervisor.diag308 import Firmware, Refused

START = Psw(MASK_64BIT, 0x95B000)
BLOCK_ADDRESS = 0x20000
LIST_ADDRESS = 0x30000


class FakeCpu:
    """A CPU whose own STFLE stores ``facilities``."""

    number = 0
    prefix = 0

    def __init__(self, memory: SharedMemory, facilities: bytes = facility_list([0, 1, 2, 7])) -> None:
        self.psw = Psw(MASK_64BIT, 0x10100)
        self.general = [0] * 16
        self.control = [0xE0, *[0] * 15]
        self.access = [0] * 16
        self._memory = memory
        self._facilities = facilities

    def gr(self, number: int) -> int:
        return self.general[number]

    def set_gr(self, number: int, value: int) -> None:
        self.general[number] = value

    def cr(self, number: int) -> int:
        return self.control[number]

    def set_cr(self, number: int, value: int) -> None:
        self.control[number] = value

    def ar(self, number: int) -> int:
        return self.access[number]

    def set_ar(self, number: int, value: int) -> None:
        self.access[number] = value

    def step(self) -> None:
        wanted = (self.general[0] & 0xFF) + 1
        self._memory.write(LIST_ADDRESS, self._facilities[: wanted * 8])
        self.general[0] = len(self._facilities) // 8 - 1
        self.psw = self.psw.advanced(4)


class FakeEngine:
    def __init__(self, memory: SharedMemory) -> None:
        self.memory = memory
        self.entries: list[Psw] = []

    def protected(self, entry: Psw) -> None:
        self.entries.append(entry)


class FakeHypervisor:
    def __init__(self, refusal: int | None = None) -> None:
        self.protected = False
        self.blocks: list[Ipib] = []
        self.resets: list[tuple[int, bool]] = []
        self.calls: list[int] = []
        self._refusal = refusal

    def protect(self, block: Ipib) -> Psw:
        self.blocks.append(block)
        if self._refusal is not None:
            raise Refused(self._refusal)
        self.protected = True
        return START

    def reset_guest(self, *, cpu: int, clear: bool) -> None:
        self.resets.append((cpu, clear))

    def guest_call(self, cpu: int, memory: OperandMemory, address: int) -> int:
        self.calls.append(address)
        return 1

    def series(self, cpu: int, memory: OperandMemory, address: int) -> Series | None:
        return Series(48, 32, 4, b"\0\1\0\0", 0, np.array([address], np.uint8), lambda pages: None)


class Rig:
    def __init__(self, refusal: int | None = None) -> None:
        self.memory = SharedMemory(1 << 20)
        self.cpu = FakeCpu(self.memory)
        self.engine = FakeEngine(self.memory)
        self.hypervisor = FakeHypervisor(refusal)
        self.firmware = Firmware(cast(Engine, self.engine), self.hypervisor)

    def trap(self, kind: TrapKind, instruction: str) -> Action:
        return self.firmware.trap(Trap(kind, self.cpu, bytes.fromhex(instruction)))

    def diagnose(self, subcode: int, address: int = 0, instruction: str = "83020308") -> Action:
        """DIAGNOSE with R1 = 0 (so the answer is in register 1) and R3 = 2."""
        self.cpu.general[0], self.cpu.general[1], self.cpu.general[2] = address, 0xEE, subcode
        return self.trap(TrapKind.DIAG_308, instruction)

    def code(self, subcode: int, address: int = 0) -> int:
        assert self.diagnose(subcode, address) is Action.DONE
        return self.cpu.general[1]

    def store_block(self, **changes: int) -> bytes:
        component = IpibComponent(tweak_prefix=1, address=changes.get("address", 0x40000), size=0x1000)
        block = Ipib.build(header_address=0x50000, header_size=640, components=[component]).pack()
        self.memory.write(BLOCK_ADDRESS, block)
        return block


@pytest.fixture
def rig() -> Rig:
    return Rig()


def interruption(rig: Rig, kind: TrapKind, instruction: str) -> ProgramCode:
    with pytest.raises(ProgramInterruption) as caught:
        rig.trap(kind, instruction)
    return caught.value.code


@pytest.mark.parametrize(("protected", "bit"), [(False, 161), (True, 158)])
def test_stfle_tells_the_facility_of_the_phase(rig: Rig, protected: bool, bit: int) -> None:
    rig.hypervisor.protected = protected
    rig.cpu.general[0], rig.cpu.general[15] = 31, LIST_ADDRESS
    assert rig.trap(TrapKind.STFLE, "b2b0f000") is Action.DONE
    assert facility_bits(rig.memory.read(LIST_ADDRESS, 256)) == [0, 1, 2, 7, bit]
    assert rig.cpu.psw == Psw(MASK_64BIT, 0x10104)
    assert rig.cpu.general[0] == 2


def test_stfle_stores_no_more_than_was_asked_for(rig: Rig) -> None:
    rig.memory.write(LIST_ADDRESS, b"\xff" * 32)
    rig.cpu.general[0], rig.cpu.general[15] = 0, LIST_ADDRESS
    rig.trap(TrapKind.STFLE, "b2b0f000")
    assert rig.memory.read(LIST_ADDRESS + 8, 24) == b"\xff" * 24
    assert rig.cpu.psw.condition_code == 3


def test_the_parameter_block_is_copied_and_given_back(rig: Rig) -> None:
    block = rig.store_block()
    assert rig.code(8, BLOCK_ADDRESS) == 1
    rig.memory.write(BLOCK_ADDRESS, bytes(4096))
    assert rig.code(9, 0x60000) == 1
    assert rig.memory.read(0x60000, len(block)) == block
    rig.firmware.reset()
    assert rig.code(9, 0x60000) == 0x102


def test_an_invalid_parameter_block_is_refused_and_explained(rig: Rig) -> None:
    rig.store_block(address=0x40010)
    assert rig.code(8, BLOCK_ADDRESS) == 0x402
    assert "not page aligned" in rig.firmware.complaint
    assert rig.code(10) == 0x902
    assert rig.code(9, 0x60000) == 0x102


def test_a_start_without_a_parameter_block_is_refused(rig: Rig) -> None:
    assert rig.code(10) == 0x902
    assert rig.engine.entries == []
    assert not rig.hypervisor.protected


def test_a_start_sets_every_register(rig: Rig) -> None:
    rig.store_block()
    rig.code(8, BLOCK_ADDRESS)
    rig.cpu.general[7], rig.cpu.access[3], rig.cpu.control[13] = 1, 2, 3
    assert rig.diagnose(10) is Action.DONE
    assert rig.cpu.psw == START
    assert rig.cpu.general == [0] * 16
    assert rig.cpu.access == [0] * 16
    assert rig.cpu.control == [0xE0, *[0] * 13, 0xC2000000, 0]
    assert rig.engine.entries == [START]
    assert rig.hypervisor.blocks[0].components[0].address == 0x40000


def test_a_refused_start_answers_and_goes_on() -> None:
    rig = Rig(refusal=0x0002_0005_0108_0A02)
    rig.store_block()
    rig.code(8, BLOCK_ADDRESS)
    assert rig.code(10) == 0x0002_0005_0108_0A02
    assert rig.cpu.psw.address == 0x10108
    assert rig.engine.entries == []


@pytest.mark.parametrize("subcode", [0, 1, 2, 3, 4, 5, 6, 7, 11, 0x10000])
def test_other_functions_are_the_machine_s_own_before_protection(rig: Rig, subcode: int) -> None:
    assert rig.diagnose(subcode) is Action.EXECUTE


def test_operands_of_diagnose_are_checked(rig: Rig) -> None:
    for subcode in (8, 9):
        with pytest.raises(ProgramInterruption) as caught:
            rig.diagnose(subcode, 0x20008)
        assert caught.value.code is ProgramCode.SPECIFICATION
        with pytest.raises(ProgramInterruption) as caught:
            rig.diagnose(subcode, 1 << 20)
        assert caught.value.code is ProgramCode.ADDRESSING
    rig.cpu.general[2] = 10
    assert interruption(rig, TrapKind.DIAG_308, "83120308") is ProgramCode.SPECIFICATION  # R1 is odd
    rig.cpu.psw = Psw(MASK_64BIT | PROBLEM_STATE, 0)
    assert interruption(rig, TrapKind.DIAG_308, "83020308") is ProgramCode.PRIVILEGED_OPERATION


@pytest.mark.parametrize("subcode", [4, 7, 8, 9, 10, 0x10000])
def test_a_protected_guest_is_refused_most_functions(rig: Rig, subcode: int) -> None:
    rig.hypervisor.protected = True
    with pytest.raises(ProgramInterruption) as caught:
        rig.diagnose(subcode)
    assert caught.value.code is ProgramCode.SPECIFICATION
    assert rig.firmware.refused == ({subcode: 1} if subcode < 0x10000 else {})


def test_a_protected_guest_resets_with_the_hypervisor_s_help(rig: Rig) -> None:
    rig.hypervisor.protected = True
    assert [rig.diagnose(subcode) for subcode in (0, 1, 3, 5, 6)] == [Action.EXECUTE] * 5
    assert rig.hypervisor.resets == [(0, True), (0, False)]


def test_uvc_without_protection_is_left_to_the_cpu(rig: Rig) -> None:
    assert rig.trap(TrapKind.UVC, "b9a40002") is Action.EXECUTE


def test_uvc_sets_condition_code_and_advances(rig: Rig) -> None:
    rig.hypervisor.protected = True
    rig.cpu.general[4] = 0x8008
    assert rig.trap(TrapKind.UVC, "b9a40034") is Action.DONE
    assert rig.hypervisor.calls == [0x8008]
    assert rig.cpu.psw == Psw(MASK_64BIT, 0x10104).with_condition_code(1)


def test_uvc_is_checked_before_it_is_issued(rig: Rig) -> None:
    rig.hypervisor.protected = True
    assert interruption(rig, TrapKind.UVC, "b9a41034") is ProgramCode.SPECIFICATION
    assert interruption(rig, TrapKind.UVC, "b9a40134") is ProgramCode.SPECIFICATION
    rig.cpu.psw = Psw(MASK_64BIT | PROBLEM_STATE, 0)
    assert interruption(rig, TrapKind.UVC, "b9a41034") is ProgramCode.PRIVILEGED_OPERATION
    assert rig.hypervisor.calls == []


def test_only_a_protected_guest_has_series_of_calls(rig: Rig) -> None:
    rig.cpu.set_gr(4, 0x77)
    call = Trap(TrapKind.UVC, rig.cpu, bytes.fromhex("b9a40034"))
    assert rig.firmware.series(call) is None
    rig.hypervisor.protected = True
    series = rig.firmware.series(call)
    assert series is not None
    assert series.ready.tolist() == [0x77]  # asked with the address in the call's second register
