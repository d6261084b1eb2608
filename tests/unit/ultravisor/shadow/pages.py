"""Calls that move pages and frames, and what hosts and guests do between them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from tests.unit.ultravisor.shadow.configurations import any_frame, contested_frame
from tests.unit.ultravisor.shadow.model import (
    DONATED,
    DONE,
    EXPORTED,
    IS_SHARED,
    MIB_PAGES,
    NOWHERE,
    PAGES,
    PINNED,
    PRIVATE,
    RUNNING,
    SECURE,
    SHARED,
    SHARED_OUT,
    UNUSED,
    Guest,
    Phase,
)
from tests.unit.ultravisor.shadow.world import (
    IMAGE_PAGE,
    KERNEL_PAGE,
    PART,
    STORED_PAGE,
    WORD,
    GuestBlock,
    World,
    packed,
)
from zseal.arch.interruption import ProgramCode
from zseal.arch.storage import PAGE_SIZE
from zseal.formats.uv_codes import Command, Generic, LargeFrame, PageCall, ResponseCode, Share
from zseal.formats.uvcb import FrameUvcb, GuestPageUvcb, ShareUvcb, UnpackUvcb, UvcbHeader
from zseal.ultravisor import Validity

WRONG_PHASE = Generic.INVALID_STATE


def any_page(guest: Guest, source: random.Random) -> int:
    """A page of the guest: mostly one of a few, sometimes one that it does not have."""
    if source.random() < 0.01:
        return guest.pages + source.randrange(3)
    return source.randrange(min(guest.pages, 8)) if source.random() < 0.8 else source.randrange(guest.pages)


def gaddr(guest: Guest, page: int) -> int:
    """The address of a page as the calls on single pages take it."""
    return (guest.origin + page) * PAGE_SIZE


def map_page(world: World, guest: Guest, page: int, frame: int) -> None:
    if page >= guest.pages:
        return
    if frame == NOWHERE:
        guest.space.unmap(guest.origin + page)
    else:
        guest.space.map(guest.origin + page, frame)
    guest.mapped[page] = frame
    guest.large.discard((guest.origin + page) // MIB_PAGES)


def remap(world: World, guest: Guest, source: random.Random) -> int:
    """The host maps a page anywhere, back to where it was, or nowhere; returns the page."""
    page = any_page(guest, source)
    if page < guest.pages:
        anywhere = any_frame(world, source) if source.random() < 0.6 else contested_frame(world, source)
        map_page(world, guest, page, source.choice((NOWHERE, guest.frame[page], anywhere, anywhere, anywhere)))
    return page


def aim(world: World, guest: Guest, source: random.Random, state: int) -> int:
    """Map a page in ``state``, if there is one, to a frame of any kind; returns the page."""
    pages = [page for page in range(8) if guest.state[page] == state]
    if not pages:
        return remap(world, guest, source)
    page = source.choice(pages)
    map_page(world, guest, page, contested_frame(world, source))
    return page


# ---------------------------------------------------------------- unpack


def load(world: World, guest: Guest, source: random.Random) -> None:
    """The host puts the image's page into a frame, wherever that may be written, and maps it where it belongs."""
    frame = any_frame(world, source)
    if world.visible(frame):
        world.host.write(frame * PAGE_SIZE, PART.stored)
        world.model.put(frame, STORED_PAGE)
        map_page(world, guest, IMAGE_PAGE, frame)


def unpack(world: World, guest: Guest, source: random.Random) -> None:
    page = IMAGE_PAGE if source.random() < 0.7 else any_page(guest, source)
    if page < guest.pages and source.random() < 0.2:
        again = guest.frame[IMAGE_PAGE] if source.random() < 0.3 else NOWHERE
        map_page(world, guest, page, again if again != NOWHERE else contested_frame(world, source))
    block = UnpackUvcb.call(
        Command.UNPACK_IMG, guest_handle=guest.handle, gaddr=page * PAGE_SIZE, tweak_prefix=PART.prefix
    )
    if page < guest.pages and guest.phase in (Phase.PARAMETERS, Phase.UNPACKING):
        world.meet("unpack", guest.mapped[page], guest, page)
    if guest.phase not in (Phase.PARAMETERS, Phase.UNPACKING):
        world.expect(block, WRONG_PHASE)
    elif page >= guest.pages:
        world.expect(block, PageCall.OUTSIDE)
    elif (hindrance := world.model.hindrance(guest, page)) is not None:
        world.expect(block, hindrance)
    else:
        world.expect(block, DONE)
        frame = guest.mapped[page]
        good = world.model.contents[frame] == STORED_PAGE
        world.model.settle(guest, page, SECURE)
        world.model.put(frame, KERNEL_PAGE if good else world.unknown(frame))
        guest.phase = Phase.UNPACKING
        guest.unpacked.append(good and page == IMAGE_PAGE)


