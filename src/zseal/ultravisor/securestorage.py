"""Secure storage: the owners and pages of frames, and how pages enter and leave it.

All functions work on runs of at most CHUNK pages; a single UVC is a run of one. A run stops at the first page that
fails, with the pages before it done and the failing one unchanged, as if each page had been a call of its own. The
tables change first and the content of frames last, so that a run that cannot be completed is taken back
(``zseal.ultravisor.undo``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE, Storage
from zseal.formats.uv_codes import PageCall, ResponseCode
from zseal.ultravisor.addressspace import LARGE_PAGES, AddressSpace
from zseal.ultravisor.clearing import clear
from zseal.ultravisor.image.unpacking import Unpacking
from zseal.ultravisor.pagecrypto import COUNTER_LIMIT, PageSealer
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.tables import (
    DONATED,
    EXPORTED,
    LOST,
    NON_SECURE,
    PINNED,
    PRIVATE,
    SECURE,
    SHARED,
    SHARED_FRAME,
    SHARED_OUT,
    UNUSED,
    Counters,
    FrameTable,
    Index,
    PageTable,
    States,
    blank_states,
    consecutive,
    runs,
)
from zseal.ultravisor.undo import Undo

CHUNK = 512
"""Pages handled together: 2 MiB of data, for which the cipher prepares its tweaks in one go."""
RUN_SIZE = CHUNK << PAGE_SHIFT
"""Bytes of a run of calls that are handled together."""


class GuestStorage:
    """One guest's part of secure storage, from the creation of its configuration to its end.

    ``serial`` names the guest in the frame table and is never used twice. ``origin`` is the first page that the address
    space maps for the guest (main storage origin / 4096). ``blank_states`` allocates its page states.
    """

    def __init__(
        self,
        serial: int,
        *,
        origin: int,
        pages: int,
        space: AddressSpace,
        undo: Undo,
        blank_states: Callable[[int], States] = blank_states,
    ) -> None:
        self.serial = serial
        self.origin = origin
        self.pages = PageTable(pages, undo, blank_states)
        self.space = space
        self.sealer = PageSealer()

    def page(self, gaddr: int) -> int | None:
        """Return the index of the page that begins at guest address ``gaddr`` (origin included), or None."""
        return self.absolute_page(gaddr - (self.origin << PAGE_SHIFT))

    def absolute_page(self, address: int) -> int | None:
        """Return the index of the page that begins at guest absolute ``address`` (origin not included), or None."""
        index = address >> PAGE_SHIFT
        return index if address % PAGE_SIZE == 0 and 0 <= index < self.pages.count else None

    def frame(self, page: int) -> int:
        """Return the frame that the host maps at ``page``, or NO_FRAME."""
        return self.space.resolve(self.origin + page)


class SecureStorage:
    """The frame table of one machine's storage, and the guests that own frames of it."""

    def __init__(self, storage: Storage, undo: Undo, *, transfers_shared: bool) -> None:
        """``transfers_shared``: importing a frame that another guest shares takes it over (feature MISC)."""
        self.storage = storage
        self.undo = undo
        self.frames = FrameTable(storage.size, undo)
        self.guests: dict[int, GuestStorage] = {}
        self.large: set[int] = set()
        """1 MiB frames (by number) whose 256 pages were verified as one."""
        self._transfers_shared = transfers_shared
        self._copy = bytearray(CHUNK << PAGE_SHIFT)
        self._orphans = PageSealer()
        self._orphan_counter = 0

    def attach(self, guest: GuestStorage) -> None:
        """Let ``guest`` own frames."""
        self.undo.step(guest.sealer.wipe)
        self.undo.entry(self.guests, guest.serial)
        self.guests[guest.serial] = guest

    def detach(self, guest: GuestStorage) -> None:
        """End ``guest``: its keys and pins are gone; its frames stay secure until they are exported or destroyed."""
        self.frames.change(self.frames_of(guest, np.flatnonzero(guest.pages.state == SHARED)), SHARED_FRAME)
        self.undo.entry(self.guests, guest.serial)
        del self.guests[guest.serial]
        self.undo.afterwards(guest.sealer.wipe)
        self.undo.afterwards(self._forget_copy)

    def _forget_copy(self) -> None:
        self._copy[:] = bytes(len(self._copy))

    def owner(self, frame: int) -> tuple[GuestStorage | None, int]:
        """Return the living guest that owns a secure, shared or pinned frame, and the page in it."""
        return self.guests.get(self.frames.owner.item(frame)), self.frames.page.item(frame)

    def frames_of(self, guest: GuestStorage, pages: Index) -> Index:
        """Return the frames in which ``pages``, all resident, of ``guest`` are.

        The frame table decides: a frame that it gives to another page or guest is omitted, so that no operation on a
        guest's pages can reach the frame of another.
        """
        table = self.frames
        frames: Index = guest.pages.frame[pages].astype(np.int64)
        own = (table.state[frames] >= SECURE) & (table.owner[frames] == guest.serial) & (table.page[frames] == pages)
        return frames if own.all() else frames[own]

    def _by_owner(self, frames: Index) -> Iterator[tuple[GuestStorage | None, Index]]:
        """Split frames that are not non-secure by owner; None represents a guest that is gone."""
        owners = self.frames.owner[frames]
        if owners.size and np.all(owners == owners[0]):  # nearly always: sorting them takes longer than the rest
            yield self.guests.get(owners.item(0)), frames
            return
        for serial in np.unique(owners).tolist():
            yield self.guests.get(serial), frames[owners == serial]

    def holds(self, guest: GuestStorage, page: int, frame: int) -> bool:
        """Whether ``frame`` is where ``page`` of ``guest`` is resident."""
        table = self.frames
        return (
            table.state.item(frame) >= SECURE
            and table.owner.item(frame) == guest.serial
            and table.page.item(frame) == page
        )

    # ---------------------------------------------------------------- export

    def export_run(self, first: int, count: int) -> None:
        """Make ``count`` frames accessible to the host: private pages encrypted, shared ones as they are.

        Non-secure and pinned frames stay as they are. Raises UvcRefusal for a donated frame and an exhausted counter.
        """
        table, frames = self.frames, np.arange(first, first + count)
        good, answer = self._first_hit(
            frames.size, (table.state[frames] == DONATED, PageCall.DONATED), (self._exhausted(frames), PageCall.COUNTER)
        )
        frames = frames[:good]
        self.retire_shared(frames[table.state[frames] == SHARED_FRAME])
        for guest, part in self._by_owner(frames[table.state[frames] == SECURE]):
            self.undo.keep()  # what encryption gives is valid until it is used again
            data, tags, counters = self._encrypted(guest, part, keep_tags=True)
            if guest is not None:
                guest.pages.seal(table.page[part].astype(np.int64), counters, tags)
            self._split_large(part)
            table.release(part)
            self._replace(part, data)
        if answer is not None:
            raise UvcRefusal(answer, done=good)

    @staticmethod
    def _first_hit(count: int, *reasons: tuple[NDArray[np.bool_], ResponseCode]) -> tuple[int, ResponseCode | None]:
        """Return how many of ``count`` pages, from the first on, nothing hinders, and what hinders the next one."""
        good, answer = count, None
        for hit, reason in reasons:
            found = np.flatnonzero(hit[:good])
            if found.size:
                good, answer = int(found[0]), reason
        return good, answer

    def _exhausted(self, frames: Index) -> NDArray[np.bool_]:
        """Return a mask of the secure frames whose pages cannot be exported once more."""
        over, secure = np.zeros(frames.size, bool), self.frames.state[frames] == SECURE
        for guest, part in self._by_owner(frames[secure]):
            if guest is not None:
                limit = part[guest.pages.counter[self.frames.page[part]] >= COUNTER_LIMIT]
                if limit.size:
                    over |= np.isin(frames, limit)
        return over

    def _encrypted(
        self, guest: GuestStorage | None, frames: Index, *, keep_tags: bool
    ) -> tuple[bytearray, bytes, Counters]:
        """Return ciphertext, tags and the counters used for secure frames of one owner."""
        pages = self.frames.page[frames].astype(np.int64)
        if guest is None:
            # The guest is gone and its keys with it: nothing can decrypt what the host gets.
            counters = np.arange(self._orphan_counter + 1, self._orphan_counter + 1 + frames.size, dtype=np.uint64)
            self.undo.fields(self)
            self._orphan_counter += frames.size
            with self._content(frames) as plain:
                return self._orphans.encrypt(plain, pages, counters), b"", counters
        counters = guest.pages.counter[pages] + np.uint64(1)
        with self._content(frames) as plain:
            if keep_tags:
                data, tags = guest.sealer.seal(plain, pages, counters)
                return data, tags, counters
            return guest.sealer.encrypt(plain, pages, counters), b"", counters

    def peek_run(self, first: int, count: int) -> bytearray:
        """Return what exporting ``count`` secure frames would give the host, and leave the pages in place.

        The counters advance, so that no two results are alike. Raises UvcRefusal if one is exhausted.
        """
        result = bytearray(count * PAGE_SIZE)
        frames = np.arange(first, first + count)
        if self._exhausted(frames).any():
            raise UvcRefusal(PageCall.COUNTER)
        for guest, part in self._by_owner(frames):
            data, _, counters = self._encrypted(guest, part, keep_tags=False)
            if guest is not None:
                guest.pages.count_export(self.frames.page[part].astype(np.int64), counters)
            for at, frame, length in runs(part, CHUNK):
                to = (frame - first) * PAGE_SIZE
                result[to : to + length * PAGE_SIZE] = data[at * PAGE_SIZE : (at + length) * PAGE_SIZE]
        return result

    def retire_shared(self, frames: Index) -> None:
        """Take shared (or pinned) frames from their guests: the host then has the pages, in plaintext."""
        if not frames.size:
            return
        for guest, part in self._by_owner(frames):
            if guest is not None:
                guest.pages.change(self.frames.page[part].astype(np.int64), SHARED_OUT)
        self._split_large(frames)
        self.frames.release(frames)

    # ---------------------------------------------------------------- import

    def import_run(self, guest: GuestStorage, first: int, count: int) -> None:
        """Make ``count`` pages from index ``first`` on resident in the frames that the host has mapped there.

        Unused pages are cleared, exported ones checked and decrypted, shared ones only taken back; resident ones stay.
        Raises UvcRefusal.
        """
        pages = np.arange(first, first + count)
        frames = guest.space.resolve_run(guest.origin + first, count)
        good, answer = self._importable(guest, pages, frames)
        done, failure = self._import(guest, pages[:good], frames[:good])
        answer = failure or answer
        if answer is not None:
            raise UvcRefusal(answer, done=done)

    def _importable(self, guest: GuestStorage, pages: Index, frames: Index) -> tuple[int, ResponseCode | None]:
        """Return how many pages, from the first on, may be imported, and the obstacle for the next one."""
        table = self.frames
        mapped = (frames >= 0) & (frames < table.count)
        inside = np.where(mapped, frames, 0)
        state, owner = table.state[inside], table.owner[inside]
        mine = (state >= SECURE) & (owner == guest.serial) & (table.page[inside] == pages)
        page_state = guest.pages.state[pages]
        resident = (page_state == PRIVATE) | (page_state == SHARED)
        takeable = state == NON_SECURE
        if self._transfers_shared:
            takeable |= (state == SHARED_FRAME) & (owner != guest.serial)
        good, answer = self._first_hit(
            frames.size,
            (~mapped, PageCall.NOT_MAPPED),
            (state == DONATED, PageCall.FRAME_DONATED),
            (~mine & (~takeable | resident | ~_first_of_each(frames)), PageCall.OWNER),
            (page_state == LOST, PageCall.LOST),
        )
        absent = np.flatnonzero(~self._exist(frames[:good]))
        return (int(absent[0]), PageCall.NOT_MAPPED) if absent.size else (good, answer)

    def _exist(self, frames: Index) -> NDArray[np.bool_]:
        """Return a mask of the frames for which there is storage, which may have holes."""
        mask = np.ones(frames.size, bool)
        for at, first, length in runs(frames, frames.size):
            try:
                self.storage.view(first << PAGE_SHIFT, length << PAGE_SHIFT).release()
            except ProgramInterruption:
                if length == 1:
                    mask[at] = False
                    continue
                middle, end = at + length // 2, at + length
                mask[at:middle] = self._exist(frames[at:middle])
                mask[middle:end] = self._exist(frames[middle:end])
        return mask

    def _import(self, guest: GuestStorage, pages: Index, frames: Index) -> tuple[int, ResponseCode | None]:
        """Import pages that :meth:`_importable` passed; return how many succeeded, and the next one's obstacle."""
        state = guest.pages.state[pages]
        done, answer = len(pages), None
        exported = np.flatnonzero(state == EXPORTED)
        authentic = self._decrypt(guest, pages[exported], frames[exported]) if exported.size else 0
        if authentic < exported.size:
            done, answer = int(exported[authentic]), PageCall.INTEGRITY
        pages, frames, state = pages[:done], frames[:done], state[:done]
        unused = state == UNUSED
        self._clear(frames[unused])
        private = unused | (state == EXPORTED)
        self._settle(guest, pages[private], frames[private], SECURE)
        back = state == SHARED_OUT
        self._settle(guest, pages[back], frames[back], SHARED_FRAME)
        return done, answer

    def _decrypt(self, guest: GuestStorage, pages: Index, frames: Index) -> int:
        """Check and decrypt exported pages in their frames; return how many, from the first on, are authentic."""
        data = self.gather(frames)  # a copy, so that the host cannot change it between check and use
        counters, tags = guest.pages.counter[pages], guest.pages.tag[pages].tobytes()
        self.undo.step(functools.partial(self._scatter, frames, data))
        if consecutive(frames):
            with self.storage.view(int(frames[0]) << PAGE_SHIFT, len(data)) as target:
                return guest.sealer.open(data, pages, counters, tags, target)
        plain = memoryview(bytearray(len(data)))
        good = guest.sealer.open(data, pages, counters, tags, plain)
        self._scatter(frames[:good], plain[: good << PAGE_SHIFT])
        return good

    def _settle(self, guest: GuestStorage, pages: Index, frames: Index, state: int) -> None:
        """Make ``pages`` resident in ``frames``: the only place in which a frame gets a guest as its owner.

        A frame has one owner: if another guest shares it, it is first taken from that guest (feature MISC).
        """
        if not frames.size:
            return
        foreign = (self.frames.state[frames] == SHARED_FRAME) & (self.frames.owner[frames] != guest.serial)
        self.retire_shared(frames[foreign])
        self.frames.take(frames, state, guest.serial, pages)
        guest.pages.settle(pages, frames, SHARED if state == SHARED_FRAME else PRIVATE)

    # ---------------------------------------------------------------- other transitions

    def unpack_run(
        self,
        guest: GuestStorage,
        first: int,
        count: int,
        *,
        prefix: int,
        offset: int,
        unpacking: Unpacking,
    ) -> None:
        """Take ``count`` pages of an image component from index ``first`` on, digested and decrypted by ``unpacking``.

        ``prefix`` and the byte ``offset`` make up the tweak of the first page. Raises UvcRefusal.
        """
        pages = np.arange(first, first + count)
        frames = guest.space.resolve_run(guest.origin + first, count)
        good, answer = self._importable(guest, pages, frames)
        if good:
            pages, frames = pages[:good], frames[:good]
            plain, digests = unpacking.unpack(self.gather(frames), first << PAGE_SHIFT, prefix, offset)
            self.undo.fields(unpacking)
            unpacking.digested = digests
            self._settle(guest, pages, frames, SECURE)
            if plain is not None:
                self._replace(frames, plain)
        if answer is not None:
            raise UvcRefusal(answer, done=good)

    def destroy_run(self, first: int, count: int) -> None:
        """Clear ``count`` frames and give them to the host; a living guest loses its data in them.

        Non-secure frames stay as they are. A living guest's shared page only loses its content. Raises UvcRefusal
        for a donated frame, and for one that is pinned.
        """
        table = self.frames
        frames = np.arange(first, first + count)
        state = table.state[frames]
        alive = np.isin(table.owner[frames], list(self.guests))
        good, answer = self._first_hit(
            count, (state == DONATED, PageCall.DONATED), ((state == PINNED) & alive, PageCall.PINNED)
        )
        for _, frame, length in runs(frames[:good][state[:good] != NON_SECURE], count):
            self.undo.keep()  # each piece by itself: what is cleared does not come back
            self._destroy(np.arange(frame, frame + length))
        if answer is not None:
            raise UvcRefusal(answer, done=good)

    def _destroy(self, frames: Index) -> None:
        table = self.frames
        for guest, part in self._by_owner(frames):
            if guest is not None:
                secure = table.state[part] == SECURE
                lost = np.where(secure, LOST, SHARED_OUT).astype(np.uint8)
                guest.pages.change(table.page[part].astype(np.int64), lost)
        self._split_large(frames)
        table.release(frames)
        self._clear(frames)

    def adopt(self, guest: GuestStorage, first: int, count: int) -> int:
        """Import those of ``count`` pages that were never used and have an ordinary frame; return how many."""
        adopted = 0
        step = CHUNK << 7  # the tables only: no data is copied
        for at in range(first, first + count, step):
            size = min(step, first + count - at)
            pages = np.arange(at, at + size)
            frames = guest.space.resolve_run(guest.origin + at, size)
            fit = self._ordinary(frames) & (guest.pages.state[at : at + size] == UNUSED)
            if not fit.all():
                pages, frames = pages[fit], frames[fit]
            exist = self._exist(frames)
            if not exist.all():
                pages, frames = pages[exist], frames[exist]
            self._settle(guest, pages, frames, SECURE)
            self._clear(frames)
            adopted += frames.size
        return adopted

    def _ordinary(self, frames: Index) -> NDArray[np.bool_]:
        """Return a mask of the frames that are non-secure, each of them once."""
        if consecutive(frames) and frames[0] >= 0 and frames[-1] < self.frames.count:
            mask: NDArray[np.bool_] = self.frames.state[frames[0] : frames[-1] + 1] == NON_SECURE
            return mask
        inside = np.where((frames >= 0) & (frames < self.frames.count), frames, 0)
        mask = (inside == frames) & (self.frames.state[inside] == NON_SECURE)
        return mask & _first_of_each(frames)

    def _split_large(self, frames: Index) -> None:
        if self.large:
            self.undo.fields(self)
            self.large = self.large.difference((frames // LARGE_PAGES).tolist())

    def join_large(self, frame: int) -> None:
        """Count the 1 MiB frame that begins at ``frame`` as one from now on."""
        self.undo.fields(self)
        self.large = self.large | {frame // LARGE_PAGES}

    # ---------------------------------------------------------------- content

    def _clear(self, frames: Index) -> None:
        """Make ``frames`` zero at the end of the call."""
        for _, frame, length in runs(frames, self.frames.count):
            self.undo.last(functools.partial(clear, self.storage, frame << PAGE_SHIFT, length << PAGE_SHIFT))

    def _replace(self, frames: Index, data: bytearray) -> None:
        """Overwrite ``frames``, whose content was gathered unless they are consecutive, at the end of the call."""
        if not consecutive(frames):  # several writes: one of them may fail after others are done
            self.undo.step(functools.partial(self._scatter, frames, memoryview(self._copy)[: len(data)]))
        self.undo.last(functools.partial(self._scatter, frames, data))

    def gather(self, frames: Index) -> memoryview:
        """Return a copy of the content of ``frames``, joined, valid until the next call; at most CHUNK of them.

        Raises ProgramInterruption(ADDRESSING).
        """
        copy = memoryview(self._copy)[: frames.size << PAGE_SHIFT]
        for at, frame, length in runs(frames, CHUNK):
            with self.storage.view(frame << PAGE_SHIFT, length << PAGE_SHIFT) as view:
                copy[at << PAGE_SHIFT : (at + length) << PAGE_SHIFT] = view
        return copy

    @contextlib.contextmanager
    def _content(self, frames: Index) -> Iterator[memoryview]:
        """Lend the joined content of ``frames``: in place if they are contiguous, otherwise as a copy."""
        if not consecutive(frames):
            yield self.gather(frames)
            return
        with self.storage.view(int(frames[0]) << PAGE_SHIFT, frames.size << PAGE_SHIFT) as view:
            yield view

    def _scatter(self, frames: Index, data: bytearray | memoryview) -> None:
        view = memoryview(data)
        for at, frame, length in runs(frames, CHUNK):
            self.storage.write(frame << PAGE_SHIFT, view[at << PAGE_SHIFT : (at + length) << PAGE_SHIFT])


def _first_of_each(frames: Index) -> NDArray[np.bool_]:
    """Return a mask of the frames that no earlier element names: a host may map two pages to one frame."""
    if np.all(frames[1:] > frames[:-1]):
        return np.ones(frames.size, bool)
    mask = np.zeros(frames.size, bool)
    mask[np.unique(frames, return_index=True)[1]] = True
    return mask
