"""The I/O audit of one queue: everything that a device request names must be in pages that the guest shares.

On hardware a device model that accesses a private page gets ciphertext, or ends its guest. QEMU's own devices see all
of the emulated memory, so the same rule is applied here, before the device is notified: the rings and every descriptor,
including indirect ones, are checked against the ultravisor's page states.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zseal.arch.interruption import ProgramInterruption
from zseal.engine.qemu.plugin_queues import WatchedQueue
from zseal.formats.virtqueue import (
    DESCRIPTOR_SIZE,
    MAX_CHAIN,
    Descriptor,
    QueueLayout,
    Read,
    sequential_chain,
)

MAX_REPORTED = 16
"""The most violations that one check of a queue reports: a bad ring can name thousands of pages."""

Addresses = npt.NDArray[np.uint64]
_INDEXES = 0x10000  # running indexes have 16 bits
_UNKNOWN = 1 << 32  # bytes; no buffer is larger
_MANY = 16  # from this many descriptors on, checking all together is faster than one by one


class Refused(NamedTuple):
    """Storage from ``address`` on cannot be given to a device."""

    address: int
    reason: str


class Pages(Protocol):
    """The guest's page states, as the audit needs them. Storage that may be used is marked in ``used``."""

    def find_refused(self, address: int, length: int, used: TouchedPages) -> Refused | None:
        """Return where ``length`` bytes at ``address`` first leave the shared pages; None if they do not."""

    def all_shared(self, addresses: Addresses, lengths: Addresses, used: TouchedPages) -> bool:
        """Whether all these ranges are certainly shared. False if one of them is unusual: then check each."""


class TouchedPages:
    """The distinct pages that a queue has used.

    ``marks`` is the array that the engine marks as well: a byte for each page of the guest.
    """

    def __init__(self, marks: npt.NDArray[np.uint8] | None = None) -> None:
        self._marks = np.zeros(0, np.uint8) if marks is None else marks

    def mark(self, pages: slice | npt.NDArray[np.int64], total: int) -> None:
        """Note ``pages`` of the guest's ``total``."""
        if len(self._marks) < total:
            self._marks = np.concatenate((self._marks, np.zeros(total - len(self._marks), np.uint8)))
        self._marks[pages] = 1

    def __len__(self) -> int:
        return int(np.count_nonzero(self._marks))


