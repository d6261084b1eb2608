"""Observable promises 51 to 72: sharing, export and import, what host and other guests see."""

from __future__ import annotations

import collections
import math
import secrets

import numpy as np
import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.uv_codes import Command, LargeFrame, PageCall, ResponseCode, Share
from zseal.formats.uvcb import FrameUvcb, GuestPageUvcb, ShareUvcb, UvcbHeader
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.model.pager import GuestKilledError
from zseal.ultravisor import Feature, Settings, UvcRefusal
from zseal.ultravisor.pagecrypto import COUNTER_LIMIT, PageSealer, components
from zseal.ultravisor.tables import PageState

PATTERN = b"a pattern no cipher makes " * 8
PAGE = 0x30000


def _address(guest: ModelGuest, gaddr: int = PAGE) -> int:
    return guest.configuration.space.resolve(gaddr >> PAGE_SHIFT) << PAGE_SHIFT


def _frame_call(guest: ModelGuest, command: Command, gaddr: int = PAGE) -> UvcbHeader:
    return guest.host.issue(FrameUvcb.call(command, paddr=_address(guest, gaddr)))[1]


def _import(guest: ModelGuest, gaddr: int = PAGE) -> UvcbHeader:
    return guest.host.issue(GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=gaddr))[1]


def _export(guest: ModelGuest, gaddr: int = PAGE) -> bytes:
    assert _frame_call(guest, Command.CONV_FROM_SEC_STOR, gaddr).rc == 1
    return guest.machine.ultravisor.host.read(_address(guest, gaddr), PAGE_SIZE)


def _put(guest: ModelGuest, data: bytes, gaddr: int = PAGE) -> None:
    guest.machine.ultravisor.host.write(_address(guest, gaddr), data)


def _answered(header: UvcbHeader, answer: ResponseCode) -> bool:
    return (header.rc, header.rrc) == (answer.rc, answer.rrc or 0)


def _code(action: object) -> ProgramCode:
    with pytest.raises(ProgramInterruption) as caught:
        action()  # type: ignore[operator]
    return caught.value.code


def test_promise_51_share_shows_and_unshare_hides(machine: ModelMachine, guest: ModelGuest) -> None:
    uv = machine.ultravisor
    guest.write(PAGE, PATTERN)
    guest.share(PAGE)
    assert uv.host.read(_address(guest), len(PATTERN)) == PATTERN
    uv.host.write(_address(guest), b"from the host")
    assert guest.read(PAGE, 13) == b"from the host"
    guest.unshare(PAGE)
    assert _code(lambda: uv.host.read(_address(guest), 1)) is ProgramCode.SECURE_STORAGE_ACCESS
    assert guest.read(PAGE, 13) == b"from the host"


