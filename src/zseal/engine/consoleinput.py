"""Console input that waits for the guest to take it."""

from __future__ import annotations

from collections.abc import Callable

INPUT_LIMIT = 64 << 10
"""The most bytes that may wait while there is room for more."""


class ConsoleInput:
    """Keeps input until it is taken, or until ``close``; notifies those who add it when there is room again.

    It refuses nothing: callers that add repeatedly should wait in between.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._waiting: list[Callable[[], None]] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._data)

    @property
    def data(self) -> bytearray:
        """The input that waits; read only."""
        return self._data

    def add(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Append ``data``, and call ``when_room`` once no more than ``INPUT_LIMIT`` bytes wait, or no longer can."""
        if not self._closed:
            self._data += data
        if when_room is not None:
            self._waiting.append(when_room)
        self._tell()

    def take(self, count: int) -> bytes:
        """Remove and return the first ``count`` bytes, or all if there are fewer."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        self._tell()
        return taken

    def close(self) -> None:
        """Drop the input that waits and any that is added later, because the guest no longer takes it."""
        self._closed = True
        self._data.clear()
        self._tell()

    def _tell(self) -> None:
        if len(self._data) <= INPUT_LIMIT:
            waiting, self._waiting = self._waiting, []
            for when_room in waiting:
                when_room()
