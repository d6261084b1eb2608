"""The ultravisor's event log: events in order, without secrets."""

from __future__ import annotations

import collections
import dataclasses
import enum
import threading
import time
from collections.abc import Callable

from zseal.logs import logger

_LOG = logger(__name__)


class Level(enum.IntEnum):
    """How much an event matters."""

    DEBUG = 10
    """Every page that moves, every call."""
    INFO = 20
    """The life cycle of machine, configurations and CPUs."""
    WARNING = 30
    """A refused call."""
    ERROR = 40
    """A page that was tampered with, an image that failed verification."""


@dataclasses.dataclass(frozen=True)
class UvEvent:
    """One entry: its number in the log, seconds since the log began, level, the event and its object."""

    sequence: int
    seconds: float
    level: Level
    name: str
    details: dict[str, int | str]

    @property
    def text(self) -> str:
        """The event and its object, on one line."""
        details = (
            f"{key}={value:#x}" if isinstance(value, int) else f"{key}={value}" for key, value in self.details.items()
        )
        return " ".join((self.name, *details))

    def __str__(self) -> str:
        return f"{self.seconds:10.6f} {self.level.name.lower():7} {self.text}"


class EventLog:
    """Keeps the last ``capacity`` events of at least ``level``, and passes each on to ``listener``.

    Any thread may add and read.
    """

    def __init__(
        self, *, level: Level = Level.INFO, capacity: int = 10_000, listener: Callable[[UvEvent], None] | None = None
    ) -> None:
        self.level = level
        self._events: collections.deque[UvEvent] = collections.deque(maxlen=capacity)
        self._listener = listener
        self._start = time.monotonic()
        self._count = 0
        self._lock = threading.Lock()

    def add(self, level: Level, name: str, **details: int | str) -> None:
        """Record an event."""
        if level < self.level:
            return
        with self._lock:
            event = UvEvent(self._count, time.monotonic() - self._start, level, name, details)
            self._count += 1
            self._events.append(event)
        _LOG.debug("%s", event.text)
        if self._listener is not None:
            self._listener(event)

    def events(self, *, level: Level = Level.DEBUG) -> list[UvEvent]:
        """Return the kept events of at least ``level``, oldest first."""
        with self._lock:
            kept = list(self._events)
        return [event for event in kept if event.level >= level]
