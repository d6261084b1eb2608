"""What a program with an event loop does to a guest that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


async def to_its_end(step: Callable[[], _T]) -> _T:
    """Return what ``step`` returns and raise what it raises; cancelled meanwhile, raise that once it is done.

    It has a thread of its own: those of the loop's executor may all be waiting for what ``step`` brings about.
    """
    executor = ThreadPoolExecutor(1, "zseal-step")
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
