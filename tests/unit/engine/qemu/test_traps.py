"""What is done with a CPU that stopped, with a CPU, a listener and code of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import DAT, EXTERNAL, IO, MASK_64BIT, WAIT, Psw
from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.engine.interface import Action, Console, Milestone, Series, Stop, Trap, TrapKind
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.sites import Sites, Stage
from zseal.engine.qemu.traps import Traps

FILLER = bytes.fromhex("a7110fff") * 20
STFLE, UVC, LPSWE, DIAG_308 = (bytes.fromhex(code) for code in ("b2b0f000", "b9a40034", "b2b2f000", "83020308"))
TEXT = 0x10000
AT = TEXT + len(FILLER)
OPERAND = 0x4000
REAL_SPACE = 0x20
HANDLER = 0x300000


class FakeCpu:
    number = 1
    prefix = 0

    def __init__(self, memory: SharedMemory, address: int, mask: int = MASK_64BIT) -> None:
        self.psw = Psw(mask, address)
        self.general = [0] * 16
        self.general[15] = OPERAND
        self.controls = [0] * 16
        self.controls[1] = self.controls[13] = REAL_SPACE
        self._memory = memory

    def gr(self, number: int) -> int:
        return self.general[number]

    def cr(self, number: int) -> int:
        return self.controls[number]

    def ar(self, number: int) -> int:
        return 0

    def instruction(self) -> bytes:
        if self.psw.address >= self._memory.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, self.psw.address)
        return self._memory.read(self.psw.address, 4)


class FakeListener:
    def __init__(self) -> None:
        self.seen: list[object] = []
        self.answer: Action | ProgramInterruption = Action.DONE

    def trap(self, trap: Trap) -> Action:
        self.seen.append(trap.kind)
        if isinstance(self.answer, ProgramInterruption):
            raise self.answer
        if self.answer is Action.DONE:
            trap.cpu.psw = trap.cpu.psw.advanced(len(trap.instruction))
        return self.answer

    def series(self, trap: Trap) -> Series | None:
        return None

    def milestone(self, milestone: Milestone) -> None:
        self.seen.append(milestone)

    def restarted(self, cpu: int) -> None:
        self.seen.append(("restarted", cpu))

    def console(self, console: Console, data: bytes) -> None:
        raise AssertionError

    def reset(self) -> None:
        raise AssertionError

    def stopped(self, stop: Stop) -> None:
        raise AssertionError

    def failed(self, error: BaseException) -> None:
        raise AssertionError


class Rig:
    def __init__(self, *code: bytes) -> None:
        self.memory = SharedMemory(8 * MIB)
        self.memory.write(TEXT, FILLER + b"".join(code) + FILLER)
        self.sites = Sites(self.memory, TEXT)
        self.listener = FakeListener()
        self.notified: list[int] = []
        self.kernels: list[Stage] = []
        self.traps = Traps(
            self.sites,
            self.memory,
            self.listener,
            run_ahead=None,
            notify=self._notify,
            kernel_begins=lambda: self.kernels.append(self.sites.stage),
            going_on=lambda: True,
        )

    def _notify(self, cpu: int) -> bool:
        self.notified.append(cpu)
        return True

    def at(self, address: int = AT, mask: int = MASK_64BIT) -> tuple[bool, FakeCpu]:
        cpu = FakeCpu(self.memory, address, mask)
        return self.traps.handle(cast(QemuCpu, cpu)), cpu

    def boot(self) -> Rig:
        self.sites.protected()
        self.at(TEXT)
        self.listener.seen.clear()
        return self


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.memory.close()


@pytest.fixture
def rig(rigs: list[Rig]) -> Rig:
    rigs.append(Rig(UVC, LPSWE, DIAG_308, STFLE))
    return rigs[0]


def psw_at_operand(rig: Rig, mask: int, address: int) -> None:
    rig.memory.write(OPERAND, mask.to_bytes(8, "big") + address.to_bytes(8, "big"))


def test_the_image_then_the_kernel_begin_at_the_same_place(rig: Rig) -> None:
    assert rig.at(TEXT)[0] is False
    rig.sites.protected()
    assert rig.at(TEXT)[0] is False
    assert rig.listener.seen == [Milestone.IMAGE_ENTRY, Milestone.KERNEL_ENTRY]
    assert rig.sites.stage is Stage.DECOMPRESSOR


def test_a_kernel_that_begins_with_dat_off_turns_it_on_itself(rig: Rig) -> None:
    rig.boot()
    rig.memory.write(0x100000, FILLER + LPSWE + FILLER)
    rig.sites._unmapped = (0x100000, 0x1000)
    native, cpu = rig.at(0x100000, MASK_64BIT | DAT)
    assert native  # a program with code at the same virtual address
    native, cpu = rig.at(0x100000)
    assert not native
    assert cpu.psw.address == 0x100000
    psw_at_operand(rig, MASK_64BIT | DAT, 0x200000)
    assert rig.at(0x100000 + len(FILLER))[0] is False
    assert rig.listener.seen == [Milestone.KERNEL_PROPER]
    assert rig.kernels == [Stage.KERNEL], "told once the sites are those of the kernel"


def test_a_program_with_code_at_the_same_virtual_address_goes_on(rig: Rig) -> None:
    native, cpu = rig.at(TEXT, MASK_64BIT | DAT)
    assert native
    assert cpu.psw.address == TEXT
    assert rig.listener.seen == []


def test_a_trapped_instruction_is_completed_by_the_listener(rig: Rig) -> None:
    native, cpu = rig.boot().at()
    assert not native
    assert cpu.psw.address == AT + 4
    assert rig.listener.seen == [TrapKind.UVC]
    assert rig.traps.calls == 1


def test_the_cpu_executes_what_the_listener_leaves_to_it(rig: Rig) -> None:
    rig.listener.answer = Action.EXECUTE
    assert rig.boot().at(AT + 8)[0]


def test_a_program_interruption_is_presented(rig: Rig) -> None:
    rig.listener.answer = ProgramInterruption(ProgramCode.SPECIFICATION)
    rig.memory.write(0x1D0, MASK_64BIT.to_bytes(8, "big") + (0x7777).to_bytes(8, "big"))
    native, cpu = rig.boot().at()
    assert not native
    assert cpu.psw == Psw(MASK_64BIT, 0x7777)
    assert rig.memory.read(0x8D, 3) == b"\x04\x00\x06"
    assert rig.memory.read(0x150, 16) == MASK_64BIT.to_bytes(8, "big") + (AT + 4).to_bytes(8, "big")


def test_other_code_at_a_site_is_executed(rig: Rig) -> None:
    rig.boot().memory.write(AT, FILLER[:4])
    assert rig.at()[0]
    rig.sites.add_site(1 << 40)
    assert rig.at(1 << 40)[0]  # nothing can be fetched there
    assert rig.listener.seen == []


def test_an_lpswe_that_turns_translation_on_starts_the_kernel(rig: Rig) -> None:
    rig.boot().memory.write(0x200000, FILLER + UVC + FILLER)
    psw_at_operand(rig, MASK_64BIT | DAT, 0x200000)
    native, cpu = rig.at(AT + 4)
    assert not native
    assert cpu.psw.address == AT + 4  # QEMU's CPU executes it itself: no breakpoint is there any more
    assert rig.sites.kind(AT + 4) is None
    assert rig.listener.seen == [Milestone.KERNEL_PROPER]
    assert rig.sites.kind(0x200000 + len(FILLER)) is TrapKind.UVC


def test_an_lpswe_without_translation_is_carried_out(rig: Rig) -> None:
    psw_at_operand(rig.boot(), MASK_64BIT | 1 << 44, 0x5678)
    native, cpu = rig.at(AT + 4)
    assert not native
    assert cpu.psw == Psw(MASK_64BIT | 1 << 44, 0x5678)


def loaded(rig: Rig, psw: Psw) -> FakeCpu:
    """Return a CPU that has just executed the LPSWE, seen by the plugin, and has ``psw`` since."""
    rig.boot().memory.write(0x200000, FILLER + STFLE + FILLER)
    psw_at_operand(rig, MASK_64BIT | DAT, 0x200000)
    return FakeCpu(rig.memory, psw.address, psw.mask)


def test_a_kernel_that_the_plugin_saw_start(rig: Rig) -> None:
    cpu = loaded(rig, Psw(MASK_64BIT | DAT, 0x200000))
    rig.traps.handle_load(cast(QemuCpu, cpu), AT + 4)
    assert rig.listener.seen == [Milestone.KERNEL_PROPER]
    assert rig.sites.kind(0x200000 + len(FILLER)) is TrapKind.STFLE
    rig.traps.handle_load(cast(QemuCpu, cpu), AT + 4)  # came late: it has begun
    assert rig.listener.seen == [Milestone.KERNEL_PROPER]


def test_an_lpswe_that_the_plugin_saw_without_translation_is_nothing(rig: Rig) -> None:
    rig.traps.handle_load(cast(QemuCpu, loaded(rig, Psw(MASK_64BIT, 0x5678))), AT + 4)
    assert rig.listener.seen == []
    assert rig.sites.stage is Stage.DECOMPRESSOR


@pytest.mark.parametrize("operand", [OPERAND, 1 << 60])
def test_a_kernel_that_went_on_is_not_continued(rig: Rig, operand: int) -> None:
    cpu = loaded(rig, Psw(MASK_64BIT | DAT, 0x200006))
    cpu.general[15] = operand
    with pytest.raises(EngineError, match="CPU 1 did not stop where the kernel begins"):
        rig.traps.handle_load(cast(QemuCpu, cpu), AT + 4)
    assert rig.listener.seen == []


@pytest.mark.parametrize("mask", [WAIT | MASK_64BIT, WAIT | IO | EXTERNAL | MASK_64BIT])
def test_a_wait_is_left_to_the_cpu(rig: Rig, mask: int) -> None:
    psw_at_operand(rig.boot(), mask, 0x5678)
    native, cpu = rig.at(AT + 4)
    assert not native
    assert cpu.psw.address == AT + 4
    assert rig.sites.kind(AT + 4) is None


def test_a_psw_that_is_not_valid_is_the_cpu_s_to_refuse(rig: Rig) -> None:
    psw_at_operand(rig.boot(), MASK_64BIT | 1 << 63, 0x5678)
    assert rig.at(AT + 4)[0]
    rig.boot()
    for cpu_operand in (1 << 60,):
        cpu = FakeCpu(rig.memory, AT + 4)
        cpu.general[15] = cpu_operand
        assert rig.traps.handle(cast(QemuCpu, cpu))


def test_a_kernel_looks_for_facilities_once(rig: Rig) -> None:
    rig.boot().memory.write(0x200000, FILLER + STFLE + UVC + FILLER)
    rig.sites.kernel_proper(REAL_SPACE, 0x200000)
    assert not rig.sites.boot_breakpoints_remain()
    rig.at(0x200000 + len(FILLER) + 4)
    assert TrapKind.STFLE not in {rig.sites.kind(address) for address in rig.sites}


def running_kernel(rig: Rig) -> None:
    rig.boot().sites.kernel_proper(REAL_SPACE, 0x200000)
    rig.sites.exception_handler = HANDLER
    rig.sites.drop_kind(TrapKind.DIAG_308)  # as where the handler is found


def at_handler(rig: Rig, code: bytes) -> tuple[bool, FakeCpu]:
    running_kernel(rig)
    rig.memory.write(0x50000, code)
    saved = [0, MASK_64BIT | DAT, 0x50004, *range(16)]
    rig.memory.write(0x70000, b"".join(word.to_bytes(8, "big") for word in saved))
    cpu = FakeCpu(rig.memory, HANDLER, MASK_64BIT | DAT)
    cpu.general[2], cpu.general[14] = 0x70000, 0x60000
    return rig.traps.handle(cast(QemuCpu, cpu)), cpu


def test_a_call_that_nobody_waited_for_is_completed_and_learnt(rig: Rig) -> None:
    native, cpu = at_handler(rig, UVC)
    assert not native
    assert cpu.psw.address == 0x60000
    assert rig.sites.kind(0x50000) is TrapKind.UVC
    assert (rig.traps.calls, rig.traps.exceptions) == (1, 1)
    assert rig.sites.boot_breakpoints_remain()
    rig.sites.drop_boot_breakpoints()
    assert set(rig.sites) == {TEXT, HANDLER}


def test_other_operation_exceptions_reach_the_kernel(rig: Rig) -> None:
    native, cpu = at_handler(rig, bytes(4))
    assert native
    assert cpu.psw.address == HANDLER
    assert rig.listener.seen == []
    cpu.general[2] = 1 << 50  # no registers can be read there
    assert rig.traps.handle(cast(QemuCpu, cpu))


def test_a_new_kernel_ends_what_the_old_one_shared(rig: Rig) -> None:
    running_kernel(rig)
    assert not rig.at(TEXT)[0]
    assert rig.listener.seen == [("restarted", 1), Milestone.KERNEL_ENTRY]
    rig.boot().sites.protected()
    assert not rig.at(TEXT)[0]
    assert rig.listener.seen == [Milestone.KERNEL_ENTRY]


def test_a_new_kernel_that_the_plugin_saw_ends_what_the_old_one_shared(rig: Rig) -> None:
    rig.sites.calls = False
    rig.boot().sites.kernel_proper(REAL_SPACE, 0x200000)
    assert TEXT not in set(rig.sites)
    program = FakeCpu(rig.memory, TEXT + 4, MASK_64BIT | DAT)
    rig.traps.handle_entry(cast(QemuCpu, program))
    assert rig.listener.seen == []
    rig.traps.handle_entry(cast(QemuCpu, FakeCpu(rig.memory, TEXT + 4)))
    assert rig.listener.seen == [("restarted", 1), Milestone.KERNEL_ENTRY]
    assert rig.sites.stage is Stage.DECOMPRESSOR
    assert rig.sites.kind(AT + 8) is TrapKind.DIAG_308
    rig.traps.handle_entry(cast(QemuCpu, FakeCpu(rig.memory, TEXT + 4)))  # said once
    assert len(rig.listener.seen) == 2


INTERRUPTED, HANDLER_MASK = 0x7700, MASK_64BIT | 1 << 32


def after_call(rig: Rig, *, at: int = INTERRUPTED) -> FakeCpu:
    """A CPU at ``at``, whose UVC at AT was just the cause of an operation exception; its handler is INTERRUPTED."""
    for place, word in ((0x150, MASK_64BIT), (0x158, AT + 4), (0x1D0, HANDLER_MASK), (0x1D8, INTERRUPTED)):
        rig.memory.write(place, word.to_bytes(8, "big"))
    cpu = FakeCpu(rig.memory, at, HANDLER_MASK)
    rig.traps.handle_call(cast(QemuCpu, cpu))
    return cpu


def test_a_call_that_the_plugin_saw_is_completed_instead_of_its_exception(rig: Rig) -> None:
    cpu = after_call(rig.boot())
    assert cpu.psw == Psw(MASK_64BIT, AT + 4)
    assert rig.listener.seen == [TrapKind.UVC]
    assert rig.traps.calls == 1


def test_a_call_that_is_left_to_the_cpu_stays_an_exception(rig: Rig) -> None:
    rig.listener.answer = Action.EXECUTE
    assert after_call(rig.boot()).psw == Psw(HANDLER_MASK, INTERRUPTED)


def test_a_program_interruption_takes_the_place_of_the_call_s_exception(rig: Rig) -> None:
    rig.listener.answer = ProgramInterruption(ProgramCode.SPECIFICATION)
    assert after_call(rig.boot()).psw == Psw(HANDLER_MASK, INTERRUPTED)
    assert rig.memory.read(0x8D, 3) == b"\x04\x00\x06"


def test_before_protection_there_are_no_ultravisor_calls(rig: Rig) -> None:
    assert after_call(rig).psw == Psw(HANDLER_MASK, INTERRUPTED)
    assert rig.listener.seen == []


def test_a_guest_that_went_on_behind_its_call_is_not_continued(rig: Rig) -> None:
    with pytest.raises(EngineError, match=f"CPU 1 did not stop at its ultravisor call at {AT:#x}"):
        after_call(rig.boot(), at=INTERRUPTED + 6)
    assert rig.listener.seen == []


OTHER_CALL, USER_ENTRY = 0x200000 + len(FILLER), 0x310000


def kernel_with_calls(rig: Rig) -> int:
    """A kernel with two UVCs in its image, the second about to end in the handler; returns where that one is."""
    rig.boot().memory.write(0x200000, FILLER + UVC + FILLER + UVC + FILLER)
    rig.sites.kernel_proper(REAL_SPACE, 0x200000)
    rig.sites.exception_handler = HANDLER
    for site in list(rig.sites):
        if site not in (TEXT, HANDLER):
            rig.sites.drop(site)  # as where the handler is found
    rig.memory.write(0x1C8, USER_ENTRY.to_bytes(8, "big"))
    return OTHER_CALL + 4 + len(FILLER)


def exception_at(rig: Rig, address: int) -> None:
    saved = [0, MASK_64BIT | DAT, address + 4, *range(16)]
    rig.memory.write(0x70000, b"".join(word.to_bytes(8, "big") for word in saved))
    cpu = FakeCpu(rig.memory, HANDLER, MASK_64BIT | DAT)
    cpu.general[2], cpu.general[14] = 0x70000, 0x60000
    assert not rig.traps.handle(cast(QemuCpu, cpu))


def test_before_the_first_program_a_kernel_s_own_calls_are_watched(rig: Rig) -> None:
    call = kernel_with_calls(rig)
    exception_at(rig, call)
    assert set(rig.sites) == {TEXT, AT, call, OTHER_CALL, USER_ENTRY}
    assert not rig.sites.boot_breakpoints_remain()
    assert not rig.at(USER_ENTRY, MASK_64BIT | DAT)[0]
    assert set(rig.sites) == {TEXT, HANDLER}


def test_once_programs_run_the_handler_is_watched_all_the_time(rig: Rig) -> None:
    call = kernel_with_calls(rig)
    rig.memory.write(0x148, (0x1000).to_bytes(8, "big"))  # a supervisor call came from there
    exception_at(rig, call)
    assert set(rig.sites) == {TEXT, call, HANDLER}


def test_a_call_outside_the_kernel_s_image_keeps_the_handler_watched(rig: Rig) -> None:
    kernel_with_calls(rig)
    rig.memory.write(0x500000, UVC)
    exception_at(rig, 0x500000)
    assert set(rig.sites) == {TEXT, 0x500000, HANDLER}


def test_a_new_kernel_before_any_program_ends_what_the_old_one_shared(rig: Rig) -> None:
    exception_at(rig, kernel_with_calls(rig))
    rig.listener.seen.clear()
    assert not rig.at(TEXT)[0]
    assert rig.listener.seen == [("restarted", 1), Milestone.KERNEL_ENTRY]
    assert rig.sites.user_entry is None