def test_promise_52_share_keeps_contents_and_is_idempotent(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    for _ in range(2):
        guest.share(PAGE)
        assert guest.read(PAGE, len(PATTERN)) == PATTERN
    for _ in range(2):
        guest.unshare(PAGE)
        assert guest.read(PAGE, len(PATTERN)) == PATTERN


def test_promise_53_share_checks(guest: ModelGuest) -> None:
    for command in (Command.SET_SHARED_ACCESS, Command.REMOVE_SHARED_ACCESS):
        assert guest.issue(UvcbHeader(length=0x28, command=command))[1].rc == 5
        for address in (MIB, 1 << 60, (1 << 64) - PAGE_SIZE, PAGE + 8):
            cc, answer = guest.issue(ShareUvcb.call(command, paddr=address))
            assert (cc, answer.rc) == (1, Share.ADDRESS.rc)


def test_promise_54_guest_can_share_its_lowcore(guest: ModelGuest) -> None:
    guest.write(0, PATTERN)
    guest.share(0)
    guest.write(0x100, b"still here")
    assert guest.read(0, 16) == PATTERN[:16]
    assert guest.machine.ultravisor.host.read(_address(guest, 0) + 0x100, 10) == b"still here"


def test_promise_55_only_requested_pages_become_visible(machine: ModelMachine, guest: ModelGuest) -> None:
    for page in range(64, 128):
        guest.write(page * PAGE_SIZE, PATTERN)
    wanted = set(range(70, 90))
    for page in wanted:
        guest.share(page * PAGE_SIZE)
    visible = set()
    for page in range(256):
        frame = guest.configuration.space.resolve(page)
        if frame < 0:
            continue
        try:
            machine.ultravisor.host.check(frame << PAGE_SHIFT, PAGE_SIZE)
        except ProgramInterruption as refused:
            assert refused.code is ProgramCode.SECURE_STORAGE_ACCESS
            continue
        visible.add(page)
    assert visible == wanted
    counts = machine.ultravisor.host.page_counts(guest.handle)
    assert counts["shared"] == len(wanted)
    assert sum(counts.values()) == 256
    assert machine.ultravisor.host.is_shared(guest.handle, 70 * PAGE_SIZE + 5, 20 * PAGE_SIZE - 5)
    assert machine.ultravisor.host.first_unshared(guest.handle, 70 * PAGE_SIZE, 21 * PAGE_SIZE) == 90 * PAGE_SIZE
    assert machine.ultravisor.host.first_unshared(guest.handle, 69 * PAGE_SIZE + 9, 8) == 69 * PAGE_SIZE + 9
    assert machine.ultravisor.host.first_unshared(guest.handle, MIB, 8) == MIB


@pytest.mark.parametrize("live", [True, False])
def test_promise_56_host_view_holds_shared_data_only(machine: ModelMachine, guest: ModelGuest, live: bool) -> None:
    guest.write(PAGE, b"passphrase typed inside")
    guest.write(PAGE + PAGE_SIZE, b"written to the disk")
    guest.share(PAGE + PAGE_SIZE)
    frames = guest.configuration.space.resolve_run(0, 256)
    first, last = int(frames[frames >= 0].min()), int(frames.max())
    area = (first * PAGE_SIZE, (last + 1 - first) * PAGE_SIZE)
    view = machine.ultravisor.host.view(*area, live=live)
    assert len(view) == area[1]
    assert b"passphrase" not in view
    assert b"written to the disk" in view
    if live:
        assert machine.ultravisor.host.page_counts(guest.handle)["exported"] == 0
        assert machine.ultravisor.host.view(*area, live=True) != view
    assert guest.read(PAGE, 10) == b"passphrase"
    unaligned = machine.ultravisor.host.view(_address(guest, PAGE + PAGE_SIZE) + 3, 10, live=live)
    assert unaligned == b"tten to th"


def test_promise_57_pinned_page_cannot_be_unshared(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    guest.share(PAGE)
    assert _frame_call(guest, Command.PIN_PAGE_SHARED).rc == 1
    assert guest.machine.ultravisor.host.page_counts(guest.handle)["pinned"] == 1
    cc, _ = guest.issue(ShareUvcb.call(Command.REMOVE_SHARED_ACCESS, paddr=PAGE))
    assert cc == 2
    assert guest.machine.ultravisor.host.read(_address(guest), 9) == PATTERN[:9]
    assert _frame_call(guest, Command.CONV_FROM_SEC_STOR).rc == 1
    assert guest.read(PAGE, 9) == PATTERN[:9]
    assert _answered(_frame_call(guest, Command.DESTR_SEC_STOR), PageCall.PINNED)
    unpin = GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=guest.handle, gaddr=PAGE)
    assert guest.host.issue(unpin)[1].rc == 1
    guest.unshare(PAGE)
    assert guest.host.issue(unpin)[1].rc == PageCall.NOT_SHARED.rc


def test_promise_58_pin_of_a_private_page_fails(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    assert _frame_call(guest, Command.PIN_PAGE_SHARED).rc == PageCall.NOT_SHARED.rc
    assert PATTERN not in _export(guest)
    assert _frame_call(guest, Command.PIN_PAGE_SHARED).rc == PageCall.NOT_SHARED.rc
    donated = FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=guest.configuration.base_frame << PAGE_SHIFT)
    assert _answered(guest.host.issue(donated)[1], PageCall.DONATED)


def _entropy(data: bytes) -> float:
    counts = collections.Counter(data)
    return -sum(n / len(data) * math.log2(n / len(data)) for n in counts.values())


def test_promise_59_export_gives_ciphertext(guest: ModelGuest) -> None:
    plain = b"\0" * 2048 + PATTERN.ljust(2048, b"x")
    guest.write(PAGE, plain)
    seen = set()
    for _ in range(50):
        data = _export(guest)
        assert not any(plain[at : at + 64] == data[at : at + 64] for at in range(0, PAGE_SIZE, 64))
        assert _entropy(data) > 7.9
        seen.add(data)
        assert guest.read(PAGE, PAGE_SIZE) == plain
    assert len(seen) == 50


@pytest.mark.parametrize("data", [bytes(PAGE_SIZE), b"\xff" * PAGE_SIZE, secrets.token_bytes(PAGE_SIZE)])
def test_promise_60_round_trip_is_exact(guest: ModelGuest, data: bytes) -> None:
    guest.write(PAGE, data)
    _export(guest)
    assert _import(guest).rc == 1
    assert guest.read(PAGE, PAGE_SIZE) == data
    assert _import(guest).rc == 1  # already there


def test_promise_61_export_of_a_non_secure_page_is_a_no_op(machine: ModelMachine, guest: ModelGuest) -> None:
    frame = machine.host.frames.take() << PAGE_SHIFT
    machine.ultravisor.host.write(frame, PATTERN)
    assert machine.host.issue(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame))[0] == 0
    assert machine.ultravisor.host.read(frame, len(PATTERN)) == PATTERN
    for address in (frame + 8, machine.storage.size, 1 << 63):
        answer = machine.host.issue(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=address))[1]
        assert answer.rc == PageCall.OUTSIDE.rc
    donated = guest.configuration.base_frame << PAGE_SHIFT
    for command in (Command.CONV_FROM_SEC_STOR, Command.DESTR_SEC_STOR):
        assert _answered(machine.host.issue(FrameUvcb.call(command, paddr=donated))[1], PageCall.DONATED)


