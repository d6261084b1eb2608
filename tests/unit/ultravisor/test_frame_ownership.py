"""A frame has one owner: every call that takes a frame, tried on a frame in every state it can have before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.unit.ultravisor.invariants import tables_agree
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.uv_codes import Command, CpuState, PageCall
from zseal.formats.uvcb import CreateCpuUvcb, FrameUvcb, GuestPageUvcb, ShareUvcb, UnpackUvcb
from zseal.model.guest import ModelGuest
from zseal.model.host import ModelConfiguration
from zseal.model.image import ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.ultravisor import Feature, Settings, UvcRefusal

SECRET = b"the victim's plaintext".ljust(PAGE_SIZE, b"\0")
VICTIM_PAGE, OTHER_PAGE, FREE_PAGE = 0x10, 0x40, 0x50


@dataclasses.dataclass
class Scene:
    """Guest B, running, and a victim A that is about to be unpacked; ``frame`` is of B's page 0x40."""

    machine: ModelMachine
    other: ModelGuest
    victim: ModelConfiguration
    image: ModelImage
    frame: int

    def frame_call(self, command: Command) -> None:
        self.machine.host.call(FrameUvcb.call(command, paddr=self.frame << PAGE_SHIFT))

    def unpack(self) -> int:
        """Map the frame where the victim's image goes and unpack it there; return the rc."""
        part = self.image.components[0]
        self.victim.space.map(VICTIM_PAGE, self.frame)
        block = UnpackUvcb.call(
            Command.UNPACK_IMG, guest_handle=self.victim.handle, gaddr=part.address, tweak_prefix=part.prefix
        )
        return self.machine.host.issue(block)[1].rc

    def verify(self) -> None:
        self.machine.host.call_handle(Command.VERIFY_IMG, self.victim.handle)
        self.machine.host.set_state(self.victim.cpus[0], CpuState.OPERATING_LOAD)

    def end_other(self) -> None:
        self.machine.host.destroy(self.other.configuration, keep_pages=True)


def scene(machine: ModelMachine) -> Scene:
    other = ModelGuest(machine)
    other.start()
    other.write(OTHER_PAGE << PAGE_SHIFT, b"B's own")
    other.share(OTHER_PAGE << PAGE_SHIFT)
    image = seal_image([(VICTIM_PAGE << PAGE_SHIFT, SECRET)], [machine.public_key])
    victim = machine.host.create(MIB)
    machine.host.set_parameters(victim, image.header)
    frame = other.configuration.space.resolve(OTHER_PAGE)
    return Scene(machine, other, victim, image, frame)


@pytest.fixture
def taken(machine: ModelMachine) -> Scene:
    """B shares a page; the host puts A's stored page there (a shared frame is the host's to write) and unpacks it."""
    found = scene(machine)
    machine.host.uv.write(found.frame << PAGE_SHIFT, found.image.components[0].stored)
    assert found.unpack() == 1
    tables_agree(machine.ultravisor)
    return found


def _nothing(found: Scene) -> None:
    pass


def _share_again(found: Scene) -> None:
    found.other.configuration.space.map(OTHER_PAGE, found.machine.host.frames.take())
    found.other.share(OTHER_PAGE << PAGE_SHIFT)


def _reset_and_share(found: Scene) -> None:
    found.other.configuration.space.map(OTHER_PAGE, found.machine.host.frames.take())
    found.other.reset()
    found.other.share(OTHER_PAGE << PAGE_SHIFT)


def _share_where_it_was(found: Scene) -> None:
    """B goes on using its page, which its host still maps to the frame that is the victim's now."""
    with pytest.raises(ProgramInterruption):
        found.machine.ultravisor.firmware.guest_write(found.other.handle, OTHER_PAGE << PAGE_SHIFT, b"x")
    found.other.share(OTHER_PAGE << PAGE_SHIFT)


@pytest.mark.parametrize(
    "meanwhile",
    [_nothing, _share_again, _reset_and_share, _share_where_it_was],
    ids=lambda each: each.__name__.strip("_"),
)
@pytest.mark.parametrize("before_verify", [True, False])
def test_what_another_guest_shared_hides_what_is_unpacked_there(
    taken: Scene, meanwhile: Callable[[Scene], None], before_verify: bool
) -> None:
    if before_verify:
        meanwhile(taken)
        taken.end_other()
        taken.verify()
    else:
        taken.verify()
        meanwhile(taken)
        taken.end_other()
    tables_agree(taken.machine.ultravisor)
    uv, address = taken.machine.ultravisor, taken.frame << PAGE_SHIFT
    for access in (lambda: uv.host.read(address, 16), lambda: uv.host.write(address, b"forged")):
        with pytest.raises(ProgramInterruption) as caught:
            access()
        assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
    assert uv.firmware.guest_read(taken.victim.handle, VICTIM_PAGE << PAGE_SHIFT, PAGE_SIZE) == SECRET
    assert SECRET[:16] not in uv.host.view(address, PAGE_SIZE, live=True)


def test_the_guest_that_shared_finds_its_page_with_the_host(taken: Scene) -> None:
    counts = taken.machine.ultravisor.host.page_counts(taken.other.handle)
    assert (counts["shared"], counts["shared_out"]) == (0, 1)


def _donate(found: Scene) -> bool:
    block = CreateCpuUvcb.call(
        Command.CREATE_SEC_CPU, guest_handle=found.victim.handle, num=7, stor_origin=found.frame << PAGE_SHIFT,
        state_origin=found.machine.host.frames.take() << PAGE_SHIFT,
    )  # fmt: skip
    return found.machine.host.issue(block)[1].rc == 1


