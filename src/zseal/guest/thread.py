"""The thread in which a guest runs: how other threads and event loops reach it, and its end.

A guest that still runs when the interpreter exits is ended first: otherwise its thread would go on while Python takes
down what it uses, and freeing a running emulator crashes.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
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
            while self._waiting:  # the loop ended before it reached them
                self._waiting.pop().set_exception(EngineError(_CLOSED))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which all of the guest's work is done."""
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

        Raises EngineError if the thread has not begun, has ended, or ends before it reaches ``function``.
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

        self._waiting.add(future)  # before the loop has it, so that the future is done however that ends
        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise EngineError(_CLOSED) from error
        return future.result()

    def close(self) -> None:
        """End the loop and the thread; a second call has no effect."""
        if self._closed:
            return
        self._closed = True
        if not self._thread.is_alive():
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)


async def finish_despite_cancel(step: Callable[[], _T]) -> _T:
    """Return what ``step`` returns and raise what it raises; if cancelled meanwhile, raise that once it is done.

    It has a thread of its own, because those of the loop's executor may all be waiting for the effect of ``step``.
    """
    executor = concurrent.futures.ThreadPoolExecutor(1, "zseal-step")
    done = asyncio.get_running_loop().run_in_executor(executor, step)
    executor.shutdown(wait=False)
    cancelled = None
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from done.exception()
    return done.result()


_ends: set[Callable[[], None]] = set()


def end_at_exit(end: Callable[[], None]) -> None:
    """Call ``end`` at the interpreter's exit, in this process, unless it is forgotten before."""
    _ends.add(end)


def forget(end: Callable[[], None]) -> None:
    """Undo :func:`end_at_exit`; a second call has no effect."""
    _ends.discard(end)


def _end_all() -> None:
    with contextlib.ExitStack() as steps:
        for end in tuple(_ends):
            steps.callback(end)


# Unicorn frees its machines with weakref.finalize, which registers its hook with the first object of all. The hook
# registered last is called first, so make an object before registering ours.
weakref.finalize(_end_all, lambda: None).detach()
atexit.register(_end_all)
os.register_at_fork(after_in_child=_ends.clear)
