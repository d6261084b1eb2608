"""Turns the signals that end a program into one exception, so that it ends in order; further signals do not disturb
that.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGQUIT": "quit"}
_PATIENCE = 10.0
"""Seconds that an orderly end may take; QEMU has 5 of them to write out its disks. A later signal counts again."""


class Signalled(BaseException):
    """The signal ``number`` arrived; ``exit_code`` is the one that shells use for it."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number).name])
        self.number = number
        self.exit_code = 128 + number


class _Handler:
    """Raises Signalled for the first signal and ignores those that arrive soon after."""

    def __init__(self) -> None:
        self.came = False
        self._quiet_until = -math.inf
        self.raised: Signalled | None = None
        self._deferring = False
        self._waiting: Signalled | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if time.monotonic() < self._quiet_until:
            return
        self.be_quiet()
        if self._deferring:
            self._waiting = Signalled(number)
        else:
            self._raise(Signalled(number))

    def _raise(self, signalled: Signalled) -> NoReturn:
        self.raised = signalled
        raise signalled

    def be_quiet(self) -> None:
        """Ignore signals from now on: the end has begun."""
        self.came = True
        self._quiet_until = time.monotonic() + _PATIENCE

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise Signalled only at the end of the block."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._raise(waiting)


_handler = _Handler()


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise Signalled in the block, which is all that the program does, for the first signal that asks it to end.

    Signals that were ignored at the start (nohup, background jobs) stay ignored. Once a signal has arrived, the program
    is at its end: all signals are then ignored after the block too, where Python would restore the system's default.
    """
    global _handler
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can have handlers
        return
    handler = _handler = _Handler()
    found = {number: signal.getsignal(number) for number in signal.Signals if number.name in _WORDS}
    before = {number: action for number, action in found.items() if action not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    except Exception as error:
        # a signal may find Python in C code that puts an exception of its own in place of ours, as importing does
        if handler.raised is not None:
            raise handler.raised from error
        raise
    finally:
        for number, action in before.items():
            signal.signal(number, signal.SIG_IGN if handler.came else action)


def signals_deferred() -> contextlib.AbstractContextManager[None]:
    """Defer signals to the end of the block, which must be short and is never left half done."""
    return _handler.deferred()


def ignore_signals_from_now() -> None:
    """Ignore signals from now on, as after the first: only cleaning up and reporting the result remain."""
    _handler.be_quiet()
