"""A machine with its ultravisor and, beside it, a simple model of what it must do.

The model is written from the rules, page by page, with nothing of the implementation in it; after every step both are
compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.engine.memory import SharedMemory
from zseal.formats.uv_codes import Command, CpuState, Generic, PageCall
from zseal.formats.uvcb import (
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    FrameUvcb,
    GuestPageUvcb,
    HandleUvcb,
    InitUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UnpackUvcb,
    UvcbHeader,
)
from zseal.model.image import seal_image
from zseal.ultravisor import MappedSpace, Settings, Ultravisor

GUESTS, PAGES, PLAY = 3, 10, 28
BLOCK, HEADER, FIRST = 4 * PAGE_SIZE, 6 * PAGE_SIZE, 16  # the host's own frames, then those in play
SLOT = FIRST + PLAY  # then what each guest's configuration is made of
SLOT_SIZE = 8
IMAGE_PAGE = 1
ORIGIN = 2 << 30
SMALL = Settings(uv_base_storage=MIB, conf_base_storage=PAGE_SIZE, conf_virtual_base=PAGE_SIZE)

KEYS = MachineKeys(ec.generate_private_key(CURVE()))
IMAGE = seal_image([(IMAGE_PAGE * PAGE_SIZE, b"kernel")], [KEYS.host.public_key()])
PLAIN_KERNEL = b"kernel".ljust(PAGE_SIZE, b"\0")
ZEROS = bytes(PAGE_SIZE)
SECURE_STORAGE_ACCESS = ProgramCode.SECURE_STORAGE_ACCESS

# kinds of frames, in the numbers of the implementation's table only for the comparison at the end of a step
ORDINARY, DONATED, SECURE, SHARED, PINNED = range(5)
# states of pages, likewise
UNUSED, PRIVATE, IS_SHARED, EXPORTED, SHARED_OUT, LOST = range(6)


@dataclasses.dataclass
class Page:
    state: int = UNUSED
    frame: int = -1
    plain: bytes = ZEROS
    sealed: bytes = b""


@dataclasses.dataclass
class Guest:
    serial: int
    slot: int
    handle: int
    cpu: int
    space: MappedSpace
    map: list[int] = dataclasses.field(default_factory=lambda: [-1] * PAGES)
    pages: list[Page] = dataclasses.field(default_factory=lambda: [Page() for _ in range(PAGES)])


@dataclasses.dataclass
class Frame:
    kind: int = ORDINARY
    owner: tuple[int, int] = (0, 0)
    data: bytes = ZEROS


class Machine:
    """The ultravisor under test and the model of what it must do."""

    def __init__(self) -> None:
        self.storage = SharedMemory(ORIGIN + MIB)
        self.uv = Ultravisor(self.storage, KEYS, settings=SMALL)
        self.frames = [Frame() for _ in range(SLOT + GUESTS * SLOT_SIZE)]
        self.guests: dict[int, Guest] = {}  # by slot
        self.serial = self.steps = 0
        self.sealed: set[bytes] = set()
        self.old: list[tuple[int, bytes]] = []  # (frame, ciphertext) to replay
        self.expect(InitUvcb.call(Command.INIT_UV, stor_origin=ORIGIN, stor_len=MIB), 1)

    # ------------------------------------------------------------ calls

    def issue(self, block: UvcbHeader) -> tuple[int, int, bytes]:
        self.uv.host.write(BLOCK, block.pack())
        self.uv.host.call(BLOCK)
        answer = self.uv.host.read(BLOCK, type(block).SIZE)
        header = UvcbHeader.unpack(answer)
        return header.rc, header.rrc, answer

    def expect(self, block: UvcbHeader, rc: int, rrc: int = 0) -> bytes:
        found_rc, found_rrc, answer = self.issue(block)
        assert (found_rc, found_rrc) == (rc, rrc), (block, hex(found_rc), hex(found_rrc))
        return answer

    def alive(self, owner: tuple[int, int]) -> Page | None:
        for guest in self.guests.values():
            if guest.serial == owner[0]:
                return guest.pages[owner[1]]
        return None

    # ------------------------------------------------------------ the host's actions

    def create(self, slot: int) -> None:
        first = SLOT + slot * SLOT_SIZE
        asce = (slot + 1) << 12 | 0x107
        if slot in self.guests:
            space = MappedSpace(PAGES)
            self.uv.host.register_address_space(asce, space)
            self.expect(self.create_block(first, asce), 0x104)
            self.uv.host.register_address_space(asce, self.guests[slot].space)
            return
        space = MappedSpace(PAGES)
        self.uv.host.register_address_space(asce, space)
        self.serial += 1
        conf = CreateConfUvcb.unpack(self.expect(self.create_block(first, asce), 1))
        cpu = CreateCpuUvcb.unpack(
            self.expect(
                CreateCpuUvcb.call(
                    Command.CREATE_SEC_CPU,
                    guest_handle=conf.guest_handle,
                    stor_origin=(first + 2) * PAGE_SIZE,
                    state_origin=(first + 3) * PAGE_SIZE,
                ),
                1,
            )
        )
        for frame in (first, first + 1, first + 2):
            self.frames[frame] = Frame(DONATED)
        guest = Guest(self.serial, slot, conf.guest_handle, cpu.cpu_handle, space)
        self.guests[slot] = guest
        self.start(guest)

    def create_block(self, first: int, asce: int) -> CreateConfUvcb:
        return CreateConfUvcb.call(
            Command.CREATE_SEC_CONF,
            conf_base_stor_origin=first * PAGE_SIZE,
            conf_stor_origin_virt=(first + 1) * PAGE_SIZE,
            guest_stor_len=PAGES * PAGE_SIZE,
            guest_sca=(first + 4) * PAGE_SIZE,
            guest_asce=asce,
        )

    def start(self, guest: Guest) -> None:
        free = [n for n in range(FIRST, SLOT) if self.frames[n].kind == ORDINARY]
        self.uv.host.write(HEADER, IMAGE.header)
        self.expect(
            SetParametersUvcb.call(
                Command.SET_SEC_CONF_PARAMS,
                guest_handle=guest.handle,
                sec_header_origin_virt=HEADER,
                sec_header_len=len(IMAGE.header),
            ),
            1,
        )
        part = IMAGE.components[0]
        unpack = UnpackUvcb.call(
            Command.UNPACK_IMG, guest_handle=guest.handle, gaddr=part.address, tweak_prefix=part.prefix
        )
        if not free:
            self.expect(unpack, 0x10A)
            self.remove(guest)
            return
        frame = free[0]
        self.uv.host.write(frame * PAGE_SIZE, part.stored)
        guest.space.map(IMAGE_PAGE, frame)
        guest.map[IMAGE_PAGE] = frame
        self.expect(unpack, 1)
        self.expect(HandleUvcb.call(Command.VERIFY_IMG, handle=guest.handle), 1)
        self.frames[frame] = Frame(SECURE, (guest.serial, IMAGE_PAGE), PLAIN_KERNEL)
        guest.pages[IMAGE_PAGE] = Page(PRIVATE, frame, PLAIN_KERNEL)
        self.set_state(guest, CpuState.OPERATING_LOAD)

    def set_state(self, guest: Guest, state: CpuState) -> None:
        self.expect(CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=guest.cpu, state=state), 1)

    def remove(self, guest: Guest) -> None:
        self.expect(HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=guest.handle), Generic.INVALID_STATE.rc)
        self.expect(HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=guest.cpu), 1)
        self.expect(HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=guest.handle), 1)
        first = SLOT + guest.slot * SLOT_SIZE
        for frame in (first, first + 1, first + 2):
            self.frames[frame] = Frame()
        for each in self.frames:
            if each.kind == PINNED and each.owner[0] == guest.serial:
                each.kind = SHARED
        del self.guests[guest.slot]

    def reset(self, guest: Guest) -> None:
        self.uv.firmware.request_reset(guest.handle)
        self.expect(HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=guest.handle), Generic.INVALID_STATE.rc)
        self.set_state(guest, CpuState.STOPPED)
        self.expect(HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle), Generic.INVALID_STATE.rc)
        self.expect(HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=guest.handle), 1)
        self.expect(HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle), 1)
        self.expect(HandleUvcb.call(Command.CPU_RESET_CLEAR, handle=guest.cpu), 1)
        self.set_state(guest, CpuState.OPERATING_LOAD)
        for page in guest.pages:
            if page.state == IS_SHARED:
                page.state = PRIVATE
                page.plain = self.frames[page.frame].data
                self.frames[page.frame].kind = SECURE
            elif page.state == SHARED_OUT:
                page.state, page.plain = UNUSED, ZEROS

    def map(self, guest: Guest, page: int, frame: int) -> None:
        if frame < 0:
            guest.space.unmap(page)
        else:
            guest.space.map(page, frame)
        guest.map[page] = frame

    def bring_in(self, guest: Guest, page: int) -> None:
        self.expect(
            GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=page * PAGE_SIZE),
            *self.import_model(guest, page),
        )

    def import_model(self, guest: Guest, index: int) -> tuple[int, int]:
        page, number = guest.pages[index], guest.map[index]
        if number < 0:
            return PageCall.NOT_MAPPED.rc, 0
        frame = self.frames[number]
        me = (guest.serial, index)
        if frame.kind == DONATED:
            return PageCall.FRAME_DONATED.rc, 3
        if frame.kind in (SECURE, SHARED, PINNED) and frame.owner == me:
            return (1, 0) if page.state != LOST else (PageCall.LOST.rc, 4)
        foreign = frame.kind == SHARED and frame.owner[0] != guest.serial
        if not (frame.kind == ORDINARY or foreign) or page.state in (PRIVATE, IS_SHARED):
            return PageCall.OWNER.rc, 2
        if page.state == LOST:
            return PageCall.LOST.rc, 4
        if page.state == EXPORTED and frame.data != page.sealed:
            return PageCall.INTEGRITY.rc, 1
        if foreign and (loser := self.alive(frame.owner)) is not None:
            loser.state = SHARED_OUT
        if page.state == SHARED_OUT:
            page.state, frame.kind = IS_SHARED, SHARED
        else:
            frame.data = page.plain if page.state == EXPORTED else ZEROS
            page.state, frame.kind, page.plain = PRIVATE, SECURE, frame.data
        page.frame, frame.owner = number, me
        return 1, 0

    def export(self, number: int) -> None:
        frame = self.frames[number]
        block = FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=number * PAGE_SIZE)
        if frame.kind == DONATED:
            self.expect(block, PageCall.DONATED.rc, 3)
            return
        self.expect(block, 1)
        page = self.alive(frame.owner) if frame.kind in (SECURE, SHARED) else None
        if frame.kind == SECURE:
            data = self.uv.host.read(number * PAGE_SIZE, PAGE_SIZE)
            assert data not in self.sealed  # neither counter nor tweak ever repeats
            assert not any(data[at : at + 64] == frame.data[at : at + 64] for at in range(0, PAGE_SIZE, 64))
            self.sealed.add(data)
            self.old.append((number, data))
            if page is not None:
                page.state, page.plain, page.sealed = EXPORTED, frame.data, data
            self.frames[number] = Frame(data=data)
        elif frame.kind == SHARED:
            if page is not None:
                page.state = SHARED_OUT
            self.frames[number] = Frame(data=frame.data)

    def destroy(self, number: int) -> None:
        frame = self.frames[number]
        block = FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=number * PAGE_SIZE)
        page = self.alive(frame.owner) if frame.kind >= SECURE else None
        if frame.kind == DONATED:
            self.expect(block, PageCall.DONATED.rc, 3)
        elif frame.kind == PINNED and page is not None:
            self.expect(block, PageCall.PINNED.rc, 1)
        else:
            self.expect(block, 1)
            if frame.kind != ORDINARY:
                if page is not None:
                    page.state = LOST if frame.kind == SECURE else SHARED_OUT
                self.frames[number] = Frame()

    def pin(self, number: int) -> None:
        frame = self.frames[number]
        block = FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=number * PAGE_SIZE)
        if frame.kind == DONATED:
            self.expect(block, PageCall.DONATED.rc, 3)
        elif frame.kind in (SHARED, PINNED) and self.alive(frame.owner) is not None:
            self.expect(block, 1)
            frame.kind = PINNED
        else:
            self.expect(block, PageCall.NOT_SHARED.rc)

    def unpin(self, guest: Guest, index: int) -> None:
        page = guest.pages[index]
        block = GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=guest.handle, gaddr=index * PAGE_SIZE)
        if page.state == IS_SHARED:
            self.expect(block, 1)
            self.frames[page.frame].kind = SHARED
        else:
            self.expect(block, PageCall.NOT_SHARED.rc)

    def host_write(self, number: int, data: bytes) -> None:
        frame = self.frames[number]
        if frame.kind in (SECURE, DONATED):
            with pytest.raises(ProgramInterruption) as caught:
                self.uv.host.write(number * PAGE_SIZE + 7, data)
            assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
            return
        self.uv.host.write(number * PAGE_SIZE + 7, data)
        frame.data = frame.data[:7] + data + frame.data[7 + len(data) :]

    def copy(self, source: int, target: int) -> None:
        """The host moves a page's ciphertext (or whatever is there) to another frame."""
        if self.frames[source].kind not in (SECURE, DONATED) and self.frames[target].kind not in (SECURE, DONATED):
            data = self.uv.host.read(source * PAGE_SIZE, PAGE_SIZE)
            self.uv.host.write(target * PAGE_SIZE, data)
            self.frames[target].data = data

    def replay(self, choice: int) -> None:
        if self.old:
            number, data = self.old[choice % len(self.old)]
            if self.frames[number].kind == ORDINARY:
                self.uv.host.write(number * PAGE_SIZE, data)
                self.frames[number].data = data

    # ------------------------------------------------------------ the guests' actions

    def guest_outcome(self, guest: Guest, index: int) -> ProgramCode | None:
        number = guest.map[index]
        if number < 0:
            return ProgramCode.PAGE_TRANSLATION
        frame = self.frames[number]
        if frame.kind in (SECURE, SHARED, PINNED) and frame.owner == (guest.serial, index):
            return None
        if frame.kind == ORDINARY or (frame.kind == SHARED and frame.owner[0] != guest.serial):
            return ProgramCode.NON_SECURE_STORAGE_ACCESS
        return ProgramCode.SECURE_STORAGE_VIOLATION

    def guest_access(self, guest: Guest, index: int, data: bytes | None) -> None:
        address = index * PAGE_SIZE + 99
        action: Callable[[], bytes | None] = (
            (lambda: self.uv.firmware.guest_read(guest.handle, address, 16))
            if data is None
            else (lambda: self.uv.firmware.guest_write(guest.handle, address, data))
        )
        code = self.guest_outcome(guest, index)
        if code is not None:
            with pytest.raises(ProgramInterruption) as caught:
                action()
            assert caught.value.code is code
            return
        found, frame = action(), self.frames[guest.map[index]]
        if data is None:
            assert found == frame.data[99:115]
        else:
            frame.data = frame.data[:99] + data + frame.data[99 + len(data) :]

    def share(self, guest: Guest, index: int, *, share: bool) -> None:
        """The guest builds its control block in its first page, so that page has to be there."""
        if self.guest_outcome(guest, 0) is not None:
            with pytest.raises(ProgramInterruption):
                self.uv.firmware.guest_call(guest.handle, 0)
            return
        command = Command.SET_SHARED_ACCESS if share else Command.REMOVE_SHARED_ACCESS
        block = ShareUvcb.call(command, paddr=index * PAGE_SIZE).pack()
        self.uv.firmware.guest_write(guest.handle, 0, block)
        mine = self.frames[guest.map[0]]
        mine.data = block + mine.data[len(block) :]
        page = guest.pages[index]
        code = self.share_model(guest, page, index) if share else self.unshare_model(page)
        if code == "host":
            with pytest.raises(ProgramInterruption) as caught:
                self.uv.firmware.guest_call(guest.handle, 0)
            assert caught.value.code is ProgramCode.NON_SECURE_STORAGE_ACCESS
            return
        cc = self.uv.firmware.guest_call(guest.handle, 0)
        assert cc == (2 if code == "busy" else 0)
        if cc == 0:
            mine.data = mine.data[:4] + b"\0\1\0\0" + mine.data[8:]

    def share_model(self, guest: Guest, page: Page, index: int) -> str:
        if page.state in (IS_SHARED, SHARED_OUT):
            return "done"
        if page.state == UNUSED and self.import_model(guest, index)[0] != 1:
            return "host"
        if page.state != PRIVATE:
            return "host"
        page.state = IS_SHARED
        self.frames[page.frame].kind = SHARED
        return "done"

    def unshare_model(self, page: Page) -> str:
        if page.state == SHARED_OUT:
            return "host"
        if page.state != IS_SHARED:
            return "done"
        if self.frames[page.frame].kind == PINNED:
            return "busy"
        page.state = PRIVATE
        self.frames[page.frame].kind = SECURE
        return "done"

    # ------------------------------------------------------------ what must hold after every step

    def check(self) -> None:
        table = self.uv._machine.secure.frames  # the tables themselves: no call shows all of them
        kinds = [frame.kind for frame in self.frames]
        assert table.state[: len(kinds)].tolist() == kinds
        assert self.uv._machine.ledger.total == MIB + PAGE_SIZE * kinds.count(DONATED)
        self.steps += 1
        everything = self.steps % 10 == 0  # unchanged ordinary frames are compared at every tenth step
        for number in range(FIRST, SLOT):
            frame = self.frames[number]
            if frame.kind in (SECURE, DONATED):
                assert self.hidden(number)
            elif frame.kind != ORDINARY or everything:
                assert self.uv.host.read(number * PAGE_SIZE, PAGE_SIZE) == frame.data
        for guest in self.guests.values():
            pages = self.uv.firmware.configuration(guest.handle).guest.pages
            assert pages.state.tolist() == [page.state for page in guest.pages]
            for index, page in enumerate(guest.pages):
                if (page.state == IS_SHARED or (everything and page.state == PRIVATE)) and (
                    guest.map[index] == page.frame
                ):
                    found = self.uv.firmware.guest_read(guest.handle, index * PAGE_SIZE, PAGE_SIZE)
                    assert found == self.frames[page.frame].data

    def hidden(self, number: int) -> bool:
        try:
            self.uv.host.read(number * PAGE_SIZE + 11, 1)
        except ProgramInterruption as refused:
            return refused.code is SECURE_STORAGE_ACCESS
        return False

    def close(self) -> None:
        self.storage.close()

    def step(self, action: int, first: int, second: int, data: bytes) -> None:
        """Do one of the actions; the numbers choose what it is done to."""
        guests = list(self.guests.values())
        page, frame = first % PAGES, FIRST + second % PLAY
        if action < 4 or not guests:
            self.create(first % GUESTS)
        elif action < 6:
            self.remove(guests[first % len(guests)])
        elif action < 7:
            self.reset(guests[first % len(guests)])
        else:
            guest = guests[second % len(guests)]
            if action < 30:
                known = guest.pages[page].frame
                self.map(guest, page, (-1, known, frame, frame, frame)[second % 5])
                self.bring_in(guest, page)
            else:
                actions: list[Callable[[], None]] = [
                    lambda: self.map(guest, page, frame),
                    lambda: self.bring_in(guest, page),
                    lambda: self.bring_in(guest, page),
                    lambda: self.export(frame),
                    lambda: self.export(max(guest.pages[page].frame, FIRST)),
                    lambda: self.export(SLOT + second % SLOT_SIZE),
                    lambda: self.destroy(frame) if second % 4 == 0 else self.export(frame),
                    lambda: self.pin(max(guest.pages[page].frame, FIRST)),
                    lambda: self.unpin(guest, page),
                    lambda: self.host_write(frame, data),
                    lambda: self.copy(FIRST + first % PLAY, frame),
                    lambda: self.replay(second),
                    lambda: self.guest_access(guest, page, None),
                    lambda: self.guest_access(guest, page, data),
                    lambda: self.guest_access(guest, page, data),
                    lambda: self.share(guest, page, share=True),
                    lambda: self.share(guest, page, share=True),
                    lambda: self.share(guest, page, share=False),
                ]
                actions[action % len(actions)]()
        self.check()
