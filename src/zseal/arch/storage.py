"""The interface through which all other code sees storage by absolute address."""

from __future__ import annotations

from typing import Protocol

PAGE_SIZE = 4096
"""Bytes in a page."""
PAGE_SHIFT = 12
"""An address shifted right by this is the number of its page."""
MIB = 1 << 20
"""Bytes in a mebibyte."""


class Storage(Protocol):
    """Byte-addressable absolute storage of ``size`` bytes; all addresses are absolute.

    ``view`` gives direct access to the bytes without a copy. Accesses outside raise ProgramInterruption(ADDRESSING).
    This level applies no protection: the ultravisor decides who may see which page.
    """

    @property
    def size(self) -> int:
        """The number of bytes, a multiple of 4096."""

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes."""

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``."""

    def view(self, address: int, length: int) -> memoryview:
        """Return a writable view of ``length`` bytes; the caller drops it before the storage is closed."""


class OperandMemory(Protocol):
    """Storage as one instruction sees it: logical addresses, translated and checked as by its CPU.

    A CPU with DAT off gives real addresses; with DAT on, a UVC's operands are in the home space (CR13). Accesses that
    the CPU could not make raise ProgramInterruption; a write that fails stores nothing.
    """

    @property
    def designation(self) -> int | None:
        """The address-space-control element (ASCE) that addresses are translated with; None with DAT off."""

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes, whose pages may be anywhere in absolute storage."""

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``, all or nothing."""

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access to all ``length`` bytes would raise, without making it."""
