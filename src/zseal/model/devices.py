"""Device models that see a protected guest as real ones do: through the ultravisor, and only its shared pages.

The block device speaks virtio-blk over a split virtqueue (VIRTIO 1.2, sections 2.7 and 5.2; one request queue, no
optional features). Its driver runs in a model guest and copies everything through bounce buffers, as Linux does with
SWIOTLB: pages that are shared once, at the start, and through which all data passes.
"""

from __future__ import annotations

import contextlib
import enum
import struct
from collections.abc import Iterator
from typing import BinaryIO

from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.errors import ZsealError
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import FrameUvcb
from zseal.formats.virtqueue import Descriptor, DescriptorFlag, QueueLayout
from zseal.model.guest import ModelGuest
from zseal.model.host import ModelHost
from zseal.model.pager import Pager

SECTOR = 512
SLOT = 2048
"""Bytes of a bounce buffer slot, as in Linux."""
_REQUEST = struct.Struct("<IIQ")  # type, reserved, sector
_U16, _USED = struct.Struct("<H"), struct.Struct("<II")  # used element: head of the chain, bytes written
_MIN_CHAIN, _MAX_CHAIN = 2, 64


class RequestType(enum.IntEnum):
    """The operation that a block request asks for."""

    READ = 0
    WRITE = 1


class Status(enum.IntEnum):
    """How a block request ended."""

    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2


class DeviceError(ZsealError):
    """The device cannot carry out a request, or did not."""


