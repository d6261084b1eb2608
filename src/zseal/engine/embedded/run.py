"""One run of an embedded machine: slices in an event loop, from the loaded program to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zseal.engine.embedded.machine import EmbeddedMachine
from zseal.engine.interface import EngineListener, Stop, StopKind


class EmbeddedRun:
    """Executes ``machine``, which is loaded, in the thread of ``loop`` and reports to ``listener``."""

    def __init__(self, machine: EmbeddedMachine, loop: asyncio.AbstractEventLoop, listener: EngineListener) -> None:
        self.machine = machine
        self._loop = loop
        self._listener = listener
        self._next: asyncio.Handle | None = None
        self._paused = False
        self._finished = False

    def schedule(self, delay: float | None = 0.0) -> None:
        """Execute the next slice after ``delay`` s; None: when input arrives."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._paused or self._finished or delay is None:
            return
        self._next = self._loop.call_later(delay, self._slice) if delay else self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        self._next = None
        if self._finished or self._paused:
            return
        try:
            busy = self.machine.run_slice()
        except Exception as error:
            self._listener.failed(error)
            self.finish(Stop(StopKind.LOST, f"{type(error).__name__}: {error}"))
            return
        if self.machine.stop is not None:
            self.finish(self.machine.stop)
        else:
            self.schedule(0.0 if busy else self.machine.seconds_to_next())

    def finish(self, stop: Stop) -> None:
        """End the run; a second call has no effect."""
        if self._finished:
            return
        self._finished = True
        self.machine.sclp.input.close()
        self.schedule(None)
        self._listener.stopped(stop)

    def pause(self) -> None:
        """Execute no more slices."""
        self._paused = True
        self.schedule(None)

    def resume(self) -> None:
        """Go on after a pause."""
        if self._paused:
            self._paused = False
            self.schedule()

    def type(self, data: bytes, when_room: Callable[[], None] | None) -> None:
        """Type ``data``, which wakes a machine that waits."""
        self.machine.sclp.type(data, when_room)
        self.schedule()

    def close(self) -> None:
        """End the run and release everything that the machine used."""
        self.finish(Stop(StopKind.CLOSED))
        self.machine.close()
