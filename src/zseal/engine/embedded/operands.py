"""Operands of instructions that this engine interprets."""

from __future__ import annotations

from collections.abc import Callable

from zseal.arch.dat import CpuMemory
from zseal.arch.storage import PAGE_SIZE, Storage


class OwnMemory:
    """Operands of a CPU's instruction (``zseal.arch.storage.OperandMemory``): pages are touched first."""

    def __init__(self, touch: Callable[[int], None], view: CpuMemory, memory: Storage) -> None:
        self._touch_page = touch
        self._view = view
        self._memory = memory

    def _touch(self, address: int, length: int, *, write: bool) -> None:
        for page in range(address & ~(PAGE_SIZE - 1), address + length, PAGE_SIZE):
            self._touch_page(self._view.absolute(max(page, address), write=write))

    @property
    def designation(self) -> int | None:
        """The address-space-control element in use; None with DAT off."""
        return self._view.designation

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes."""
        self._touch(address, length, write=False)
        return self._view.read(address, length)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``, all or nothing."""
        self._touch(address, len(data), write=True)
        self._view.write(address, data)

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access to all ``length`` bytes would raise."""
        self._view.check(address, length, write=write)

    def absolute(self, address: int, *, write: bool = False) -> int:
        """Return the absolute address of the byte at ``address``."""
        return self._view.absolute(address, write=write)
