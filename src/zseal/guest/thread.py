"""The thread a guest lives in: its event loop, and the way in and out of it for other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from zseal.engine.errors import EngineError

_T = TypeVar("_T")
_STOP_SECONDS = 30.0
_CLOSED = "the guest was closed"


class GuestThread:
    """A thread with an event loop, from ``start`` to ``close``.

    QEMU is tied to this thread: when it ends, for whatever reason, the kernel ends QEMU.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._closed = False

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
            while self._waiting:  # the loop ended before it came to them
                self._waiting.pop().set_exception(EngineError(_CLOSED))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all of the guest's work is done in."""
        return self._loop

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the guest's thread, return what it returns and raise what it raises.

        Raises EngineError if the thread has not begun, has ended, or ends before it comes to ``function``.
        """
        if threading.current_thread() is self._thread:
            return function()
        if self._thread.ident is None and not self._closed:
            raise EngineError("the guest is not started")
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            self._waiting.remove(future)
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._waiting.add(future)  # before the loop has it: whichever way that ends, the future is done
        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise EngineError(_CLOSED) from error
        return future.result()

    def close(self) -> None:
        """End the loop and the thread; no effect the second time."""
        if self._closed:
            return
        self._closed = True
        if not self._thread.is_alive():
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)