class DeviceMemory:
    """Guest storage as a device model accesses it: every page is made accessible first, as in Linux.

    Shared pages are pinned while they are used; any other page is exported, so the device finds ciphertext there, and
    the guest never accepts what it writes there. ``exposed`` lists the guest addresses of such pages: on a well-behaved
    guest it stays empty.
    """

    def __init__(self, host: ModelHost, pager: Pager) -> None:
        self._host = host
        self._pager = pager
        self.exposed: list[int] = []

    def _pieces(self, address: int, length: int) -> list[tuple[int, int, int]]:
        pieces = []
        while length:
            size = min(length, PAGE_SIZE - address % PAGE_SIZE)
            pieces.append((address >> PAGE_SHIFT, address % PAGE_SIZE, size))
            address, length = address + size, length - size
        return pieces

    def _export(self, page: int) -> int:
        """Make an unshared page accessible, as Linux does for a device model that touches it."""
        self.exposed.append(page << PAGE_SHIFT)
        frame = self._pager.frame(page)
        self._host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame << PAGE_SHIFT))
        return frame

    @contextlib.contextmanager
    def _accessible(self, page: int) -> Iterator[int]:
        """Yield the host address of a guest page that stays accessible for the length of the block."""
        frame = self._pager.pin(page)
        if frame is not None:
            try:
                yield frame << PAGE_SHIFT
            finally:
                self._pager.unpin(page)
        elif self._pager.is_shared(page):
            yield self._pager.frame(page) << PAGE_SHIFT  # shared, but not resident: already plain
        else:
            yield self._export(page) << PAGE_SHIFT

    def read(self, address: int, length: int) -> bytes:
        """Return what the device finds at guest address ``address``."""
        found = []
        for page, offset, size in self._pieces(address, length):
            with self._accessible(page) as frame:
                found.append(self._host.uv.read(frame + offset, size))
        return b"".join(found)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` at guest address ``address``."""
        done = 0
        for page, offset, size in self._pieces(address, len(data)):
            with self._accessible(page) as frame:
                self._host.uv.write(frame + offset, data[done : done + size])
            done += size


class BlockDevice:
    """A virtio block device over ``disk``; its one queue is at ``queue`` in the guest."""

    def __init__(self, host: ModelHost, pager: Pager, disk: BinaryIO, queue: QueueLayout) -> None:
        self.memory = DeviceMemory(host, pager)
        self._disk = disk
        self._queue = queue
        self._seen = 0

    def notify(self) -> None:
        """Carry out every request made available since the last time; raises DeviceError for a broken queue."""
        read = self.memory.read
        index = self._queue.available_index(read)
        count = (index - self._seen) % 0x10000
        if count > self._queue.size:
            raise DeviceError("the driver made more requests available than its queue holds")
        for head in self._queue.heads(read, self._seen, count):
            written = self._request(head)
            used = self._queue.used
            at = used + 4 + _USED.size * (self._seen % self._queue.size)
            self.memory.write(at, _USED.pack(head, written))
            self._seen = (self._seen + 1) % 0x10000
            self.memory.write(used + 2, _U16.pack(self._seen))

    def _chain(self, head: int) -> list[Descriptor]:
        chain: list[Descriptor] = []
        number = head
        while len(chain) < _MAX_CHAIN:
            if number >= self._queue.size:
                break
            entry = Descriptor.unpack(self.memory.read(self._queue.descriptors + 16 * number, 16))
            chain.append(entry)
            if not entry.flags & DescriptorFlag.NEXT:
                return chain
            number = entry.next
        raise DeviceError("a chain of descriptors has no end")

    def _request(self, head: int) -> int:
        chain = self._chain(head)
        first, data, last = chain[0], chain[1:-1], chain[-1]
        if len(chain) < _MIN_CHAIN or first.length < _REQUEST.size or not last.flags & DescriptorFlag.WRITE:
            raise DeviceError("a block request needs a header and a status byte")
        kind, _, sector = _REQUEST.unpack(self.memory.read(first.address, _REQUEST.size))
        written, status = 0, Status.OK
        position = sector * SECTOR
        for part in data:
            self._disk.seek(position)
            if kind == RequestType.READ and part.flags & DescriptorFlag.WRITE:
                content = self._disk.read(part.length).ljust(part.length, b"\0")
                self.memory.write(part.address, content)
                written += part.length
            elif kind == RequestType.WRITE and not part.flags & DescriptorFlag.WRITE:
                self._disk.write(self.memory.read(part.address, part.length))
            else:
                status = Status.UNSUPPORTED if kind not in set(RequestType) else Status.IO_ERROR
            position += part.length
        self.memory.write(last.address, bytes([status]))
        return written + 1


class BouncePool:
    """``slots`` bounce buffers of 2 KiB at ``address`` in the guest, shared with the host for good."""

    def __init__(self, guest: ModelGuest, address: int, slots: int) -> None:
        self._free = list(range(slots))
        self._address = address
        guest.share(address, -(-slots * SLOT // PAGE_SIZE) * PAGE_SIZE)

    def take(self) -> int:
        """Return the address of a free slot; raises DeviceError if all are in use."""
        if not self._free:
            raise DeviceError("all bounce buffers are in use", hint="give the guest a larger pool")
        return self._address + self._free.pop() * SLOT

    def give_back(self, address: int) -> None:
        """Free a slot."""
        self._free.append((address - self._address) // SLOT)


class BlockDriver:
    """The guest's side of a block device, with queue and bounce buffers in shared pages and data in private ones.

    ``address`` is the first guest page that it uses: one page for the queue, the others for the pool.
    """

    QUEUE_SIZE = 16

    def __init__(self, guest: ModelGuest, disk: BinaryIO, address: int, *, slots: int = 16) -> None:
        guest.write(address, bytes(PAGE_SIZE))
        guest.share(address)
        self._guest = guest
        self._queue = QueueLayout(self.QUEUE_SIZE, address, address + 0x400, address + 0x800)
        self._pool = BouncePool(guest, address + PAGE_SIZE, slots)
        self._index = 0
        self.device = BlockDevice(guest.host, guest.pager, disk, self._queue)

    def read(self, sector: int, length: int, target: int) -> None:
        """Read ``length`` bytes (at most 2 KiB at a time go through a slot) into private storage at ``target``."""
        for at in range(0, length, SLOT):
            size = min(SLOT, length - at)
            buffer = self._pool.take()
            self._request(RequestType.READ, sector + at // SECTOR, buffer, size)
            self._guest.write(target + at, self._guest.read(buffer, size))
            self._pool.give_back(buffer)

    def write(self, sector: int, source: int, length: int) -> None:
        """Write ``length`` bytes of private storage at ``source`` to the disk."""
        for at in range(0, length, SLOT):
            size = min(SLOT, length - at)
            buffer = self._pool.take()
            self._guest.write(buffer, self._guest.read(source + at, size))
            self._request(RequestType.WRITE, sector + at // SECTOR, buffer, size)
            self._pool.give_back(buffer)

    def _request(self, kind: RequestType, sector: int, buffer: int, length: int) -> None:
        header = self._pool.take()
        status = header + _REQUEST.size
        self._guest.write(header, _REQUEST.pack(kind, 0, sector) + b"\xff")
        device_writes = DescriptorFlag.WRITE if kind is RequestType.READ else DescriptorFlag(0)
        chain = (
            Descriptor(header, _REQUEST.size, DescriptorFlag.NEXT, 1),
            Descriptor(buffer, length, DescriptorFlag.NEXT | device_writes, 2),
            Descriptor(status, 1, DescriptorFlag.WRITE, 0),
        )
        self._guest.write(self._queue.descriptors, b"".join(entry.pack() for entry in chain))
        slot = self._queue.available + 4 + 2 * (self._index % self.QUEUE_SIZE)
        self._guest.write(slot, _U16.pack(0))
        self._index = (self._index + 1) % 0x10000
        self._guest.write(self._queue.available + 2, _U16.pack(self._index))
        self.device.notify()
        used = _U16.unpack(self._guest.read(self._queue.used + 2, 2))[0]
        result = self._guest.read(status, 1)[0]
        self._pool.give_back(header)
        if used != self._index or result != Status.OK:
            raise DeviceError(f"the device did not complete the request (status {result})")
