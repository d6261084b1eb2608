"""The free frames of a model host's storage."""

from __future__ import annotations

from zseal.errors import ZsealError


class OutOfFramesError(ZsealError):
    """The host has too few free frames left."""


class FrameAllocator:
    """Hands out 4 KiB frames from a range of frame numbers. Only one thread at a time may use it."""

    def __init__(self, first: int, end: int) -> None:
        self._next = first
        self._end = end
        self._free: dict[tuple[int, int], list[int]] = {}
        self.used = 0
        """Frames handed out at present."""

    def take(self, count: int = 1, *, align: int = 1) -> int:
        """Return the first of ``count`` consecutive frames, a multiple of ``align``; raises OutOfFramesError."""
        known = self._free.get((count, align))
        if known:
            self.used += count
            return known.pop()
        first = -(-self._next // align) * align
        if first + count > self._end:
            raise OutOfFramesError(f"the model host has no {count} free frames left", hint="give it more memory")
        for frame in range(self._next, first):
            self._free.setdefault((1, 1), []).append(frame)
        self._next = first + count
        self.used += count
        return first

    def give_back(self, first: int, count: int = 1, *, align: int = 1) -> None:
        """Take back frames, with the same ``count`` and ``align`` they were handed out with."""
        self._free.setdefault((count, align), []).append(first)
        self.used -= count
