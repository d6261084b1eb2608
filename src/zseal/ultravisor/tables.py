"""The two tables of secure storage: one entry for each host frame, and one for each guest page.

Both are plain arrays, at most 38 bytes for each page in total (0.93 % of 4096). The operating system gives them memory
only as they are touched, so a large guest costs only what it uses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zseal.arch.storage import PAGE_SHIFT
from zseal.ultravisor.undo import Undo

Index = NDArray[np.int64]
States = NDArray[np.uint8]
Counters = NDArray[np.uint64]
NO_FRAME = -1
_PIECE = 1 << 20
MACHINE = 0
"""The owner that represents the ultravisor itself."""


class FrameState(enum.IntEnum):
    """The state of a 4 KiB frame of host absolute storage."""

    NON_SECURE = 0
    DONATED = 1
    SECURE = 2
    SHARED = 3
    PINNED = 4


class PageState(enum.IntEnum):
    """The state of a 4 KiB page of a guest."""

    UNUSED = 0
    """Never touched: it will read as zeros."""
    PRIVATE = 1
    """In a secure frame."""
    SHARED = 2
    """In a shared (or pinned) frame."""
    EXPORTED = 3
    """Encrypted, with the host; its integrity value is in the table."""
    SHARED_OUT = 4
    """Shared and plain, with the host."""
    LOST = 5
    """Destroyed by the host while the guest lived."""


# Plain numbers for the paths that take one page at a time: looking up a member of an enumeration, and comparing numpy's
# numbers with it, costs more there than everything else.
NON_SECURE, DONATED, SECURE, SHARED_FRAME, PINNED = (state.value for state in FrameState)
UNUSED, PRIVATE, SHARED, EXPORTED, SHARED_OUT, LOST = (state.value for state in PageState)


def blank_states(pages: int) -> States:
    """Return an array for the states of a guest with ``pages`` pages, all UNUSED."""
    return np.zeros(pages, np.uint8)


class FrameTable:
    """The frame table: for each frame its state and, unless it is non-secure, its owner and page.

    Entries are changed by the methods only, so that ``undo`` knows.
    """

    def __init__(self, storage_size: int, undo: Undo) -> None:
        self._undo = undo
        self.count = storage_size >> PAGE_SHIFT
        self.state = np.zeros(self.count, np.uint8)
        self.owner = np.zeros(self.count, np.uint32)
        self.page = np.zeros(self.count, np.uint32)

    def take(self, frames: Index, state: int, owner: int, pages: Index | int) -> None:
        """Give ``frames`` with ``pages`` to ``owner``; ``state`` is a FrameState."""
        where = _where(frames)
        for array in (self.state, self.owner, self.page):
            self._undo.array(array, where)
        self.state[where] = state
        self.owner[where] = owner
        self.page[where] = pages

    def change(self, frames: Index | int, state: int) -> None:
        """Give ``frames``, which stay with their owner, another state."""
        where = frames if isinstance(frames, int) else _where(frames)
        self._undo.array(self.state, where)
        self.state[where] = state

    def release(self, frames: Index) -> None:
        """Make ``frames`` ordinary again."""
        self.take(frames, FrameState.NON_SECURE, MACHINE, 0)


class PageTable:
    """The page table of a guest: for each page its state, its frame while resident, and the values that check its last
    export.

    ``blank`` allocates the states. Entries are changed by the methods only, so that ``undo`` knows.
    """

    def __init__(self, pages: int, undo: Undo, blank: Callable[[int], States] = blank_states) -> None:
        self._undo = undo
        self.count = pages
        self.state = blank(pages)
        self.frame = np.zeros(pages, np.uint32)
        self.counter = np.zeros(pages, np.uint64)
        self.tag = np.zeros((pages, 2), np.uint64)

    def settle(self, pages: Index, frames: Index, state: int) -> None:
        """Make ``pages`` resident in ``frames``; ``state`` is a PageState."""
        where = _where(pages)
        self._undo.array(self.state, where)
        self._undo.array(self.frame, where)
        self.state[where] = state
        self.frame[where] = frames

    def change(self, pages: Index | int, state: int | States) -> None:
        """Give ``pages`` another state, or one each."""
        where = pages if isinstance(pages, int) else _where(pages)
        self._undo.array(self.state, where)
        self.state[where] = state

    def count_export(self, pages: Index, counters: Counters) -> None:
        """Note that ``counters`` are used up."""
        where = _where(pages)
        self._undo.array(self.counter, where)
        self.counter[where] = counters

    def seal(self, pages: Index, counters: Counters, tags: bytes) -> None:
        """Note that ``pages`` left, and what they must look like when they come back."""
        self.count_export(pages, counters)
        where = _where(pages)
        self._undo.array(self.tag, where)
        self.tag[where] = np.frombuffer(tags, np.uint64).reshape(-1, 2)
        self.change(pages, EXPORTED)


def consecutive(index: Index) -> bool:
    """Whether the elements of ``index``, at least one, follow each other."""
    return index.size == 1 or bool(np.all(index[1:] - index[:-1] == 1))


def _where(index: Index) -> Index | slice:
    """Return an index of the same entries: a slice if possible, which numpy fills many times as fast."""
    return slice(int(index[0]), int(index[-1]) + 1) if index.size and consecutive(index) else index


def count_states(states: States, kinds: int) -> list[int]:
    """Return how many of ``states`` are 0, 1 … ``kinds`` - 1."""
    # in pieces, because numpy counts in a copy of 8 bytes for each
    found = np.zeros(kinds, np.int64)
    for at in range(0, states.size, _PIECE):
        found += np.bincount(states[at : at + _PIECE], minlength=kinds)
    counts: list[int] = found.tolist()
    return counts


def runs(frames: Index, limit: int) -> list[tuple[int, int, int]]:
    """Cut an array of frames into (position, first frame, length) where they are consecutive, at most ``limit``."""
    if not frames.size:
        return []
    breaks = np.flatnonzero(np.diff(frames) != 1) + 1
    found = []
    for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), frames.size], strict=True):
        found += [(at, int(frames[at]), min(limit, end - at)) for at in range(begin, end, limit)]
    return found
