"""The I/O audit: everything a device is told to touch must lie in pages that the guest shares.

On hardware a device model that reaches for a private page gets a secure-storage access exception. QEMU's own devices
see all of the emulated memory, so the same rule is applied here, at each notification of a queue: the rings and every
descriptor, indirect ones too, are checked against the ultravisor's page states before the device may look at them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from zseal.arch.interruption import ProgramInterruption
from zseal.formats.virtqueue import DESCRIPTOR_SIZE, Descriptor, DescriptorFlag, QueueLayout, Read

# one bad ring can name thousands of pages: the first few say what is wrong
_MAX_REPORTED = 16


class IoPolicy(enum.Enum):
    """What happens to a guest whose device request names a page it does not share."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    OFF = "off"


@dataclass(frozen=True)
class Violation:
    """A device request that reaches outside the shared pages."""

    device: str
    queue: int
    part: str
    """What lies there: a ring, or ``descriptor N`` with its chain's place."""
    address: int
    """The first address that is not shared."""
    reason: str

    def __str__(self) -> str:
        return f"{self.device} queue {self.queue}: {self.part} at {self.address:#x} {self.reason}"


@dataclass
class QueueActivity:
    """What one queue was seen to do: counts since the guest started."""

    notifications: int = 0
    chains: int = 0
    descriptors: int = 0
    bytes_to_device: int = 0
    bytes_from_device: int = 0
    violations: int = 0


FindPrivate = Callable[[int, int], tuple[int, str] | None]
"""Given (address, length): the first address a device may not touch and why, or None where all may be touched."""


@dataclass
class QueueAudit:
    """The audit of one queue of one device; keeps how far the available ring was read."""

    device: str
    number: int
    layout: QueueLayout
    read: Read
    find_private: FindPrivate
    activity: QueueActivity = field(default_factory=QueueActivity)
    _seen: int = 0

    def notified(self) -> list[Violation]:
        """Check all chains made available since the last call, count them, and return what is wrong."""
        self.activity.notifications += 1
        found = list(self._check_rings())
        if not found:
            try:
                found = list(self._check_new_chains())
            except ProgramInterruption as outside:
                found = [self._violation("queue memory", outside.address or 0, "lies outside guest storage")]
        self.activity.violations += len(found)
        return found[:_MAX_REPORTED]

    def _check_rings(self) -> Iterator[Violation]:
        for name, address, length in self.layout.areas():
            yield from self._check(name, address, length)

    def _check_new_chains(self) -> Iterator[Violation]:
        index = self.layout.available_index(self.read)
        count = (index - self._seen) % 0x10000
        if count > self.layout.size:
            # more than the queue holds: the driver's index jumped; only what can still be there is looked at
            count = self.layout.size
        first = (index - count) % 0x10000
        self._seen = index
        for head in self.layout.heads(self.read, first, count):
            self.activity.chains += 1
            yield from self._check_chain(head)

    def _check_chain(self, head: int) -> Iterator[Violation]:
        table, size, number = self.layout.descriptors, self.layout.size, head
        place = ""
        for _ in range(self.layout.size):
            if number >= size:
                yield self._violation(f"descriptor {number}{place}", table, f"is outside its table of {size}")
                return
            descriptor = Descriptor.unpack(self.read(table + DESCRIPTOR_SIZE * number, DESCRIPTOR_SIZE))
            name = f"descriptor {number}{place}"
            wrong = list(self._check(name, descriptor.address, descriptor.length))
            yield from wrong
            if descriptor.flags & DescriptorFlag.INDIRECT:
                if wrong or place:
                    if place:
                        yield self._violation(name, descriptor.address, "is an indirect table inside another")
                    return
                place = f" of the indirect table at descriptor {number}"
                table, size, number = descriptor.address, descriptor.length // DESCRIPTOR_SIZE, 0
                continue
            self.activity.descriptors += 1
            if descriptor.flags & DescriptorFlag.WRITE:
                self.activity.bytes_from_device += descriptor.length
            else:
                self.activity.bytes_to_device += descriptor.length
            if not descriptor.flags & DescriptorFlag.NEXT:
                return
            number = descriptor.next
        yield self._violation(f"descriptor {head}", self.layout.descriptors, "starts a chain without an end")

    def _check(self, part: str, address: int, length: int) -> Iterator[Violation]:
        if length and (private := self.find_private(address, length)) is not None:
            yield self._violation(part, *private)

    def _violation(self, part: str, address: int, reason: str) -> Violation:
        return Violation(self.device, self.number, part, address, reason)
