"""What is typed at a guest's console until the guest takes it."""

from __future__ import annotations

from collections.abc import Callable

INPUT_LIMIT = 64 << 10
"""Bytes that wait at most before there is room for more."""


class ConsoleInput:
    """Keeps all that is added until it is taken, or until ``close``; tells those who add it when there is room again.

    Nothing is refused: whoever adds more than once is to wait in between.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._waiting: list[Callable[[], None]] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._data)

    @property
    def data(self) -> bytearray:
        """What waits, to be looked at only."""
        return self._data

    def add(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Append ``data``, and call ``when_room`` once no more than ``INPUT_LIMIT`` bytes wait, or none ever will."""
        if not self._closed:
            self._data += data
        if when_room is not None:
            self._waiting.append(when_room)
        self._tell()

    def take(self, count: int) -> bytes:
        """Remove and return the first ``count`` bytes, or all there are."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        self._tell()
        return taken

    def close(self) -> None:
        """Drop what waits, and what is added from now on: nobody takes it."""
        self._closed = True
        self._data.clear()
        self._tell()

    def _tell(self) -> None:
        if len(self._data) <= INPUT_LIMIT:
            waiting, self._waiting = self._waiting, []
            for when_room in waiting:
                when_room()
