"""The I/O audit of one queue: everything a device is told to touch must lie in pages that the guest shares.

On hardware a device model that reaches for a private page gets ciphertext, or ends its guest. QEMU's own devices see
all of the emulated memory, so the same rule is applied here, before the device is told that there is work: the rings
and every descriptor, indirect ones too, are checked against the ultravisor's page states.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zseal.arch.interruption import ProgramInterruption
from zseal.formats.virtqueue import (
    DESCRIPTOR_SIZE,
    MAX_CHAIN,
    Buffers,
    Descriptor,
    QueueLayout,
    Read,
    sequential_chain,
)

MAX_REPORTED = 16
"""Violations that one look at a queue tells at most: a bad ring can name thousands of pages."""

Addresses = npt.NDArray[np.uint64]
_INDEXES = 0x10000  # running indexes have 16 bits


class Refused(NamedTuple):
    """The range with this ``number`` can't be used, from ``address`` on."""

    number: int
    address: int
    reason: str


class Pages(Protocol):
    """The guest's page states, as the audit asks for them."""

    def refused(self, addresses: Addresses, lengths: Addresses, used: UsedPages) -> Sequence[Refused]:
        """Return which of the ranges reach outside the shared pages, in their order, and mark in ``used`` all others.

        Ranges without a byte are never refused. May leave out some where many are refused.
        """


class UsedPages:
    """The distinct pages that a queue has used."""

    def __init__(self) -> None:
        self._marks = np.zeros(0, np.bool_)

    def mark(self, pages: npt.NDArray[np.int64], total: int) -> None:
        """Note page numbers below ``total``, the number of the guest's pages."""
        if self._marks.size < total:
            self._marks = np.concatenate([self._marks, np.zeros(total - self._marks.size, np.bool_)])
        self._marks[pages] = True

    def __len__(self) -> int:
        return int(np.count_nonzero(self._marks))


@dataclasses.dataclass(frozen=True)
class Violation:
    """A device request that reaches outside the shared pages, or can't be understood."""

    device: str
    queue: int
    part: str
    """What lies there: a ring, or ``descriptor N`` with its place."""
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
    """What one queue was seen to do: counts since the guest started."""

    requests: int = 0
    unseen: int = 0
    """Requests that the device had finished before anybody could look at them."""
    descriptors: int = 0
    bytes_to_device: int = 0
    """The size of the buffers that the device reads, but for unseen requests."""
    bytes_from_device: int = 0
    """What the device says that it has written."""
    violations: int = 0


_Name = Callable[[int], tuple[str, int | None]]
"""From a range's place in its list to its name and to the first descriptor of its request."""


class _Ranges:
    """Ranges of storage that are checked all at once, and what they are called."""

    def __init__(self) -> None:
        self._names: list[_Name] = []
        self._starts: list[int] = []
        self._addresses: list[Addresses] = []
        self._lengths: list[Addresses] = []
        self._count = 0

    def add(
        self,
        addresses: Addresses | Sequence[int],
        lengths: Addresses | Sequence[int],
        name: _Name,
    ) -> None:
        """Add ranges."""
        self._names.append(name)
        self._starts.append(self._count)
        self._addresses.append(np.asarray(addresses, np.uint64))
        self._lengths.append(np.asarray(lengths, np.uint64))
        self._count += len(addresses)

    def refused(self, pages: Pages, used: UsedPages) -> Iterator[tuple[Refused, str, int | None]]:
        if not self._count:
            return
        for refused in pages.refused(np.concatenate(self._addresses), np.concatenate(self._lengths), used):
            block = int(np.searchsorted(self._starts, refused.number, "right")) - 1
            name, head = self._names[block](refused.number - self._starts[block])
            yield refused, name, head


class _Table(NamedTuple):
    """An indirect table: of the chain that begins with ``head``, in descriptor ``number`` of the queue's own."""

    head: int
    number: int
    address: int
    length: int


