"""Making storage zero without giving memory to what was never written."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from zseal.arch.storage import MIB, Storage


@runtime_checkable
class ClearableStorage(Protocol):
    """Storage that can zero a range by itself, giving the memory behind it back."""

    def clear(self, address: int, length: int) -> None:
        """Make ``length`` bytes at absolute ``address`` zero."""


def clear(storage: Storage, address: int, length: int) -> None:
    """Make ``length`` bytes zero, by the storage's own ``clear`` where it has one."""
    if isinstance(storage, ClearableStorage):
        storage.clear(address, length)
        return
    for at in range(address, address + length, MIB):
        size = min(MIB, address + length - at)
        storage.write(at, bytes(size))
