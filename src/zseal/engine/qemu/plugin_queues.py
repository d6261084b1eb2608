"""What zseal and the plugin in QEMU share of a guest's virtio queues, so that plain requests need not wait for zseal.

Whenever the guest notifies a device the plugin (``native/qemu_plugin/queues.c``) looks at the queues that zseal
published. If all that is new there lies in shared pages and looks as usual, the plugin records it and lets the guest go
on; else it asks, as it does while no queues are published. When asked, zseal drains the records first and publishes the
queues again when it is done.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import struct
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zseal.errors import InputError
from zseal.formats.virtqueue import QueueLayout

QUEUES = 32
"""Queues that the plugin looks at, at most: of a guest with more it looks at none."""
RECORDS = 4096
"""Records that are kept for zseal, at most: then the plugin asks."""


class _Queue(ctypes.Structure):
    """``struct queue`` of native/qemu_plugin/queues.h."""

    _fields_ = (
        ("descriptors", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("big_endian", ctypes.c_uint32),
        ("seen", ctypes.c_uint16),
        ("finished", ctypes.c_uint16),
        ("reserved", ctypes.c_uint32),
    )


class _Head(ctypes.Structure):
    """``struct queue_watch`` of native/qemu_plugin/queues.h, up to its records."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("pages", ctypes.c_uint64),
        ("setups", ctypes.c_uint64),
        ("shared", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("notifications", ctypes.c_uint64),
        ("written", ctypes.c_uint64),
        ("read", ctypes.c_uint64),
        ("queues", _Queue * QUEUES),
    )


_RECORD = struct.Struct("=HHIIIQQ")
_SIZE = ctypes.sizeof(_Head) + RECORDS * _RECORD.size


class RecordKind(enum.IntEnum):
    """What the plugin saw."""

    REQUEST = 1
    """A request that was made available; what it names lies in shared pages."""
    FINISHED = 2
    """A request that the device has given back."""


class QueueRecord(NamedTuple):
    """Something that happened in ``queue``, a position in what :meth:`QueueWatch.publish` was passed."""

    queue: int
    kind: int
    """See RecordKind."""
    head: int
    """The number of the request's first descriptor."""
    amount: int
    """REQUEST: the number of buffers; FINISHED: bytes that the device says it has written."""
    readable: int
    """REQUEST: bytes in buffers that the device reads."""
    writable: int
    """REQUEST: bytes in buffers that the device may write."""


def _mapped(descriptor: int, size: int) -> memoryview:
    """Return ``size`` bytes of a file, mapped as long as anybody has a view of them; raises OSError.

    The module ``mmap`` keeps a descriptor of its own as long, and is unmapped by hand.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    arguments = (ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, ctypes.c_long(0))
    address = libc.mmap(None, *arguments)
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    found = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(found, libc.munmap, ctypes.c_void_p(address), ctypes.c_size_t(size)).atexit = False
    return memoryview(found).cast("B")


class WatchedQueue(NamedTuple):
    """A queue, and the running indexes up to which both rings were read."""

    layout: QueueLayout
    seen: int
    finished: int


class QueueWatch:
    """The memory file that both share, for a guest of ``pages`` pages. It shares those whose state is in ``shared``.

    Raises InputError if this computer has no memory for it.
    """

    def __init__(self, pages: int, shared: Iterable[int]) -> None:
        self._descriptor: int | None = None
        self.pages = pages
        size = _SIZE + pages * (1 + QUEUES)
        try:
            self._descriptor = os.memfd_create("zseal-queues", os.MFD_CLOEXEC)
            os.ftruncate(self._descriptor, size)
            self._map = _mapped(self._descriptor, size)
        except OSError as error:
            self.close()
            raise InputError(
                f"this computer cannot provide {size} bytes to watch a guest's devices: {error}"
            ) from error
        self._head = _Head.from_buffer(self._map)
        self._head.size, self._head.pages = _SIZE, pages
        self._head.shared = sum(1 << state for state in shared)
        self._states: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8, pages, _SIZE)

    def blank_states(self, pages: int) -> NDArray[np.uint8]:
        """Return where the states of so many ``pages`` are to be kept, a byte each, all 0 now.

        For one configuration at a time: what it returned before is the same place.
        """
        self._states[:] = 0
        return self._states[:pages]

    @property
    def descriptor(self) -> int:
        """The file, for the process that is to share it; not inheritable."""
        if self._descriptor is None:
            raise ValueError("the queue watch is closed")
        return self._descriptor

    def used(self, position: int) -> NDArray[np.uint8]:
        """Return what notes for each page whether the queue at ``position`` (below QUEUES) used it: 1 or 0."""
        return np.frombuffer(self._map, np.uint8, self.pages, _SIZE + self.pages * (1 + position))

    def publish(self, setups: int, queues: Sequence[WatchedQueue | None]) -> None:
        """Have the plugin look at ``queues``, as long as ``setups`` is right.

        Only for who was just asked by the plugin, and has taken all records. None stands for a queue that is gone.
        """
        if len(queues) > QUEUES:
            self.revoke()
            return
        for entry, queue in zip(self._head.queues, queues, strict=False):
            if queue is None:
                entry.size = 0
                continue
            layout = queue.layout
            entry.descriptors, entry.available, entry.used = layout.descriptors, layout.available, layout.used
            entry.size, entry.big_endian = layout.size, layout.big_endian
            entry.seen, entry.finished = queue.seen, queue.finished
        self._head.setups, self._head.count = setups, len(queues)

    def revoke(self) -> None:
        """Have the plugin ask each time. Only for who was just asked by it, or where the machine stands still."""
        self._head.count = 0

    @property
    def notifications(self) -> int:
        """How many notifications the plugin has let through without asking."""
        return int(self._head.notifications)

    def drain(self) -> list[QueueRecord]:
        """Take the records so far, in their order; may be called while the guest runs."""
        # Written last. More happens in Python between the two reads than any CPU does out of its order.
        first, end = int(self._head.read), int(self._head.written)
        found = []
        for number in range(first, end):
            queue, kind, head, amount, _, readable, writable = _RECORD.unpack_from(
                self._map, ctypes.sizeof(_Head) + number % RECORDS * _RECORD.size
            )
            found.append(QueueRecord(queue, kind, head, amount, readable, writable))
        self._head.read = end
        return found

    def close(self) -> None:
        """Close the file; who has a view of it keeps that. No effect the second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
