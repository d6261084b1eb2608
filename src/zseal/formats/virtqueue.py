"""The split virtqueue of virtio: descriptor table, available ring, used ring, indirect tables.

Fields are little-endian, except for a legacy device (one without VIRTIO_F_VERSION_1), which uses its guest's byte
order. Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2.6 and 2.7.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

DESCRIPTOR_SIZE = 16
MAX_QUEUE_SIZE = 32768
MAX_CHAIN = 1024
"""The most descriptors in one chain that QEMU accepts (VIRTQUEUE_MAX_SIZE)."""

Read = Callable[[int, int], bytes]
"""Reads ``length`` bytes at a guest address."""


class DescriptorFlag(enum.IntFlag):
    """Flags of a descriptor."""

    NEXT = 1  # another descriptor of this chain follows at ``next``
    WRITE = 2  # the device writes the buffer; otherwise it reads it
    INDIRECT = 4  # the buffer is itself a table of descriptors


_NEXT, _WRITE, _INDIRECT = (flag.value for flag in DescriptorFlag)
_LITTLE, _BIG = struct.Struct("<QIHH"), struct.Struct(">QIHH")


class Descriptor(NamedTuple):
    """One buffer of a request: ``length`` bytes at guest address ``address``. A tuple, because there are many."""

    address: int
    length: int
    flags: int
    """See DescriptorFlag."""
    next: int

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0, *, big_endian: bool = False) -> Descriptor:
        """Read the 16 bytes at ``offset``."""
        return cls._make((_BIG if big_endian else _LITTLE).unpack_from(data, offset))

    def pack(self, *, big_endian: bool = False) -> bytes:
        """Return the 16 bytes."""
        return (_BIG if big_endian else _LITTLE).pack(*self)

    @property
    def has_next(self) -> bool:
        """Whether the chain continues at ``next``."""
        return self.flags & _NEXT != 0

    @property
    def device_writes(self) -> bool:
        """Whether the device writes the buffer; otherwise it reads it."""
        return self.flags & _WRITE != 0

    @property
    def indirect(self) -> bool:
        """Whether the buffer is a table of descriptors."""
        return self.flags & _INDIRECT != 0


@dataclass(frozen=True)
class Buffers:
    """The buffers of a whole chain, one entry each; descriptor numbers count from 0."""

    addresses: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]
    writes: npt.NDArray[np.bool_]
    """Whether the device writes it."""


def sequential_chain(table: bytes, *, big_endian: bool = False) -> Buffers | None:
    """Return the buffers of a non-empty indirect ``table`` whose chain is simply its descriptors from 0 on.

    Linux lays them out so. Returns None for any other order, which has to be followed one by one.
    """
    entries = np.frombuffer(table, _BIG_ENTRY if big_endian else _LITTLE_ENTRY)
    flags = entries["flags"]
    goes_on = flags & _NEXT != 0
    last = int(goes_on.argmin())  # the first one that ends the chain
    if goes_on[last] or (flags[: last + 1] & _INDIRECT).any():
        return None
    if (entries["next"][:last] != np.arange(1, last + 1)).any():
        return None
    chain = entries[: last + 1]
    return Buffers(
        chain["address"].astype(np.uint64), chain["length"].astype(np.uint64), flags[: last + 1] & _WRITE != 0
    )


def _entry(order: str) -> np.dtype[np.void]:
    fields = [("address", "u8"), ("length", "u4"), ("flags", "u2"), ("next", "u2")]
    return np.dtype([(name, order + kind) for name, kind in fields])


_LITTLE_ENTRY, _BIG_ENTRY = _entry("<"), _entry(">")


@dataclass(frozen=True)
class QueueLayout:
    """The place of one queue in guest storage: ``size`` entries, and three guest addresses."""

    size: int
    descriptors: int
    available: int
    used: int
    big_endian: bool = False

    @property
    def _order(self) -> Literal["little", "big"]:
        return "big" if self.big_endian else "little"

    def areas(self) -> list[tuple[str, int, int]]:
        """Return the queue's own structures as (name, address, length in bytes), event fields included."""
        return [
            ("descriptor table", self.descriptors, DESCRIPTOR_SIZE * self.size),
            ("available ring", self.available, 6 + 2 * self.size),
            ("used ring", self.used, 6 + 8 * self.size),
        ]

    def available_index(self, read: Read) -> int:
        """Return the driver's running 16-bit count of chains that it made available."""
        return int.from_bytes(read(self.available + 2, 2), self._order)

    def heads(self, read: Read, first: int, count: int) -> list[int]:
        """Return the first descriptor number of ``count`` chains from running index ``first`` on."""
        ring, size, order = self.available + 4, self.size, self._order
        return [int.from_bytes(read(ring + 2 * ((first + i) % size), 2), order) for i in range(count)]

    def used_index(self, read: Read) -> int:
        """Return the device's running 16-bit count of chains that it gave back."""
        return int.from_bytes(read(self.used + 2, 2), self._order)

    def finished(self, read: Read, first: int, count: int) -> list[tuple[int, int]]:
        """Return (first descriptor number, bytes written) of ``count`` chains given back from ``first`` on."""
        ring, size, order = self.used + 4, self.size, self._order
        entries = [read(ring + 8 * ((first + i) % size), 8) for i in range(count)]
        return [(int.from_bytes(entry[:4], order), int.from_bytes(entry[4:], order)) for entry in entries]

    def descriptor(self, read: Read, number: int) -> Descriptor:
        """Return descriptor ``number`` (below ``size``) of the table."""
        data = read(self.descriptors + DESCRIPTOR_SIZE * number, DESCRIPTOR_SIZE)
        return Descriptor.unpack(data, big_endian=self.big_endian)
