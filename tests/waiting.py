"""Waiting for what comes, however long a busy computer takes: only pytest's own time limit ends a test that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds for a limit that has to be given: far more than anything takes, so that it ends only what hangs."""


def wait_until(condition: Callable[[], T], pause: float = 0.02) -> T:
    """Return the condition's first answer that counts as true; ask every ``pause`` seconds."""
    while not (answer := condition()):
        time.sleep(pause)
    return answer


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that only waits to be collected by its parent has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for the signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