class QueueAudit:
    """The audit of one queue of one device; keeps how far both rings were read.

    ``seen`` and ``used`` are the running indexes to begin with: requests before them are not looked at.
    """

    def __init__(
        self, device: str, number: int, layout: QueueLayout, read: Read, pages: Pages, *, seen: int = 0, used: int = 0
    ) -> None:
        self.device = device
        self.number = number
        self.layout = layout
        self.activity = QueueActivity()
        self.pages_used = UsedPages()
        self._read = read
        self._pages = pages
        self.move(layout, seen=seen, used=used)

    def move(self, layout: QueueLayout, *, seen: int, used: int) -> None:
        """The queue was set up anew: follow it from there; the counts go on."""
        self.layout = layout
        self._seen, self._used = seen, used
        self._pending: dict[int, int] = {}  # head of a request with the device: bytes that it may write at most
        self._early: collections.Counter[int] = collections.Counter()

    def follows(self, taken: int) -> bool:
        """Whether a device that has taken ``taken`` chains can be the one that was looked at before.

        It is behind what was seen, as it is only told afterwards, but never by more than the queue holds.
        """
        behind = (self._seen - taken) % _INDEXES
        ahead = (self.layout.available_index(self._read) - self._seen) % _INDEXES
        return behind <= self.layout.size and ahead <= self.layout.size

    def check(self) -> list[Violation]:
        """Check all requests made available since the last time, count them, and return what is wrong."""
        try:
            index = self.layout.available_index(self._read)
            if index == self._seen:
                return []
            found = self._check_rings()
            fresh = self._take(index) if not found else []
            found += self._check_chains(fresh)
        except ProgramInterruption as outside:
            found = [self._violation("queue memory", outside.address or 0, "lies outside guest storage")]
        self.activity.violations += len(found)
        return found[:MAX_REPORTED]

    def persists(self, violation: Violation) -> bool:
        """Whether ``violation`` is true still, and not of a request that the device has finished since."""
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
        one = np.array([violation.address], np.uint64), np.array([1], np.uint64)
        return bool(self._pages.refused(*one, UsedPages()))

    # --- which requests there are ---

    def _check_rings(self) -> list[Violation]:
        ranges = _Ranges()
        names, addresses, lengths = zip(*self.layout.areas(), strict=True)
        ranges.add(list(addresses), list(lengths), lambda index: (names[index], None))
        return self._judge(ranges)

    def _take(self, index: int) -> list[int]:
        """Return the heads of the chains up to running ``index`` that are with the device now."""
        size = self.layout.size
        count = min((index - self._seen) % _INDEXES, size)  # more than it holds: only those can still be there
        heads = self.layout.heads(self._read, (index - count) % _INDEXES, count)
        self._seen = index
        self._note_finished()
        self.activity.requests += count
        fresh = []
        for head in heads:
            if self._early[head]:
                self._early[head] -= 1
                self.activity.unseen += 1
            else:
                fresh.append(head)
        self._early += collections.Counter()  # forgets what has come down to zero
        self._pending |= dict.fromkeys(fresh, 0)
        return fresh

    def catch_up(self) -> None:
        """Count what the device has given back since the last time, as far as it is known what that was.

        For a last look as well, when the driver may have put the rings' memory to another use.
        """
        try:
            count = (self.layout.used_index(self._read) - self._used) % _INDEXES
            for head, length in self.layout.finished(self._read, self._used, min(count, len(self._pending))):
                if head not in self._pending:
                    break
                self._finish(head, length)
                self._used = (self._used + 1) % _INDEXES
        except ProgramInterruption:
            return

    def _finish(self, head: int, length: int) -> None:
        self.activity.bytes_from_device += min(length, self._pending.pop(head))

    def _note_finished(self) -> None:
        """Read the used ring: what the device gave back without having been seen before was too quick for the audit.

        The memory of such a request may be anything by now, so it is not looked at.
        """
        index = self.layout.used_index(self._read)
        count = (index - self._used) % _INDEXES
        if count > self.layout.size:
            # Came around: which requests are with the device can't be told, only that there is an end to them.
            self._pending.clear()
            self._early.clear()
            count = 0
        for head, length in self.layout.finished(self._read, self._used, count):
            if head in self._pending:
                self._finish(head, length)
            elif head < self.layout.size:
                self._early[head] += 1
                self.activity.bytes_from_device += length
        self._used = index

    # --- what they name ---

    def _check_chains(self, heads: Iterable[int]) -> list[Violation]:
        ranges = _Ranges()
        tables: list[_Table] = []
        found: list[Violation] = []
        for head in heads:
            found += self._follow(head, ranges, tables)
        refused = self._judge(ranges)
        found += refused
        private = {violation.part for violation in refused}
        inner = _Ranges()
        for table in tables:
            if f"descriptor {table.number}" not in private:
                found += self._follow_table(table, inner)
        return found + self._judge(inner)

    def _follow(self, head: int, ranges: _Ranges, tables: list[_Table]) -> Iterator[Violation]:
        number = head
        numbers: list[int] = []
        buffers: list[Descriptor] = []
        for _ in range(max(self.layout.size, MAX_CHAIN)):
            if number >= self.layout.size:
                yield self._malformed(number, head, f"is outside its table of {self.layout.size}")
                break
            descriptor = self.layout.descriptor(self._read, number)
            numbers.append(number)
            buffers.append(descriptor)
            if descriptor.indirect:
                tables.append(_Table(head, number, descriptor.address, descriptor.length))
                break
            self._count(head, 1, descriptor.length, writes=descriptor.device_writes)
            if not descriptor.has_next:
                break
            number = descriptor.next
        else:
            yield self._malformed(head, head, "starts a chain without an end")
        ranges.add(
            [buffer.address for buffer in buffers],
            [buffer.length for buffer in buffers],
            lambda index: (f"descriptor {numbers[index]}", head),
        )

    def _follow_table(self, table: _Table, ranges: _Ranges) -> Iterator[Violation]:
        entries, rest = divmod(table.length, DESCRIPTOR_SIZE)
        if rest or not 0 < entries <= MAX_CHAIN:
            yield self._malformed(table.number, table.head, f"is an indirect table of {table.length} bytes")
            return
        data = self._read(table.address, table.length)
        place = f" of the indirect table at descriptor {table.number}"
        buffers = sequential_chain(data, big_endian=self.layout.big_endian)
        if buffers is None:
            chain: list[tuple[int, Descriptor]] = []
            number = 0
            while number < entries and len(chain) < entries:
                descriptor = Descriptor.unpack(data, DESCRIPTOR_SIZE * number, big_endian=self.layout.big_endian)
                if descriptor.indirect:
                    yield self._malformed(f"{number}{place}", table.head, "is an indirect table inside another")
                    return
                chain.append((number, descriptor))
                if not descriptor.has_next:
                    break
                number = descriptor.next
            else:
                reason = (
                    f"is outside its table of {entries}" if number >= entries else "belongs to a chain without an end"
                )
                yield self._malformed(f"{number}{place}", table.head, reason)
            buffers = Buffers(
                np.array([number for number, _ in chain], np.int64),
                np.array([each.address for _, each in chain], np.uint64),
                np.array([each.length for _, each in chain], np.uint64),
                np.array([each.device_writes for _, each in chain], np.bool_),
            )
        numbers = buffers.numbers
        written = int(buffers.lengths[buffers.writes].sum())
        self._count(table.head, 0, written, writes=True)
        self._count(table.head, len(numbers), int(buffers.lengths.sum()) - written, writes=False)
        ranges.add(
            buffers.addresses, buffers.lengths, lambda index: (f"descriptor {numbers[index]}{place}", table.head)
        )

    def _count(self, head: int, descriptors: int, size: int, *, writes: bool) -> None:
        self.activity.descriptors += descriptors
        if writes:
            self._pending[head] += size
        else:
            self.activity.bytes_to_device += size

    def _judge(self, ranges: _Ranges) -> list[Violation]:
        return [
            Violation(self.device, self.number, name, refused.address, refused.reason, head)
            for refused, name, head in ranges.refused(self._pages, self.pages_used)
        ]

    def _malformed(self, number: int | str, head: int, reason: str) -> Violation:
        part = f"descriptor {number}"
        return Violation(self.device, self.number, part, self.layout.descriptors, reason, head, about_pages=False)

    def _violation(self, part: str, address: int, reason: str) -> Violation:
        return Violation(self.device, self.number, part, address, reason, about_pages=False)
