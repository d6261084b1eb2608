"""The data about a guest's virtio queues that zseal shares with the plugin, so that plain requests do not wait.

Whenever the guest notifies a device the plugin (``native/qemu_plugin/queues.c``) checks the queues that zseal
published. If everything new is in shared pages and looks as usual, the plugin records it and lets the guest go on;
otherwise it asks, as it does while no queues are published. When asked, zseal drains the records first and publishes
the queues again when it is done.
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
"""The most queues that the plugin checks: of a guest with more, it checks none."""
RECORDS = 4096
"""The most records that are kept for zseal: after that the plugin asks."""


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
    """The kinds of records."""

    REQUEST = 1
    """A request that was made available; everything that it names is in shared pages."""
    FINISHED = 2
    """A request that the device has given back."""


class QueueRecord(NamedTuple):
    """An event in ``queue``, a position in the list passed to :meth:`QueueWatch.publish`."""

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
    """Return ``size`` bytes of a file, mapped as long as a view of them exists; raises OSError.

    The module ``mmap`` would keep a descriptor of its own and need explicit unmapping.
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
        """Return the array for the states of ``pages`` pages, a byte each, now all 0.

        It serves one configuration at a time: the array that it returned before is the same memory.
        """
        self._states[:] = 0
        return self._states[:pages]

    @property
    def descriptor(self) -> int:
        """The file, for the process that shares it; not inheritable."""
        if self._descriptor is None:
            raise ValueError("the queue watch is closed")
        return self._descriptor

    def used(self, position: int) -> NDArray[np.uint8]:
        """Return an array with, for each page, whether the queue at ``position`` (below QUEUES) used it: 1 or 0."""
        return np.frombuffer(self._map, np.uint8, self.pages, _SIZE + self.pages * (1 + position))

    def publish(self, setups: int, queues: Sequence[WatchedQueue | None]) -> None:
        """Let the plugin check ``queues``, as long as ``setups`` is current.

        Call it only while the plugin waits for an answer, and after draining all records. None is a queue that is gone.
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
        """Let the plugin ask each time. Call it only while the plugin waits for an answer or the machine is stopped."""
        self._head.count = 0

    @property
    def notifications(self) -> int:
        """The number of notifications that the plugin let through without asking."""
        return int(self._head.notifications)

    def drain(self) -> list[QueueRecord]:
        """Take the records so far, in their order; may be called while the guest runs."""
        # Written last. Python does more between the two reads than any CPU reorders.
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
        """Close the file; existing views of it stay valid. A second call has no effect."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
