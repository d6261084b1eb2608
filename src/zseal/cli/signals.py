"""The signals that end a program, as one exception: there is an orderly end, which further signals do not disturb."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGQUIT": "quit"}
_PATIENCE = 10.0
"""Seconds that an orderly end may take, in which QEMU has 5 to write out its disks; a later signal counts anew."""


class Signalled(BaseException):
    """The signal ``number`` came; ``exit_code`` is what shells make of it."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number).name])
        self.number = number
        self.exit_code = 128 + number


class _Handler:
    """Raises Signalled for the first signal and does nothing for those that come soon after."""

    def __init__(self) -> None:
        self.came = False
        self._quiet_until = -math.inf
        self._held = False
        self._waiting: Signalled | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if time.monotonic() < self._quiet_until:
            return
        self.be_quiet()
        if not self._held:
            raise Signalled(number)
        self._waiting = Signalled(number)

    def be_quiet(self) -> None:
        """The end has begun."""
        self.came = True
        self._quiet_until = time.monotonic() + _PATIENCE

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raise at the end of the block only."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            raise waiting


_handler = _Handler()


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise Signalled in the block for the first signal that asks the program to end; to be used around all it does.

    Those that were ignored at the start (nohup, jobs in the background) stay so. Once one came, the program is
    at its end: then they are ignored behind the block, where Python would put back what the system does by itself.
    """
    global _handler
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers are for the main thread alone
        return
    handler = _handler = _Handler()
    found = {number: signal.getsignal(number) for number in signal.Signals if number.name in _WORDS}
    before = {number: action for number, action in found.items() if action not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, signal.SIG_IGN if handler.came else action)


def held() -> contextlib.AbstractContextManager[None]:
    """Let signals wait for the end of the block, which must be short: it is not left half done."""
    return _handler.held()


def too_late() -> None:
    """Ignore signals from now on, as after the first: all is done but cleaning up and telling the outcome."""
    _handler.be_quiet()