# ---------------------------------------------------------------- import, export, destroy


def bring_in(world: World, guest: Guest, source: random.Random) -> None:
    page = remap(world, guest, source) if source.random() < 0.5 else any_page(guest, source)
    if source.random() < 0.3:
        page = aim(world, guest, source, source.choice((EXPORTED, SHARED_OUT)))
    block = GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=gaddr(guest, page))
    if guest.phase not in RUNNING:
        world.expect(block, WRONG_PHASE)
    elif page >= guest.pages:
        world.expect(block, PageCall.OUTSIDE)
    else:
        world.meet(f"import {PAGES[guest.state[page]]}", guest.mapped[page], guest, page)
        world.expect(block, world.model.bring_in(guest, page))
        if guest.phase is Phase.SECURE:
            world.content_as_its_guest_finds_it(guest, page)


def bring_in_run(world: World, guest: Guest, source: random.Random) -> None:
    """Several pages in one go: it stops at the first that fails."""
    first = any_page(guest, source)
    count = min(source.randrange(1, 12), guest.pages - first)
    if world.shape.large_frames and source.random() < 0.1:
        first, count = 0, guest.pages
    if guest.phase not in RUNNING or count <= 0:
        return
    done, answer = 0, None
    for page in range(first, first + count):
        found = world.model.bring_in(guest, page)
        if found is not DONE:
            answer = found
            break
        done += 1
    wanted = (done, answer)
    world.expect_run(lambda: world.host.import_run(guest.handle, gaddr(guest, first), count * PAGE_SIZE), wanted)


def some_frame(world: World, source: random.Random) -> int:
    """A frame of a guest's page, if any, or any frame."""
    guests = list(world.model.guests.values())
    if guests and source.random() < 0.6:
        guest = source.choice(guests)
        frame = guest.frame[source.randrange(min(guest.pages, 8))]
        if frame != NOWHERE:
            return frame
    return any_frame(world, source)


def export(world: World, source: random.Random) -> None:
    frame = some_frame(world, source)
    world.meet("export", frame)
    was_private, before = world.model.kinds[frame] == SECURE, world.model.contents[frame]
    rc, rrc, _ = world.issue(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame * PAGE_SIZE))
    ciphertext = world.sealed(frame) if was_private else before
    wanted = world.model.export(frame, ciphertext)
    assert (rc, rrc) == (wanted.rc, wanted.rrc or 0)
    assert not was_private or ciphertext[1] != before[1]


def export_run(world: World, source: random.Random) -> None:
    """Several frames in one go, also those of several owners."""
    first = some_frame(world, source)
    count = min(source.randrange(1, 8), world.shape.top - first)
    private = [frame for frame in range(first, first + count) if world.model.kinds[frame] == SECURE]
    done = next((at for at in range(count) if world.model.kinds[first + at] == DONATED), count)
    wanted = (done, PageCall.DONATED if done < count else None)
    world.expect_run(lambda: world.host.export_run(first * PAGE_SIZE, count * PAGE_SIZE), wanted)
    for frame in range(first, first + done):
        world.model.export(frame, world.sealed(frame) if frame in private else world.model.contents[frame])


def destroy(world: World, source: random.Random) -> None:
    frame = some_frame(world, source)
    world.meet("destroy", frame)
    block = FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=frame * PAGE_SIZE)
    world.expect(block, world.model.destroy(frame))


def destroy_run(world: World, source: random.Random) -> None:
    first = any_frame(world, source)
    done, answer = 0, None
    for frame in range(first, min(first + source.randrange(1, 4), world.shape.top)):
        found = world.model.destroy(frame)
        if found is not DONE:
            answer = found
            break
        done += 1
    count = done + (answer is not None)
    world.expect_run(lambda: world.host.destroy_run(first * PAGE_SIZE, count * PAGE_SIZE), (done, answer))


def adopt(world: World, guest: Guest, source: random.Random) -> None:
    if guest.phase is Phase.SECURE:
        for page, frame in enumerate(guest.mapped[:8]):
            if guest.state[page] == UNUSED:
                world.meet("adopt", frame, guest, page)
    found = world.outcome(lambda: world.firmware.adopt_all(guest.handle))
    assert found == (world.model.adopt(guest) if guest.phase is Phase.SECURE else Validity.STATE)


# ---------------------------------------------------------------- share, pin


def _guest_call(world: World, guest: Guest, block: UvcbHeader) -> object:
    """The condition code and rc that the guest gets, or what the call ends in otherwise."""
    operands = GuestBlock(block)

    def call() -> tuple[int, int]:
        cc = world.firmware.guest_call(guest.handle, 0, operands)
        return cc, UvcbHeader.unpack(bytes(operands.data)).rc

    return world.outcome(call)


