"""The split virtqueue of virtio 1.x: descriptor table, available ring, indirect tables.

All fields are little-endian (a device behind a protected guest is always "modern"), which is why the structures here
are read with ``struct`` and not with the big-endian layouts of the rest. Source: Virtual I/O Device (VIRTIO)
Version 1.2, section 2.7.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass

DESCRIPTOR_SIZE = 16
MAX_QUEUE_SIZE = 32768
_DESCRIPTOR = struct.Struct("<QIHH")
_U16 = struct.Struct("<H")

Read = Callable[[int, int], bytes]
"""Reads ``length`` bytes at a guest address."""


class DescriptorFlag(enum.IntFlag):
    """Flags of a descriptor."""

    NEXT = 1  # another descriptor of this chain follows at ``next``
    WRITE = 2  # the device writes the buffer; otherwise it reads it
    INDIRECT = 4  # the buffer is itself a table of descriptors


@dataclass(frozen=True)
class Descriptor:
    """One buffer of a request: ``length`` bytes at guest address ``address``."""

    address: int
    length: int
    flags: DescriptorFlag
    next: int

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Descriptor:
        """Read the 16 bytes at ``offset``."""
        address, length, flags, following = _DESCRIPTOR.unpack_from(data, offset)
        return cls(address, length, DescriptorFlag(flags & 7), following)

    def pack(self) -> bytes:
        """Return the 16 bytes."""
        return _DESCRIPTOR.pack(self.address, self.length, self.flags, self.next)


@dataclass(frozen=True)
class QueueLayout:
    """Where one queue lies in guest storage: ``size`` entries (a power of two), and three guest addresses."""

    size: int
    descriptors: int
    available: int
    used: int

    def areas(self) -> list[tuple[str, int, int]]:
        """Return the queue's own structures as (name, address, length in bytes), event fields included."""
        return [
            ("descriptor table", self.descriptors, DESCRIPTOR_SIZE * self.size),
            ("available ring", self.available, 6 + 2 * self.size),
            ("used ring", self.used, 6 + 8 * self.size),
        ]

    def available_index(self, read: Read) -> int:
        """Return the driver's running 16-bit count of chains it made available."""
        return int(_U16.unpack(read(self.available + 2, 2))[0])

    def heads(self, read: Read, first: int, count: int) -> list[int]:
        """Return the first descriptor number of ``count`` chains from running index ``first`` on."""
        ring = read(self.available + 4, 2 * self.size)
        return [int(_U16.unpack_from(ring, 2 * ((first + i) % self.size))[0]) for i in range(count)]
