"""The split virtqueue of virtio: descriptor table, available ring, used ring, indirect tables.

Fields are little-endian, but for a legacy device (one without VIRTIO_F_VERSION_1), which has its guest's byte order.
Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2.6 and 2.7.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DESCRIPTOR_SIZE = 16
MAX_QUEUE_SIZE = 32768
MAX_CHAIN = 1024
"""Descriptors of one chain that QEMU takes at most (VIRTQUEUE_MAX_SIZE)."""

Read = Callable[[int, int], bytes]
"""Reads ``length`` bytes at a guest address."""


class DescriptorFlag(enum.IntFlag):
    """Flags of a descriptor."""

    NEXT = 1  # another descriptor of this chain follows at ``next``
    WRITE = 2  # the device writes the buffer; otherwise it reads it
    INDIRECT = 4  # the buffer is itself a table of descriptors


_NEXT, _WRITE, _INDIRECT = (flag.value for flag in DescriptorFlag)


@dataclass(frozen=True)
class Descriptor:
    """One buffer of a request: ``length`` bytes at guest address ``address``."""

    address: int
    length: int
    flags: int
    """See DescriptorFlag; a plain number, because there are many of them."""
    next: int

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0, *, big_endian: bool = False) -> Descriptor:
        """Read the 16 bytes at ``offset``."""
        return cls(*struct.unpack_from(">QIHH" if big_endian else "<QIHH", data, offset))

    def pack(self, *, big_endian: bool = False) -> bytes:
        """Return the 16 bytes."""
        layout = ">QIHH" if big_endian else "<QIHH"
        return struct.pack(layout, self.address, self.length, int(self.flags), self.next)

    @property
    def has_next(self) -> bool:
        """Whether the chain goes on at ``next``."""
        return bool(self.flags & _NEXT)

    @property
    def device_writes(self) -> bool:
        """Whether the device writes the buffer; otherwise it reads it."""
        return bool(self.flags & _WRITE)

    @property
    def indirect(self) -> bool:
        """Whether the buffer is a table of descriptors."""
        return bool(self.flags & _INDIRECT)


@dataclass(frozen=True)
class Buffers:
    """The buffers of many descriptors at once: one entry each, in the order of the chain."""

    numbers: npt.NDArray[np.int64]
    """The descriptors' numbers in their table."""
    addresses: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]
    writes: npt.NDArray[np.bool_]
    """Whether the device writes it."""


def sequential_chain(table: bytes, *, big_endian: bool = False) -> Buffers | None:
    """Return the buffers of an indirect ``table`` whose chain is simply its descriptors from 0 on.

    That is how Linux lays them out; None for any other order, which has to be followed one by one.
    """
    order = ">" if big_endian else "<"
    entry = np.dtype(
        [("address", order + "u8"), ("length", order + "u4"), ("flags", order + "u2"), ("next", order + "u2")]
    )
    entries = np.frombuffer(table, entry)
    goes_on = entries["flags"] & _NEXT != 0
    last = int(np.argmin(goes_on))  # the first one that ends the chain
    if goes_on[last] or np.any(entries["flags"][: last + 1] & _INDIRECT):
        return None
    if np.any(entries["next"][:last] != np.arange(1, last + 1)):
        return None
    chain = entries[: last + 1]
    return Buffers(
        np.arange(last + 1),
        chain["address"].astype(np.uint64),
        chain["length"].astype(np.uint64),
        chain["flags"] & _WRITE != 0,
    )


@dataclass(frozen=True)
class QueueLayout:
    """Where one queue lies in guest storage: ``size`` entries, and three guest addresses."""

    size: int
    descriptors: int
    available: int
    used: int
    big_endian: bool = False

    @property
    def _u16(self) -> str:
        return ">H" if self.big_endian else "<H"

    def areas(self) -> list[tuple[str, int, int]]:
        """Return the queue's own structures as (name, address, length in bytes), event fields included."""
        return [
            ("descriptor table", self.descriptors, DESCRIPTOR_SIZE * self.size),
            ("available ring", self.available, 6 + 2 * self.size),
            ("used ring", self.used, 6 + 8 * self.size),
        ]

    def available_index(self, read: Read) -> int:
        """Return the driver's running 16-bit count of chains it made available."""
        return int(struct.unpack(self._u16, read(self.available + 2, 2))[0])

    def heads(self, read: Read, first: int, count: int) -> list[int]:
        """Return the first descriptor number of ``count`` chains from running index ``first`` on."""
        ring = read(self.available + 4, 2 * self.size)
        return [int(struct.unpack_from(self._u16, ring, 2 * ((first + i) % self.size))[0]) for i in range(count)]

    def used_index(self, read: Read) -> int:
        """Return the device's running 16-bit count of chains it gave back."""
        return int(struct.unpack(self._u16, read(self.used + 2, 2))[0])

    def finished(self, read: Read, first: int, count: int) -> list[tuple[int, int]]:
        """Return (first descriptor number, bytes written) of ``count`` chains given back from ``first`` on."""
        entry = struct.Struct(">II" if self.big_endian else "<II")
        at = self.used + 4
        found = [entry.unpack(read(at + entry.size * ((first + i) % self.size), entry.size)) for i in range(count)]
        return [(int(head), int(length)) for head, length in found]

    def descriptor(self, read: Read, number: int) -> Descriptor:
        """Return descriptor ``number`` (below ``size``) of the table."""
        data = read(self.descriptors + DESCRIPTOR_SIZE * number, DESCRIPTOR_SIZE)
        return Descriptor.unpack(data, big_endian=self.big_endian)
