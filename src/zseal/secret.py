"""A holder for key material that cannot be printed by accident."""

from __future__ import annotations

import hmac

__all__ = ["Secret"]


class Secret:
    """Bytes that must never reach a log, a repr or a report.

    Comparison takes constant time. ``wipe`` overwrites the buffer; the caller must drop the copies that ``reveal``
    returned.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytearray(data)

    def reveal(self) -> bytes:
        """Return the secret bytes."""
        return bytes(self._data)

    def view(self) -> memoryview:
        """Return a read-only view of the secret bytes: no copy, and zeros once this is wiped."""
        return memoryview(self._data).toreadonly()

    def wipe(self) -> None:
        """Overwrite the held bytes with zeros, keeping their number."""
        self._data[:] = bytes(len(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # mutable: wipe() changes it

    def __repr__(self) -> str:
        return f"Secret({len(self._data)} bytes)"

    def __reduce__(self) -> tuple[type[Secret], tuple[bytes]]:
        raise TypeError("a Secret cannot be pickled")
