"""Ends the guests that still run when the interpreter exits.

Their threads would go on while Python takes down what they use: an emulator that is freed while it executes is a crash.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Callable

_ends: set[Callable[[], None]] = set()


def end_at_exit(end: Callable[[], None]) -> None:
    """Have ``end`` called at the interpreter's exit, in the process that this is, unless it is forgotten before."""
    _ends.add(end)


def forget(end: Callable[[], None]) -> None:
    """Take back :func:`end_at_exit`; no effect the second time."""
    _ends.discard(end)


def _end_all() -> None:
    with contextlib.ExitStack() as steps:
        for end in tuple(_ends):
            steps.callback(end)


# Unicorn frees its machines by weakref.finalize, whose own hook is registered with the first object of all. What is
# registered last is called first, so let there be one before our hook is registered.
weakref.finalize(_end_all, lambda: None).detach()
atexit.register(_end_all)
os.register_at_fork(after_in_child=_ends.clear)