def test_promise_62_tampered_page_is_refused(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    guest.write(PAGE + PAGE_SIZE, b"elsewhere")
    data = _export(guest)
    for at in [*range(0, PAGE_SIZE, 97), PAGE_SIZE - 1]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        _put(guest, bytes(flipped))
        assert _answered(_import(guest), PageCall.INTEGRITY)
        assert guest.machine.ultravisor.host.read(_address(guest), PAGE_SIZE) == flipped
    assert guest.read(PAGE + PAGE_SIZE, 9) == b"elsewhere"
    with pytest.raises(GuestKilledError, match="not what was last exported"):
        guest.read(PAGE, 1)
    _put(guest, data)
    assert guest.read(PAGE, len(PATTERN)) == PATTERN


def test_promise_63_swapped_pages_are_refused(guest: ModelGuest) -> None:
    other = PAGE + PAGE_SIZE
    guest.write(PAGE, PATTERN)
    guest.write(other, PATTERN)
    first, second = _export(guest), _export(guest, other)
    _put(guest, second)
    _put(guest, first, other)
    assert _answered(_import(guest), PageCall.INTEGRITY)
    assert _answered(_import(guest, other), PageCall.INTEGRITY)


def test_promise_64_replayed_page_is_refused(guest: ModelGuest) -> None:
    guest.write(PAGE, b"balance 100")
    old = _export(guest)
    guest.write(PAGE, b"balance 000")
    new = _export(guest)
    _put(guest, old)
    assert _answered(_import(guest), PageCall.INTEGRITY)
    _put(guest, new)
    assert guest.read(PAGE, 11) == b"balance 000"


def test_promise_65_page_of_another_guest_is_refused(machine: ModelMachine, guest: ModelGuest) -> None:
    other = ModelGuest(machine)
    other.start()
    guest.write(PAGE, PATTERN)
    other.write(PAGE, PATTERN)
    data = _export(guest)
    _export(other)
    _put(other, data)
    assert _answered(_import(other), PageCall.INTEGRITY)
    # given as a fresh page it is cleared
    page = 0x90000
    machine.host.map_page(other.configuration, page >> PAGE_SHIFT)
    _put(other, data, page)
    assert _import(other, page).rc == 1
    assert other.read(page, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_promise_66_first_touch_gives_zeros(machine: ModelMachine, guest: ModelGuest) -> None:
    page = 0x90000
    frame = machine.host.map_page(guest.configuration, page >> PAGE_SHIFT)
    machine.ultravisor.host.write(frame << PAGE_SHIFT, PATTERN)
    assert guest.read(page, PAGE_SIZE) == bytes(PAGE_SIZE)
    shared = page + PAGE_SIZE
    frame = machine.host.map_page(guest.configuration, shared >> PAGE_SHIFT)
    machine.ultravisor.host.write(frame << PAGE_SHIFT, PATTERN)
    guest.share(shared)
    assert machine.ultravisor.host.read(frame << PAGE_SHIFT, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_promise_67_frame_ownership(machine: ModelMachine, guest: ModelGuest) -> None:
    other = ModelGuest(machine)
    other.start()
    guest.write(PAGE, PATTERN)
    frame = _address(guest) >> PAGE_SHIFT
    other.configuration.space.map(PAGE >> PAGE_SHIFT, frame)
    assert (
        _code(lambda: machine.ultravisor.firmware.guest_read(other.handle, PAGE, 1))
        is ProgramCode.SECURE_STORAGE_VIOLATION
    )
    assert _answered(_import(other), PageCall.OWNER)
    guest.configuration.space.map(0xA0, frame)
    assert (
        _code(lambda: machine.ultravisor.firmware.guest_read(guest.handle, 0xA0000, 1))
        is ProgramCode.SECURE_STORAGE_VIOLATION
    )
    assert _answered(_import(guest, 0xA0000), PageCall.OWNER)
    guest.share(PAGE)
    assert _answered(_import(guest, 0xA0000), PageCall.OWNER)
    # resident in one frame, mapped by the host to another
    guest.configuration.space.map(PAGE >> PAGE_SHIFT, machine.host.frames.take())
    assert (
        _code(lambda: machine.ultravisor.firmware.guest_read(guest.handle, PAGE, 1))
        is ProgramCode.NON_SECURE_STORAGE_ACCESS
    )
    assert _answered(_import(guest), PageCall.OWNER)
    # two fresh pages in one frame, in a single run
    double = machine.host.frames.take()
    for page in (0xB0, 0xB1):
        guest.configuration.space.map(page, double)
    with pytest.raises(UvcRefusal) as caught:
        machine.ultravisor.host.import_run(guest.handle, 0xB0000, 2 * PAGE_SIZE)
    assert (caught.value.answer, caught.value.done) == (PageCall.OWNER, 1)


def test_promise_68_destroyed_page_is_zero_and_accessible(machine: ModelMachine, guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    address = _address(guest)
    machine.host.destroy(guest.configuration, keep_pages=True)
    for _ in range(2):
        assert machine.host.issue(FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=address))[1].rc == 1
        assert machine.ultravisor.host.read(address, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_a_page_destroyed_while_its_guest_lives_is_lost(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    assert _frame_call(guest, Command.DESTR_SEC_STOR).rc == 1
    assert _answered(_import(guest), PageCall.LOST)
    with pytest.raises(GuestKilledError):
        guest.read(PAGE, 1)
    # a shared page merely loses its content, which the host could have written itself
    guest.write(PAGE + PAGE_SIZE, PATTERN)
    guest.share(PAGE + PAGE_SIZE)
    assert _frame_call(guest, Command.DESTR_SEC_STOR, PAGE + PAGE_SIZE).rc == 1
    assert guest.read(PAGE + PAGE_SIZE, 4) == bytes(4)


def test_promise_69_discarded_page_kills_and_does_not_corrupt(guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    _export(guest)
    _put(guest, bytes(PAGE_SIZE))
    with pytest.raises(GuestKilledError):
        guest.read(PAGE, 1)


def test_promise_70_counters_never_repeat() -> None:
    sealer, total = PageSealer(), 100_000
    seen: set[bytes] = set()
    page, block = np.zeros(1000, np.int64), bytes(1000 * 16)
    for first in range(1, total, 1000):
        counters = np.arange(first, first + 1000, dtype=np.uint64)
        parts = components(page, counters)
        assert len(parts) == len(block)
        seen.update(parts[at : at + 16] for at in range(0, len(parts), 16))
    assert len(seen) == total
    nonce = sealer._nonce.reveal()
    assert all(nonce[at] == 0 for at in range(16) if at not in (0, 1, 2, 8, 9))
    part = components(np.array([0x123456789A]), np.array([0xABCDEF012345], np.uint64))
    assert part.hex() == "000000123456789a0000abcdef012345"


def test_counters_rise_with_every_export_and_peek(machine: ModelMachine, guest: ModelGuest) -> None:
    guest.write(PAGE, PATTERN)
    table = machine.ultravisor.firmware.configuration(guest.handle).guest.pages
    page = PAGE >> PAGE_SHIFT
    for expected in range(1, 20):
        if expected % 3:
            _export(guest)
            assert table.state[page] == PageState.EXPORTED
            guest.read(PAGE, 1)
        else:
            assert PATTERN not in machine.ultravisor.host.view(_address(guest), PAGE_SIZE, live=True)
            assert table.state[page] == PageState.PRIVATE
        assert table.counter[page] == expected
    table.counter[page] = COUNTER_LIMIT
    assert _answered(_frame_call(guest, Command.CONV_FROM_SEC_STOR), PageCall.COUNTER)
    assert guest.read(PAGE, 9) == PATTERN[:9]
    with pytest.raises(UvcRefusal):
        machine.ultravisor.host.view(_address(guest), PAGE_SIZE, live=True)


def test_promise_71_interruption_codes(machine: ModelMachine, guest: ModelGuest) -> None:
    uv = machine.ultravisor
    guest.write(PAGE, PATTERN)
    for address in (_address(guest), guest.configuration.base_frame << PAGE_SHIFT):
        for action in (lambda at=address: uv.host.read(at + 5, 1), lambda at=address: uv.host.write(at + 5, b"x")):
            with pytest.raises(ProgramInterruption) as caught:
                action()
            assert (caught.value.code, caught.value.teid) == (ProgramCode.SECURE_STORAGE_ACCESS, address | 4)
    assert guest.read(PAGE, 9) == PATTERN[:9]
    _export(guest)
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_read(guest.handle, PAGE + 5, 1)
    assert (caught.value.code, caught.value.teid) == (ProgramCode.NON_SECURE_STORAGE_ACCESS, PAGE | 4)
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_read(guest.handle, 0xF0000, 1)
    assert caught.value.code is ProgramCode.PAGE_TRANSLATION
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_write(guest.handle, MIB - 2, b"1234")
    assert caught.value.code is ProgramCode.PAGE_TRANSLATION
    guest.read(MIB - 2, 2)
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_write(guest.handle, MIB - 2, b"1234")
    assert caught.value.code is ProgramCode.ADDRESSING
    assert guest.read(MIB - 2, 2) == bytes(2)
    # host accesses are all or nothing, too
    frame = _address(guest)
    guest.read(PAGE, 1)
    uv.firmware.storage.write(frame - 4, b"1234")
    if uv.snapshot().frames["secure"]:
        assert _code(lambda: uv.host.write(frame - 4, b"abcdefgh")) is ProgramCode.SECURE_STORAGE_ACCESS
        assert uv.firmware.storage.read(frame - 4, 4) == b"1234"


@pytest.mark.parametrize("misc", [True, False])
def test_promise_72_ownership_transfer_only_with_misc(machine_keys: MachineKeys, misc: bool) -> None:
    machine = ModelMachine(keys=machine_keys, settings=Settings(features=Feature.MISC if misc else Feature(0)))
    first, second = ModelGuest(machine), ModelGuest(machine)
    first.start()
    second.start()
    first.write(PAGE, PATTERN)
    first.share(PAGE)
    frame = _address(first) >> PAGE_SHIFT
    second.configuration.space.map(PAGE >> PAGE_SHIFT, frame)
    assert (
        _code(lambda: machine.ultravisor.firmware.guest_read(second.handle, PAGE, 1))
        is ProgramCode.NON_SECURE_STORAGE_ACCESS
    )
    answer = _import(second)
    if misc:
        assert answer.rc == 1
        assert second.read(PAGE, PAGE_SIZE) == bytes(PAGE_SIZE)
        assert machine.ultravisor.host.page_counts(first.handle)["shared_out"] == 1
    else:
        assert _answered(answer, PageCall.OWNER)
        _export(first)
        assert _import(second).rc == 1
    machine.close()


def test_large_frames_are_verified_and_split(machine: ModelMachine) -> None:
    guest = ModelGuest(machine, memory=4 * MIB)
    guest.start()
    uv, space = machine.ultravisor, guest.configuration.space
    frame = machine.host.frames.take(512, align=256)

    def verify(gaddr: int) -> UvcbHeader:
        return machine.host.issue(
            GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=guest.handle, gaddr=gaddr)
        )[1]

    assert verify(64 * MIB).rc == LargeFrame.RANGE.rc
    assert verify(MIB).rc == LargeFrame.MAPPING.rc
    space.map_large(256, frame)
    assert verify(MIB).rc == LargeFrame.NOT_IMPORTED.rc
    uv.host.import_run(guest.handle, MIB, MIB)
    assert _code(lambda: uv.firmware.guest_read(guest.handle, MIB, 1)) is ProgramCode.SECURE_PAGE_SIZE
    assert verify(MIB + 0x5000).rc == 1
    assert uv.firmware.guest_read(guest.handle, 2 * MIB - 8, 8) == bytes(8)
    assert _frame_call(guest, Command.CONV_FROM_SEC_STOR, MIB + 0x7000).rc == 1
    assert _code(lambda: uv.firmware.guest_read(guest.handle, MIB, 1)) is ProgramCode.SECURE_PAGE_SIZE
    space.map(256 + 3, frame + 256)
    assert verify(MIB).rc == LargeFrame.MAPPING.rc
    assert uv.firmware.guest_read(guest.handle, MIB, 1) == b"\0"
    with pytest.raises(ValueError, match="aligned"):
        space.map_large(257, frame)


def test_shared_pages_survive_paging_in_plain(machine: ModelMachine) -> None:
    guest = ModelGuest(machine, limit=6)
    guest.start()
    guest.write(PAGE, PATTERN)
    guest.share(PAGE)
    for page in range(0x50, 0x60):
        guest.write(page * PAGE_SIZE, b"%d" % page)
    assert machine.ultravisor.host.page_counts(guest.handle)["shared_out"] == 1
    assert guest.read(PAGE, len(PATTERN)) == PATTERN
    assert machine.ultravisor.host.read(_address(guest), 9) == PATTERN[:9]
    for page in range(0x50, 0x60):
        guest.write(page * PAGE_SIZE, b"%d" % page)
    guest.unshare(PAGE)
    assert guest.read(PAGE, len(PATTERN)) == PATTERN
