"""The events of a guest's run, with types."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from zseal.engine.interface import Console, Milestone
from zseal.guest.outcome import Result
from zseal.hypervisor.vmm import Refusal

EVENT_LIMIT = 100_000
"""Events kept for a reader that does not keep up; the oldest go first."""
OUTPUT_LIMIT = 64 << 20
"""Bytes of console output kept in them."""


@dataclasses.dataclass(frozen=True)
class Event:
    """An event ``seconds`` after the start."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Started(Event):
    """The machine was created; its CPUs are about to run."""


@dataclasses.dataclass(frozen=True)
class Reached(Event):
    """The boot came to a milestone."""

    milestone: Milestone


@dataclasses.dataclass(frozen=True)
class Protected(Event):
    """The image was verified: the guest runs protected from now on."""


@dataclasses.dataclass(frozen=True)
class StartRefused(Event):
    """The ultravisor refused to protect the guest, which gets the answer and decides what to do."""

    refusal: Refusal


@dataclasses.dataclass(frozen=True)
class Reset(Event):
    """The machine is reset and boots its image again."""


@dataclasses.dataclass(frozen=True)
class IoViolation(Event):
    """The I/O audit found a request that names pages the guest does not share; reported once if it recurs."""

    message: str


@dataclasses.dataclass(frozen=True)
class ConsoleOutput(Event):
    """The guest wrote ``data``."""

    console: Console
    data: bytes


@dataclasses.dataclass(frozen=True)
class Ended(Event):
    """The run is over."""

    result: Result


class EventStream:
    """Events from the guest's thread to any number of readers; each sees all events that are kept."""

    def __init__(self) -> None:
        self._events: collections.deque[Event] = collections.deque()
        self._output = 0  # bytes in them
        self._count = 0
        self._end: Ended | None = None
        self._changed = threading.Condition()
        self._followers: tuple[Callable[[Event], None], ...] = ()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def follow(self, follower: Callable[[Event], None]) -> None:
        """Call ``follower`` with each event from now on, in the guest's thread; it must not block or raise."""
        with self._changed:
            self._followers = (*self._followers, follower)

    def _leave(self, follower: Callable[[Event], None]) -> None:
        with self._changed:
            self._followers = tuple(each for each in self._followers if each is not follower)

    def add(self, event: Event) -> None:
        """Append ``event``, wake the readers and call the followers."""
        with self._changed:
            self._events.append(event)
            self._output += _output_of(event)
            while len(self._events) > EVENT_LIMIT or self._output > OUTPUT_LIMIT:
                self._output -= _output_of(self._events.popleft())
            self._count += 1
            if isinstance(event, Ended):
                self._end = event
            self._changed.notify_all()
        for follower in self._followers:
            follower(event)

    def read(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events until the end of the run; stops early if none arrives for ``timeout`` s."""
        position = 0
        while True:
            new, position = self._next(position, timeout)
            yield from new
            if not new or isinstance(new[-1], Ended):
                return

    async def read_async(self) -> AsyncIterator[Event]:
        """Yield events until the end of the run in the caller's event loop; no thread waits for them."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        told = False  # a busy loop is notified once, not for each event

        def tell(_event: Event) -> None:
            nonlocal told
            if not told:
                told = True
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(changed.set)

        self.follow(tell)
        try:
            position = 0
            while True:
                await asyncio.sleep(0)  # a guest that writes all the time must not keep the loop from other work
                changed.clear()
                told = False  # before the check: later events notify again
                new, position = self._next(position, 0.0)
                for event in new:
                    yield event
                if not new:
                    await changed.wait()
                elif isinstance(new[-1], Ended):
                    return
        finally:
            self._leave(tell)

    def read_until(self, timeout: float) -> Iterator[Event]:
        """Yield events until the end of the run, or for ``timeout`` s in total."""
        position = 0
        limit = time.monotonic() + timeout
        while (left := limit - time.monotonic()) > 0:
            new, position = self._next(position, left)
            yield from new
            if not new or isinstance(new[-1], Ended):
                return

    def _next(self, position: int, timeout: float | None) -> tuple[list[Event], int]:
        """Wait for events after ``position``; return them, none after ``timeout`` s, and the new position."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > position, timeout)
            kept = self._count - len(self._events)
            return list(itertools.islice(self._events, max(0, position - kept), None)), self._count

    def wait_for_end(self, timeout: float | None) -> Result | None:
        """Wait for the end of the run, at most ``timeout`` s; return its result."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, timeout)
            return self._end.result if self._end is not None else None


def _output_of(event: Event) -> int:
    """Return how many bytes of console output ``event`` has."""
    return len(event.data) if isinstance(event, ConsoleOutput) else 0