@dataclasses.dataclass(frozen=True)
class Violation:
    """A device request that reaches outside the shared pages, or cannot be understood."""

    device: str
    queue: int
    part: str
    """The part with the violation: a ring, or ``descriptor N`` with its place."""
    address: int
    """The first address that is not shared."""
    reason: str
    head: int | None = dataclasses.field(default=None, repr=False, compare=False)
    """The first descriptor of the request; None for a ring."""
    about_pages: bool = dataclasses.field(default=True, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.device} queue {self.queue}: {self.part} at {self.address:#x} {self.reason}"


@dataclasses.dataclass
class QueueActivity:
    """The activity of one queue: counts since the guest started."""

    requests: int = 0
    unseen: int = 0
    """Requests the device completed before they could be checked."""
    descriptors: int = 0
    bytes_to_device: int = 0
    """The size of the buffers that the device reads, except for unseen requests."""
    bytes_from_device: int = 0
    """The bytes that the device reports as written."""
    violations: int = 0


class QueueAudit:
    """The audit of one queue of one device; it keeps how far both rings were read.

    ``seen`` and ``used`` are the running indexes to begin with: requests before them are not checked. If the engine
    checks the queue as well, and records what it sees (``note_finished``, ``note_request``), ``pages_used`` are the
    pages that it marks.
    """

    def __init__(
        self,
        device: str,
        number: int,
        layout: QueueLayout,
        read: Read,
        pages: Pages,
        *,
        seen: int = 0,
        used: int = 0,
        pages_used: TouchedPages | None = None,
    ) -> None:
        self.device = device
        self.number = number
        self.layout = layout
        self.activity = QueueActivity()
        self.pages_used = TouchedPages() if pages_used is None else pages_used
        self._read = read
        self._pages = pages
        self.move(layout, seen=seen, used=used)

    def move(self, layout: QueueLayout, *, seen: int, used: int) -> None:
        """Follow the queue from the device's position: it may have been set up again. The counts go on."""
        self.layout = layout
        self._areas = layout.areas()
        self._seen, self._used = seen, used
        self._ahead = 0  # entries of the used ring that only ``catch_up`` has read
        self._pending: dict[int, int] = {}  # head of a request with the device: the most bytes that it may write
        self._early: collections.Counter[int] = collections.Counter()
        count = (seen - used) % _INDEXES
        if 0 < count <= layout.size:
            with contextlib.suppress(ProgramInterruption):
                # Most devices finish requests in order, so these are the ones that they have.
                self._pending |= dict.fromkeys(layout.heads(self._read, used, count), _UNKNOWN)

    def follows(self, *, taken: int, used: int) -> bool:
        """Whether a device at this position is probably the one checked before and was not reset.

        It may have taken unseen requests: while it is busy, it takes more without being notified. After a reset it
        begins at 0 again, which is at least a whole ring ahead if it was used.
        """
        unseen = (taken - self._seen) % _INDEXES
        return unseen < self.layout.size and (used - self._used) % _INDEXES <= len(self._pending) + unseen

    def check(self) -> list[Violation]:
        """Check all requests made available since the last time, count them, and return the violations."""
        try:
            index = self.layout.available_index(self._read)
            if index == self._seen:
                return []
            found = self._counted(self._check_rings())
            if not found:
                found = self._counted(self._follow_all(self._take(index)))
        except ProgramInterruption as outside:
            lost = self._malformed("queue memory", None, "lies outside guest storage", outside.address or 0)
            found = self._counted([lost])
        return found

    def _counted(self, violations: Iterable[Violation]) -> list[Violation]:
        """Count all ``violations``, and return the first ones: a hostile ring names more than memory should hold."""
        found: list[Violation] = []
        for violation in violations:
            self.activity.violations += 1
            if len(found) < MAX_REPORTED:
                found.append(violation)
        return found

    def packed(self) -> Violation:
        """Count, and return, that the queue is a packed ring: there is nothing to follow in it."""
        self.activity.violations += 1
        return self._malformed("the descriptor ring", None, "is a packed ring, which cannot be checked")

    def persists(self, violation: Violation) -> bool:
        """Whether ``violation`` still exists, and does not belong to a request that the device has finished since."""
        try:
            if violation.head is not None:
                count = (self.layout.used_index(self._read) - self._used) % _INDEXES
                done = self.layout.finished(self._read, self._used, min(count, self.layout.size))
                if violation.head in (head for head, _ in done):
                    return False
        except ProgramInterruption:
            return True
        if not violation.about_pages:
            return True
        return self._pages.find_refused(violation.address, 1, TouchedPages()) is not None

    # --- finding the requests ---

    def _check_rings(self) -> Iterator[Violation]:
        for name, address, length in self._areas:
            refused = self._pages.find_refused(address, length, self.pages_used)
            if refused is not None:
                yield self._violation(name, None, refused)

    def _take(self, index: int) -> list[int]:
        """Return the heads of the chains up to running ``index`` that are with the device now."""
        size = self.layout.size
        count = min((index - self._seen) % _INDEXES, size)  # more than the ring has: only those can still be there
        heads = self.layout.heads(self._read, (index - count) % _INDEXES, count)
        self._seen = index
        self._note_finished()
        self.activity.requests += count
        fresh = [head for head in heads if not self._was_early(head)]
        self._pending |= dict.fromkeys(fresh, 0)
        return fresh

    def _was_early(self, head: int) -> bool:
        """Whether the device has already finished this new request."""
        if head not in self._early:
            return False
        self._early[head] -= 1
        if not self._early[head]:
            del self._early[head]
        self.activity.unseen += 1
        return True

    # --- records of the engine ---

    def position(self) -> WatchedQueue:
        """Return the position from which the engine shall check the queue."""
        self._ahead = 0
        return WatchedQueue(self.layout, self._seen, self._used)

    def note_finished(self, head: int, length: int) -> None:
        """Count the next entry of the used ring, which the engine has read."""
        if self._ahead:
            self._ahead -= 1
        else:
            self._count_finished(head, length)
            self._used = (self._used + 1) % _INDEXES

    def note_request(self, head: int, *, descriptors: int, readable: int, writable: int) -> None:
        """Count the next request, which the engine has found to be in order, with its buffers and their bytes."""
        self._seen = (self._seen + 1) % _INDEXES
        self.activity.requests += 1
        if not self._was_early(head):
            self._pending[head] = 0
            self._count_request(head, descriptors, readable, writable)

    def _count_request(self, head: int, descriptors: int, readable: int, writable: int) -> None:
        self.activity.descriptors += descriptors
        self.activity.bytes_to_device += readable
        self._pending[head] += writable

    def catch_up(self) -> None:
        """Count the requests that the device has given back since the last time, as far as they are known.

        It also serves for a last check, when the driver may have reused the rings' memory.
        """
        try:
            count = (self.layout.used_index(self._read) - self._used) % _INDEXES
            for head, length in self.layout.finished(self._read, self._used, min(count, len(self._pending))):
                if head not in self._pending:
                    break
                self._finish(head, length)
                self._used = (self._used + 1) % _INDEXES
                self._ahead += 1
        except ProgramInterruption:
            return

    def _finish(self, head: int, length: int) -> None:
        self.activity.bytes_from_device += min(length, self._pending.pop(head))

    def _note_finished(self) -> None:
        """Read the used ring: requests given back without being seen before were too quick for the audit.

        The memory of such a request may now contain anything, so it is not checked.
        """
        index = self.layout.used_index(self._read)
        count = (index - self._used) % _INDEXES
        if count > self.layout.size:
            # It wrapped around: which requests are with the device is not known, only that they are limited.
            self._pending.clear()
            self._early.clear()
            count = 0
        for head, length in self.layout.finished(self._read, self._used, count):
            self._count_finished(head, length)
        self._used = index

    def _count_finished(self, head: int, length: int) -> None:
        if head in self._pending:
            self._finish(head, length)
        elif head < self.layout.size:
            self._early[head] += 1
            self.activity.bytes_from_device += length

    # --- checking the descriptors ---

    def _follow_all(self, heads: Iterable[int]) -> Iterator[Violation]:
        walked: dict[int, int] = {}  # descriptor: the head that led there
        for order, head in enumerate(heads):
            yield from self._follow(order, head, walked)

    def _follow(self, order: int, head: int, walked: dict[int, int]) -> Iterator[Violation]:
        number = head
        while True:
            if number >= self.layout.size:
                yield self._malformed(f"descriptor {number}", head, f"is outside its table of {self.layout.size}")
                return
            if number in walked:
                # Requests that the device has finished since may share descriptors, but no request reaches one twice.
                if walked[number] == order:
                    yield self._malformed(f"descriptor {head}", head, "starts a chain without an end")
                return
            walked[number] = order
            descriptor = self.layout.descriptor(self._read, number)
            if descriptor.indirect:
                refused = self._pages.find_refused(descriptor.address, descriptor.length, self.pages_used)
                if refused is None:
                    yield from self._follow_table(head, number, descriptor)
                else:
                    yield self._violation(f"descriptor {number}", head, refused)
                return
            yield from self._buffer(head, number, "", descriptor)
            if not descriptor.has_next:
                return
            number = descriptor.next

    def _follow_table(self, head: int, above: int, table: Descriptor) -> Iterator[Violation]:
        """Follow the indirect ``table`` that descriptor ``above`` names."""
        entries, rest = divmod(table.length, DESCRIPTOR_SIZE)
        if rest or not 0 < entries <= MAX_CHAIN:
            yield self._malformed(f"descriptor {above}", head, f"is an indirect table of {table.length} bytes")
            return
        data = self._read(table.address, table.length)
        if entries >= _MANY and self._check_at_once(head, data):
            return
        place = f" of the indirect table at descriptor {above}"
        number = 0
        for _ in range(entries):
            descriptor = Descriptor.unpack(data, DESCRIPTOR_SIZE * number, big_endian=self.layout.big_endian)
            if descriptor.indirect:
                reason = "is an indirect table inside another"
                yield self._malformed(f"descriptor {number}{place}", head, reason, table.address)
                return
            yield from self._buffer(head, number, place, descriptor)
            if not descriptor.has_next:
                return
            number = descriptor.next
            if number >= entries:
                break
        outside = number >= entries
        reason = f"is outside its table of {entries}" if outside else "belongs to a chain without an end"
        yield self._malformed(f"descriptor {number}{place}", head, reason, table.address)

    def _check_at_once(self, head: int, data: bytes) -> bool:
        """Check a whole indirect table; False, with nothing counted, if it has to be followed one by one."""
        buffers = sequential_chain(data, big_endian=self.layout.big_endian)
        if buffers is None or not self._pages.all_shared(buffers.addresses, buffers.lengths, self.pages_used):
            return False
        written = int(buffers.lengths[buffers.writes].sum())
        self._count_request(head, len(buffers.addresses), int(buffers.lengths.sum()) - written, written)
        return True

    def _buffer(self, head: int, number: int, place: str, descriptor: Descriptor) -> Iterator[Violation]:
        """Count and check the buffer of ``descriptor``, which has this ``number`` in its table."""
        readable, writable = (0, descriptor.length) if descriptor.device_writes else (descriptor.length, 0)
        self._count_request(head, 1, readable, writable)
        refused = self._pages.find_refused(descriptor.address, descriptor.length, self.pages_used)
        if refused is not None:
            yield self._violation(f"descriptor {number}{place}", head, refused)

    def _violation(self, part: str, head: int | None, refused: Refused) -> Violation:
        return Violation(self.device, self.number, part, refused.address, refused.reason, head)

    def _malformed(self, part: str, head: int | None, reason: str, address: int | None = None) -> Violation:
        at = self.layout.descriptors if address is None else address
        return Violation(self.device, self.number, part, at, reason, head, about_pages=False)