def share(world: World, guest: Guest, source: random.Random) -> None:
    page, sharing = any_page(guest, source), source.random() < 0.6
    if source.random() < 0.15:
        page = aim(world, guest, source, UNUSED)
    command = Command.SET_SHARED_ACCESS if sharing else Command.REMOVE_SHARED_ACCESS
    found = _guest_call(world, guest, ShareUvcb.call(command, paddr=page * PAGE_SIZE))
    if guest.phase is not Phase.SECURE:
        assert found is Validity.STATE
        return
    if sharing and page < guest.pages:
        world.meet(f"share {PAGES[guest.state[page]]}", guest.mapped[page], guest, page)
    wanted = world.model.share(guest, page) if sharing else world.model.unshare(guest, page)
    if wanted is None:
        assert found == (2, 0)
    elif isinstance(wanted, ResponseCode):
        assert found == ((0, 1) if wanted is DONE else (1, Share.ADDRESS.rc))
    else:
        assert found is wanted


def share_many(world: World, guest: Guest, source: random.Random) -> None:
    """The calls for every page that is ready, in one go."""
    if guest.phase is not Phase.SECURE:
        return
    sharing = source.random() < 0.5
    calls = world.firmware.page_calls(
        guest.handle, Command.SET_SHARED_ACCESS if sharing else Command.REMOVE_SHARED_ACCESS
    )
    assert calls is not None
    model = world.model
    ready = [
        page
        for page, state in enumerate(guest.state)
        if (state == PRIVATE if sharing else state == IS_SHARED and model.kinds[guest.frame[page]] != PINNED)
    ]
    assert np.flatnonzero(calls.ready).tolist() == ready
    chosen = [page for page in ready if source.random() < 0.5]
    if chosen:
        calls.carry_out(np.array(chosen))
    for page in chosen:
        assert (model.share(guest, page) if sharing else model.unshare(guest, page)) is DONE


def pin(world: World, source: random.Random) -> None:
    frame = some_frame(world, source)
    shared = [number for number, kind in enumerate(world.model.kinds) if kind == SHARED]
    if shared and source.random() < 0.5:
        frame = source.choice(shared)
    world.meet("pin", frame)
    block = FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame * PAGE_SIZE)
    world.expect(block, world.model.pin(frame))


def unpin(world: World, guest: Guest, source: random.Random) -> None:
    page = any_page(guest, source)
    block = GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=guest.handle, gaddr=gaddr(guest, page))
    if guest.phase not in RUNNING:
        world.expect(block, WRONG_PHASE)
    elif page >= guest.pages:
        world.expect(block, PageCall.OUTSIDE)
    else:
        world.expect(block, world.model.unpin(guest, page))


# ---------------------------------------------------------------- large frames


def map_large(world: World, guest: Guest, source: random.Random) -> None:
    if not world.shape.large_frames:
        return
    part = (guest.origin + MIB_PAGES - 1) // MIB_PAGES + source.randrange(guest.pages // MIB_PAGES)
    first, frame = part * MIB_PAGES - guest.origin, source.choice(world.shape.large)
    if first + MIB_PAGES > guest.pages:
        return
    guest.space.map_large(part * MIB_PAGES, frame)
    guest.mapped[first : first + MIB_PAGES] = range(frame, frame + MIB_PAGES)
    guest.large.add(part)
    if guest.phase in RUNNING and source.random() < 0.8:
        for page in range(first, first + MIB_PAGES):
            if world.model.hindrance(guest, page) is None and guest.state[page] != EXPORTED:
                answer = world.model.bring_in(guest, page)
                assert answer is DONE
                world.host.import_run(guest.handle, gaddr(guest, page), PAGE_SIZE)
        verify_large(world, guest, source)


