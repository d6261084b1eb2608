"""Storage that the host gives to the ultravisor for its own use: inaccessible until it is returned, cleared."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from zseal.arch.dat import PREFIX_AREA_SIZE
from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE, Storage
from zseal.ultravisor.clearing import clear
from zseal.ultravisor.tables import FrameState, FrameTable, Index, runs
from zseal.ultravisor.undo import Undo


class NotInStorage(Exception):  # noqa: N818 - a finding that becomes the answer of the call
    """Some of the storage offered does not exist."""


class InUse(Exception):  # noqa: N818 - likewise
    """Some of the storage offered is already donated, secure or shared, or is offered twice."""


@dataclasses.dataclass(frozen=True)
class Donation:
    """Frames given by one call."""

    frames: Index

    @property
    def size(self) -> int:
        """The number of bytes."""
        return int(self.frames.size) * PAGE_SIZE


def contiguous(address: int, length: int) -> Index:
    """Return the frames of ``length`` bytes at ``address``."""
    return np.arange(address >> PAGE_SHIFT, -(-(address + length) // PAGE_SIZE), dtype=np.int64)


def holds_prefix(frames: Index, prefixes: tuple[int, ...]) -> bool:
    """Whether a prefix area (8 KiB each, by absolute address) has a frame among ``frames``."""
    return any(bool((frames == frame).any()) for prefix in prefixes for frame in contiguous(prefix, PREFIX_AREA_SIZE))


def _repeated(frames: Index) -> bool:
    """Whether a frame is named twice."""
    ordered = np.sort(frames)
    return bool((ordered[1:] == ordered[:-1]).any())


class DonationLedger:
    """The donations and their donors. A refused donation leaves every frame unchanged."""

    def __init__(self, storage: Storage, frames: FrameTable, undo: Undo) -> None:
        self._storage = storage
        self._undo = undo
        self._frames = frames
        self.total = 0
        """Bytes donated at present."""

    def check(self, frames: Index) -> None:
        """Raise NotInStorage or InUse if ``frames`` could not be donated."""
        if frames.size and (int(frames.min()) < 0 or int(frames.max()) >= self._frames.count):
            raise NotInStorage
        for _, frame, length in runs(frames, self._frames.count):
            try:
                self._storage.view(frame << PAGE_SHIFT, length << PAGE_SHIFT).release()
            except ProgramInterruption:
                raise NotInStorage from None
        if np.any(self._frames.state[frames] != FrameState.NON_SECURE) or _repeated(frames):
            raise InUse

    def donate(self, frames: Index, owner: int) -> Donation:
        """Take ``frames`` from the host; raises as :meth:`check`."""
        self.check(frames)
        self._frames.take(frames, FrameState.DONATED, owner, 0)
        donation = Donation(frames)
        self._undo.fields(self)
        self.total += donation.size
        return donation

    def give_back(self, donation: Donation) -> None:
        """Clear the donated storage and return it to the host."""
        self._frames.release(donation.frames)
        self._undo.fields(self)
        self.total -= donation.size
        for _, frame, length in runs(donation.frames, self._frames.count):
            self._undo.last(functools.partial(clear, self._storage, frame << PAGE_SHIFT, length << PAGE_SHIFT))
