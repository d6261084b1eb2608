"""Makes storage zero without allocating memory for pages that were never written."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from zseal.arch.storage import MIB, Storage


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
    for at in range(address, address + length, MIB):
        size = min(MIB, address + length - at)
        storage.write(at, bytes(size))
