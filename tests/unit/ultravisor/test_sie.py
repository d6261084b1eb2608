"""A protected guest is entered as SIE enters it: with its own address space, prefix pages and CPU timer, or not."""

from __future__ import annotations

import pytest

from zseal.arch.sie import CPU_TIMER
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, CpuState
from zseal.formats.uvcb import FrameUvcb
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor import PrefixIntercept, Validity, ValidityIntercept, sie

SECOND = 4096 * 1_000_000
"""Of the CPU timer."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time that passes, in units of the CPU timer."""
    now = [0]
    monkeypatch.setattr(sie, "timer_clock", lambda: now[0])
    return now


@pytest.fixture
def loaded(machine: ModelMachine) -> ModelGuest:
    """A guest whose first CPU was never entered."""
    return ModelGuest(machine)


def enter(guest: ModelGuest, *, asce: int | None = None) -> None:
    cpu, asce = guest.configuration.cpus[0].handle, guest.configuration.asce if asce is None else asce
    guest.machine.ultravisor.firmware.enter(guest.handle, cpu, asce=asce)


def leave(guest: ModelGuest) -> None:
    guest.machine.ultravisor.firmware.leave(guest.configuration.cpus[0].handle)


def refused(guest: ModelGuest, *, asce: int | None = None) -> Validity:
    state = guest.machine.ultravisor.firmware.configuration(guest.handle).cpus[0]
    before = (state.state, state.running, state.registers.psw, state.timer_at_exit)
    with pytest.raises(ValidityIntercept) as caught:
        enter(guest, asce=asce)
    assert (state.state, state.running, state.registers.psw, state.timer_at_exit) == before
    return caught.value.reason


def set_timer(guest: ModelGuest, value: int) -> None:
    address = (guest.configuration.cpus[0].sie_frame << PAGE_SHIFT) + CPU_TIMER
    guest.host.uv.write(address, value.to_bytes(8, "big", signed=True))


def missing(guest: ModelGuest) -> tuple[int, ...]:
    with pytest.raises(PrefixIntercept) as caught:
        enter(guest)
    return caught.value.addresses


def test_the_prefix_pages_have_to_be_resident(loaded: ModelGuest) -> None:
    cpu = loaded.machine.ultravisor.firmware.configuration(loaded.handle).cpus[0]
    assert missing(loaded) == (0, PAGE_SIZE)
    assert (cpu.state, cpu.running) == (CpuState.OPERATING_LOAD, False), "nothing happened"
    loaded.pager.secure(1)
    assert missing(loaded) == (0,)
    loaded.pager.secure(0)
    enter(loaded)
    leave(loaded)
    loaded.pager.page_out(1)
    assert missing(loaded) == (PAGE_SIZE,)
    loaded.start()
    leave(loaded)
    for command in (Command.CONV_FROM_SEC_STOR, Command.DESTR_SEC_STOR):
        frame = loaded.configuration.space.resolve(0)
        loaded.host.call(FrameUvcb.call(command, paddr=frame << PAGE_SHIFT))
        assert missing(loaded) == (0,)


def test_prefix_pages_follow_the_prefix_register(loaded: ModelGuest) -> None:
    loaded.start()
    leave(loaded)
    loaded.machine.ultravisor.firmware.configuration(loaded.handle).cpus[0].registers.prefix = 0x42000
    assert missing(loaded) == (0x42000, 0x43000)
    loaded.machine.ultravisor.firmware.configuration(loaded.handle).cpus[0].registers.prefix = MIB
    assert missing(loaded) == (MIB, MIB + PAGE_SIZE), "outside the guest's storage nothing is resident"


def test_a_shared_lowcore_is_resident(guest: ModelGuest) -> None:
    leave(guest)
    guest.share(0, 2 * PAGE_SIZE)
    enter(guest)


def test_another_address_space_is_not_entered(machine: ModelMachine, loaded: ModelGuest) -> None:
    other = ModelGuest(machine)
    loaded.start()
    leave(loaded)
    for asce in (other.configuration.asce, 0, loaded.configuration.asce ^ 1, loaded.configuration.asce | 1 << 63):
        assert refused(loaded, asce=asce) is Validity.ASCE
    enter(loaded)


@pytest.mark.parametrize(
    ("change", "elapsed", "valid"),
    [
        (0, 0, True), (-SECOND, SECOND, True), (-SECOND // 2, SECOND, True), (0, SECOND, True),
        (1, SECOND, False), (-SECOND - 1, SECOND, False), (SECOND, 0, False), (-1, 0, False),
    ],
)  # fmt: skip
def test_the_cpu_timer_cannot_be_moved(
    loaded: ModelGuest, clock: list[int], change: int, elapsed: int, valid: bool
) -> None:
    set_timer(loaded, 7 * SECOND)  # free before the first entry
    loaded.start()
    leave(loaded)
    clock[0] += elapsed
    set_timer(loaded, 7 * SECOND + change)
    if valid:
        enter(loaded)
    else:
        assert refused(loaded) is Validity.TIMER
        set_timer(loaded, 7 * SECOND)
        enter(loaded)


def test_the_cpu_timer_passes_zero(loaded: ModelGuest, clock: list[int]) -> None:
    set_timer(loaded, SECOND // 2)
    loaded.start()
    leave(loaded)
    clock[0] += SECOND
    set_timer(loaded, -SECOND // 2)
    enter(loaded)


def test_a_reset_sets_the_cpu_timer_free(loaded: ModelGuest, clock: list[int]) -> None:
    set_timer(loaded, SECOND)
    loaded.start()
    leave(loaded)
    loaded.machine.ultravisor.firmware.request_reset(loaded.handle)
    loaded.host.reset(loaded.configuration)
    set_timer(loaded, 3 * SECOND)
    enter(loaded)


def test_a_state_description_out_of_reach_is_refused(machine: ModelMachine, loaded: ModelGuest) -> None:
    """The host gives the frame of a state description to a guest: the ultravisor does not read it for the host."""
    loaded.start()
    leave(loaded)
    frame = loaded.configuration.cpus[0].sie_frame
    other = ModelGuest(machine)
    other.configuration.space.map(0x80, frame)
    machine.host.uv.import_run(other.handle, 0x80000, PAGE_SIZE)
    assert refused(loaded) is Validity.STATE_DESCRIPTION
    machine.host.uv.export_run(frame << PAGE_SHIFT, PAGE_SIZE)
    set_timer(loaded, 0)
    enter(loaded)
