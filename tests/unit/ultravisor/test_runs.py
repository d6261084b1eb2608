"""Pages in bulk: runs of them, a whole guest adopted, what counts as a large frame."""

from __future__ import annotations

import pytest

from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, LargeFrame, PageCall
from zseal.formats.uvcb import GuestPageUvcb
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor import MappedSpace, UvcRefusal

PATTERN = b"a pattern no cipher makes " * 8


class _RegionSpace(MappedSpace):
    """A host that maps its guest with one 2 GiB entry."""

    def mapping_size(self, page: int) -> int:
        return 2 << 30 if self.resolve(page) >= 0 else 0


def test_pages_mapped_by_a_region_entry_are_no_large_frame(
    machine: ModelMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zseal.model.host.MappedSpace", _RegionSpace)
    guest = ModelGuest(machine, memory=4 * MIB)
    guest.configuration.space.map_run(256, machine.host.frames.take(256, align=256), 256)
    block = GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=guest.handle, gaddr=MIB)
    assert machine.host.issue(block)[1].rc == LargeFrame.REGION.rc
    small = ModelGuest(machine, memory=4 * MIB)
    small.configuration.space.map_run(256, machine.host.frames.take(256), 256)
    monkeypatch.setattr(small.configuration.space, "mapping_size", lambda _: MIB)
    block = GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=small.handle, gaddr=MIB)
    assert machine.host.issue(block)[1].rc == LargeFrame.NOT_CONSECUTIVE.rc


def test_adopting_a_whole_guest(machine: ModelMachine) -> None:
    guest = ModelGuest(machine, memory=4 * MIB)
    guest.start()
    space, uv = guest.configuration.space, machine.ultravisor
    first = machine.host.frames.take(1024)
    for page in range(1024):
        if space.resolve(page) < 0:
            space.map(page, first + page)
    uv.host.write(first << PAGE_SHIFT, PATTERN)
    before = uv.host.page_counts(guest.handle)
    assert uv.firmware.adopt_all(guest.handle) == before["unused"]
    after = uv.host.page_counts(guest.handle)
    assert (after["unused"], after["private"]) == (0, 1024)
    assert uv.firmware.guest_read(guest.handle, 0, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert uv.firmware.adopt_all(guest.handle) == 0


def test_adopting_never_puts_two_pages_into_one_frame(machine: ModelMachine, guest: ModelGuest) -> None:
    frame = machine.host.frames.take()
    for page in (0x60, 0x61, 0x62):
        guest.configuration.space.map(page, frame)
    assert machine.ultravisor.firmware.adopt_all(guest.handle) == 1


def test_adopting_a_guest_in_one_piece_leaves_frames_of_others_alone(machine: ModelMachine) -> None:
    guest, other = ModelGuest(machine, memory=4 * MIB), ModelGuest(machine, memory=4 * MIB)
    guest.start()
    other.start()
    uv, first = machine.ultravisor, machine.host.frames.take(1024)
    other.configuration.space.map(800, first + 700)
    uv.host.import_run(other.handle, 800 * PAGE_SIZE, PAGE_SIZE)
    uv.firmware.guest_write(other.handle, 800 * PAGE_SIZE, PATTERN)
    guest.configuration.space.map_run(0, first, 1024)
    unused = uv.host.page_counts(guest.handle)["unused"]
    assert uv.firmware.adopt_all(guest.handle) == unused - 1
    assert uv.host.page_counts(guest.handle)["unused"] == 1
    assert uv.firmware.guest_read(other.handle, 800 * PAGE_SIZE, len(PATTERN)) == PATTERN


def test_runs_stop_at_the_first_failing_page(machine: ModelMachine) -> None:
    guest = ModelGuest(machine, memory=4 * MIB)
    guest.start()
    uv, space = machine.ultravisor, guest.configuration.space
    first = machine.host.frames.take(600)
    space.map_run(256, first, 600)
    uv.host.import_run(guest.handle, MIB, 600 * PAGE_SIZE)
    for page in range(256, 856):
        uv.firmware.guest_write(guest.handle, page * PAGE_SIZE, b"page %d" % page)
    uv.host.export_run(first * PAGE_SIZE, 600 * PAGE_SIZE)
    broken = first + 555
    uv.host.write(broken * PAGE_SIZE, b"broken")
    before = uv.snapshot()
    with pytest.raises(UvcRefusal) as caught:
        uv.host.import_run(guest.handle, MIB, 600 * PAGE_SIZE)
    assert (caught.value.answer, caught.value.done) == (PageCall.INTEGRITY, 555)
    after = uv.snapshot()
    name = Command.CONV_TO_SEC_STOR.name
    assert after.calls[name] - before.calls[name] == 556, "a run counts as the calls that it stands for"
    assert after.refused[name] - before.refused.get(name, 0) == 1
    counts = uv.host.page_counts(guest.handle)
    assert counts["exported"] == 45
    for page in range(256, 256 + 555):
        assert uv.firmware.guest_read(guest.handle, page * PAGE_SIZE, 8) == b"page %d" % page
    with pytest.raises(UvcRefusal) as caught:
        uv.host.destroy_run((guest.configuration.base_frame - 1) * PAGE_SIZE, 2 * PAGE_SIZE)
    assert (caught.value.answer, caught.value.done) == (PageCall.DONATED, 1)
    for length in (5, PAGE_SIZE + 1):
        with pytest.raises(UvcRefusal):
            uv.host.export_run(first * PAGE_SIZE, length)
