"""Sharing and unsharing many pages at once does what as many calls of the guest do, and leaves the rest to them."""

from __future__ import annotations

import numpy as np
import pytest

from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import FrameUvcb
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor.events import EventLog, Level
from zseal.ultravisor.faults import BUSY, Fault
from zseal.ultravisor.refusal import UvcRefusal

SHARE, UNSHARE = Command.SET_SHARED_ACCESS, Command.REMOVE_SHARED_ACCESS
PRIVATE_PAGES, SHARED_PAGES, PINNED_PAGE, SHARED_OUT_PAGE, EXPORTED_PAGE = range(64, 96), range(70, 80), 71, 75, 90


def busy_guest(machine: ModelMachine) -> ModelGuest:
    """A guest with pages in all states that it can have while it runs."""
    guest = ModelGuest(machine)
    guest.start()
    for page in PRIVATE_PAGES:
        guest.write(page << PAGE_SHIFT, b"%d" % page)
    guest.share(SHARED_PAGES[0] << PAGE_SHIFT, len(SHARED_PAGES) * PAGE_SIZE)
    for page, command in (
        (PINNED_PAGE, Command.PIN_PAGE_SHARED),
        (SHARED_OUT_PAGE, Command.CONV_FROM_SEC_STOR),
        (EXPORTED_PAGE, Command.CONV_FROM_SEC_STOR),
    ):
        frame = guest.configuration.space.resolve(page)
        assert guest.host.issue(FrameUvcb.call(command, paddr=frame << PAGE_SHIFT))[0] == 0
    return guest


@pytest.mark.parametrize("command", [SHARE, UNSHARE])
def test_many_calls_at_once_do_what_single_calls_do(machine_keys: MachineKeys, command: Command) -> None:
    machines = [ModelMachine(keys=machine_keys) for _ in range(2)]
    single, together = (busy_guest(machine) for machine in machines)
    calls = machines[1].ultravisor.firmware.page_calls(together.handle, command)
    assert calls is not None
    ready = np.flatnonzero(calls.ready)
    listed = set(ready.tolist()) & set(PRIVATE_PAGES)
    if command is SHARE:
        assert listed == set(PRIVATE_PAGES) - set(SHARED_PAGES) - {EXPORTED_PAGE}
    else:
        assert listed == set(SHARED_PAGES) - {PINNED_PAGE, SHARED_OUT_PAGE}
    for page in ready.tolist():
        (single.share if command is SHARE else single.unshare)(page << PAGE_SHIFT)
    calls.carry_out(ready)
    pairs = list(zip(machines, (single, together), strict=True))
    counts = [machine.ultravisor.host.page_counts(guest.handle) for machine, guest in pairs]
    assert counts[0] == counts[1]
    before, after = (machine.ultravisor.snapshot() for machine in machines)
    assert (before.frames, before.calls) == (after.frames, after.calls)
    for page in PRIVATE_PAGES:
        address = page << PAGE_SHIFT
        shared = [machine.ultravisor.host.is_shared(guest.handle, address, PAGE_SIZE) for machine, guest in pairs]
        assert shared[0] == shared[1]
        assert together.read(address, 2) == b"%d" % page
    for machine in machines:
        machine.close()


@pytest.mark.parametrize(("command", "leave"), [(SHARE, 64), (UNSHARE, 72)])
def test_pages_that_left_in_between_are_never_shown(guest: ModelGuest, command: Command, leave: int) -> None:
    guest.write(64 << PAGE_SHIFT, b"private")
    guest.share(72 << PAGE_SHIFT)
    ultravisor = guest.machine.ultravisor
    calls = ultravisor.firmware.page_calls(guest.handle, command)
    assert calls is not None
    assert calls.ready[leave]
    frame = guest.configuration.space.resolve(leave)
    assert guest.host.issue(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame << PAGE_SHIFT))[0] == 0
    before = ultravisor.host.page_counts(guest.handle)
    with pytest.raises(UvcRefusal, match="left the guest"):
        calls.carry_out(np.flatnonzero(calls.ready))
    assert ultravisor.host.page_counts(guest.handle) == before


def test_other_calls_come_one_by_one(guest: ModelGuest) -> None:
    ultravisor = guest.machine.ultravisor
    assert ultravisor.firmware.page_calls(guest.handle, Command.QUI) is None
    assert ultravisor.firmware.page_calls(guest.handle, 0x7777) is None
    assert ultravisor.firmware.page_calls(guest.handle, SHARE) is not None


def test_calls_with_a_planned_fault_come_one_by_one(guest: ModelGuest) -> None:
    ultravisor = guest.machine.ultravisor
    ultravisor.faults.add(Fault(SHARE, BUSY))
    assert ultravisor.firmware.page_calls(guest.handle, SHARE) is None
    assert ultravisor.firmware.page_calls(guest.handle, UNSHARE) is not None


def test_calls_that_are_logged_come_one_by_one(machine_keys: MachineKeys) -> None:
    machine = ModelMachine(keys=machine_keys, log=EventLog(level=Level.DEBUG))
    guest = ModelGuest(machine)
    guest.start()
    assert machine.ultravisor.firmware.page_calls(guest.handle, SHARE) is None
    machine.close()