def verify_large(world: World, guest: Guest, source: random.Random) -> None:
    page = source.randrange(guest.pages)
    if guest.large and source.random() < 0.8:
        page = max(0, source.choice(sorted(guest.large)) * MIB_PAGES - guest.origin)
    block = GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=guest.handle, gaddr=gaddr(guest, page))
    part = (guest.origin + page) // MIB_PAGES
    first = part * MIB_PAGES - guest.origin
    if guest.phase not in RUNNING:
        world.expect(block, WRONG_PHASE)
    elif first < 0 or first + MIB_PAGES > guest.pages:
        world.expect(block, LargeFrame.RANGE)
    elif part not in guest.large:
        world.expect(block, LargeFrame.MAPPING)
    elif any(
        guest.state[each] != PRIVATE or guest.frame[each] != guest.mapped[each]
        for each in range(first, first + MIB_PAGES)
    ):
        world.expect(block, LargeFrame.NOT_IMPORTED)
    else:
        world.expect(block, DONE)
        world.met.add(("verify large frame", "whole"))
        world.model.whole.add(guest.mapped[first] // MIB_PAGES)


# ---------------------------------------------------------------- accesses


def host_write(world: World, source: random.Random) -> None:
    frame, word = some_frame(world, source), world.hosts(source.getrandbits(32))
    world.meet("host write", frame)
    found = world.outcome(lambda: world.host.write(frame * PAGE_SIZE + WORD, packed(word)))
    if world.visible(frame):
        assert found is None
        world.model.put(frame, (world.model.contents[frame][0], word))
    else:
        assert found is ProgramCode.SECURE_STORAGE_ACCESS


def copy(world: World, source: random.Random) -> None:
    """The host moves what it can read to where it can write."""
    source_frame, target = some_frame(world, source), some_frame(world, source)
    if world.visible(source_frame) and world.visible(target):
        world.host.write(target * PAGE_SIZE, world.host.read(source_frame * PAGE_SIZE, PAGE_SIZE))
        world.model.put(target, world.model.contents[source_frame])


def put_back(world: World, source: random.Random) -> None:
    """The host brings an exported page's ciphertext, the last or an older one, to where its guest maps the page."""
    guests = [guest for guest in world.model.guests.values() if EXPORTED in guest.state]
    if not guests:
        return
    guest = source.choice(guests)
    page = source.choice([page for page, state in enumerate(guest.state) if state == EXPORTED])
    ciphertext, frame = guest.sealed[page], any_frame(world, source)
    holder = next((n for n, content in enumerate(world.model.contents) if content == ciphertext), frame)
    if world.model.contents[holder] == ciphertext and world.visible(holder) and world.visible(frame):
        world.host.write(frame * PAGE_SIZE, world.host.read(holder * PAGE_SIZE, PAGE_SIZE))
        world.model.put(frame, ciphertext)
        map_page(world, guest, page, frame)


def replay(world: World, source: random.Random) -> None:
    """The host writes ciphertext from before over whatever is there."""
    frame = some_frame(world, source)
    if world.old and world.visible(frame):
        data, content = source.choice(world.old)
        world.host.write(frame * PAGE_SIZE, data)
        world.model.put(frame, content)


def view(world: World, source: random.Random) -> None:
    """What the host gets that makes frames accessible first, with the guests running on."""
    first = some_frame(world, source)
    count = min(source.randrange(1, 4), world.shape.top - first)
    found = world.outcome(lambda: world.host.view(first * PAGE_SIZE, count * PAGE_SIZE, live=True))
    if not isinstance(found, bytes):
        assert found is ProgramCode.SECURE_STORAGE_ACCESS
        assert DONATED in world.model.kinds[first : first + count]
        return
    for at in range(count):
        frame, word = first + at, found[at * PAGE_SIZE + WORD :][:8]
        assert (word == packed(world.model.contents[frame][1])) == world.visible(frame)


def guest_access(world: World, guest: Guest, source: random.Random) -> None:
    page = any_page(guest, source)
    if guest.phase is not Phase.SECURE:
        found = world.outcome(lambda: world.firmware.guest_read(guest.handle, page * PAGE_SIZE, 8))
        assert found is Validity.STATE
    elif source.random() < 0.4:
        world.content_as_its_guest_finds_it(guest, page)
    else:
        word, wanted = world.secret(), world.model.access(guest, page)
        if page < guest.pages:
            world.meet("guest write", guest.mapped[page], guest, page)
        address = page * PAGE_SIZE + WORD
        assert world.outcome(lambda: world.firmware.guest_write(guest.handle, address, packed(word))) is wanted
        if wanted is None:
            frame = guest.mapped[page]
            world.model.put(frame, (world.model.contents[frame][0], word))
            if world.model.kinds[frame] in (SHARED, PINNED):
                world.model.publish(frame)


ON_FRAMES: tuple[tuple[Callable[[World, random.Random], None], int], ...] = (
    (export, 6), (export_run, 2), (destroy, 2), (destroy_run, 1), (pin, 9), (host_write, 3), (copy, 2), (put_back, 6),
    (replay, 1), (view, 2),
)  # fmt: skip
ON_GUESTS: tuple[tuple[Callable[[World, Guest, random.Random], None], int], ...] = (
    (load, 8), (unpack, 10), (bring_in, 14), (bring_in_run, 3), (adopt, 4), (share, 14), (share_many, 2), (unpin, 1),
    (verify_large, 2), (map_large, 2), (guest_access, 14),
)  # fmt: skip
