"""Makes storage zero without allocating memory for pages that were never written."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from zseal.arch.storage import Storage


@runtime_checkable
class ClearableStorage(Protocol):
    """Storage that can zero a range by itself and release its memory."""

    def clear(self, address: int, length: int) -> None:
        """Make ``length`` bytes at absolute ``address`` zero."""


def clear(storage: Storage, address: int, length: int) -> None:
    """Make ``length`` bytes zero, with the storage's own ``clear`` if it has one."""
    if isinstance(storage, ClearableStorage):
        storage.clear(address, length)
        return
    with storage.view(address, length) as view:
        np.frombuffer(view, np.uint8)[:] = 0