def _unpack(found: Scene) -> bool:
    return found.unpack() == 1


def _running_victim(found: Scene) -> ModelGuest:
    guest = ModelGuest(found.machine)
    guest.start()
    guest.configuration.space.map(FREE_PAGE, found.frame)
    return guest


def _import(found: Scene) -> bool:
    guest = _running_victim(found)
    call = GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=FREE_PAGE << PAGE_SHIFT)
    return found.machine.host.issue(call)[1].rc == 1


def _import_exported(found: Scene) -> bool:
    """An import that brings a page's content back instead of clearing the frame."""
    guest = _running_victim(found)
    guest.configuration.space.unmap(FREE_PAGE)
    guest.write(FREE_PAGE << PAGE_SHIFT, b"content")
    old = guest.configuration.space.resolve(FREE_PAGE) << PAGE_SHIFT
    found.machine.host.uv.export_run(old, PAGE_SIZE)
    try:
        found.machine.host.uv.write(found.frame << PAGE_SHIFT, found.machine.host.uv.read(old, PAGE_SIZE))
    except ProgramInterruption:
        return False
    guest.configuration.space.map(FREE_PAGE, found.frame)
    try:
        found.machine.host.uv.import_run(guest.handle, FREE_PAGE << PAGE_SHIFT, PAGE_SIZE)
    except UvcRefusal:
        return False
    return guest.read(FREE_PAGE << PAGE_SHIFT, 7) == b"content"


def _share_untouched(found: Scene) -> bool:
    """A guest's first touch of a page by sharing it."""
    guest = _running_victim(found)
    try:
        return found.machine.ultravisor.firmware.guest_call(guest.handle, _share_block(guest)) == 0
    except ProgramInterruption:
        return False


def _share_block(guest: ModelGuest) -> int:
    guest.write(0x1000, ShareUvcb.call(Command.SET_SHARED_ACCESS, paddr=FREE_PAGE << PAGE_SHIFT).pack())
    return 0x1000


def _adopt(found: Scene) -> bool:
    guest = _running_victim(found)
    found.machine.ultravisor.firmware.adopt_all(guest.handle)
    return bool(found.machine.ultravisor.host.page_states(guest.handle)[FREE_PAGE])


def _ordinary(found: Scene) -> None:
    found.end_other()
    found.frame_call(Command.DESTR_SEC_STOR)


def _private(found: Scene) -> None:
    found.other.unshare(OTHER_PAGE << PAGE_SHIFT)


def _pinned(found: Scene) -> None:
    found.frame_call(Command.PIN_PAGE_SHARED)


def _exported(found: Scene) -> None:
    found.frame_call(Command.CONV_FROM_SEC_STOR)


def _left_private(found: Scene) -> None:
    _private(found)
    found.end_other()


def _left_shared(found: Scene) -> None:
    found.end_other()


def _left_pinned(found: Scene) -> None:
    _pinned(found)
    found.end_other()


def _donated(found: Scene) -> None:
    _exported(found)
    assert _donate(found)


BEFORE: dict[Callable[[Scene], None], bool] = {
    _ordinary: True, _nothing: True, _private: False, _pinned: False, _exported: True, _left_private: False,
    _left_shared: True, _left_pinned: True, _donated: False,
}  # fmt: skip
"""States of the frame, and whether a call that brings a guest's page there takes it."""
CALLS = (_unpack, _import, _import_exported, _share_untouched, _adopt, _donate)


@pytest.mark.parametrize("transfers", [True, False], ids=["misc", "no misc"])
@pytest.mark.parametrize("before", BEFORE, ids=lambda each: each.__name__.strip("_"))
@pytest.mark.parametrize("call", CALLS, ids=lambda each: each.__name__.strip("_"))
def test_every_call_that_takes_a_frame_in_every_state(
    machine_keys: MachineKeys, call: Callable[[Scene], bool], before: Callable[[Scene], None], transfers: bool
) -> None:
    features = Feature.LARGE_FRAMES | (Feature.MISC if transfers else Feature(0))
    machine = ModelMachine(keys=machine_keys, settings=Settings(features=features))
    found = scene(machine)
    before(found)
    tables_agree(machine.ultravisor)
    wanted = BEFORE[before]
    if before in (_nothing, _left_shared, _left_pinned):
        wanted = transfers and call not in (_adopt, _donate)  # these take storage of the host's only
    assert call(found) is wanted
    tables_agree(machine.ultravisor)
    machine.close()


def test_a_large_frame_ends_with_the_first_page_that_leaves_it(machine: ModelMachine) -> None:
    """Sharing a page of a verified 1 MiB frame lets another guest take that page: the frame is not whole any more."""
    guest, other = ModelGuest(machine, memory=4 * MIB), ModelGuest(machine)
    guest.start()
    other.start()
    uv, first = machine.ultravisor, machine.host.frames.take(256, align=256)
    guest.configuration.space.map_large(256, first)
    uv.host.import_run(guest.handle, MIB, MIB)
    machine.host.call(GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=guest.handle, gaddr=MIB))
    guest.share(MIB)
    other.configuration.space.map(FREE_PAGE, first)
    uv.host.import_run(other.handle, FREE_PAGE << PAGE_SHIFT, PAGE_SIZE)
    tables_agree(uv)
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_read(guest.handle, MIB + PAGE_SIZE, 1)
    assert caught.value.code is ProgramCode.SECURE_PAGE_SIZE


def test_the_answer_for_a_foreign_frame_is_the_one_of_imports(machine: ModelMachine) -> None:
    found = scene(machine)
    _private(found)
    assert found.unpack() == PageCall.OWNER.rc
