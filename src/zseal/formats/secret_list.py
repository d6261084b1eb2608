"""The list of a guest's secrets, as the ultravisor and Linux' uvdevice give it: a header and entries, big-endian."""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.add_secret_request import SECRET_ID_SIZE, SecretType
from zseal.formats.layout import Layout, raw, u16, u32

WRAPPING_PATTERN_SIZE = 32
"""Bytes that follow a wrapped key and name the wrapping key (its verification pattern)."""


class ListHeader(Layout, size=0x10):
    """The header of a list, or of one page of it."""

    count: int = u16(0x00, "entries that follow")
    total: int = u16(0x02, "secrets in the store")
    next_index: int = u16(0x04, "index to go on with; 0: there are no more")


class ListEntry(Layout, size=0x30):
    """One stored secret."""

    index: int = u16(0x00)
    type: int = u16(0x02, "secret type, SecretType")
    length: int = u32(0x04, "bytes of the secret as the guest retrieves it")
    secret_id: bytes = raw(0x10, SECRET_ID_SIZE)


ENTRIES_IN_PAGE = (4096 - ListHeader.SIZE) // ListEntry.SIZE


def retrieved_size(kind: SecretType, size: int) -> int:
    """Return the bytes that a guest retrieves of a secret with ``size`` bytes: keys are wrapped."""
    if kind in (SecretType.ASSOCIATION, SecretType.PLAINTEXT):
        return size
    return size + WRAPPING_PATTERN_SIZE


@dataclasses.dataclass(frozen=True)
class SecretList:
    """A list; ``total`` may exceed the number of ``entries`` if it is one page of several."""

    entries: tuple[ListEntry, ...]
    total: int
    next_index: int = 0

    def pack(self) -> bytes:
        """Return header and entries."""
        header = ListHeader(count=len(self.entries), total=self.total, next_index=self.next_index)
        return header.pack() + b"".join(entry.pack() for entry in self.entries)

    @classmethod
    def parse(cls, data: bytes) -> SecretList:
        """Read a list; bytes after it are ignored. Raises FormatError if it is cut off."""
        header = ListHeader.unpack(data)
        if len(data) < ListHeader.SIZE + header.count * ListEntry.SIZE:
            raise FormatError(f"the list of secrets is cut off: it has {header.count} entries")
        entries = (ListEntry.unpack(data, ListHeader.SIZE + ListEntry.SIZE * at) for at in range(header.count))
        return cls(tuple(entries), header.total, header.next_index)
