"""The audit of one queue against queues laid out by hand: shared ones pass and are counted, private pages are named."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.formats.virtqueue import MAX_CHAIN, Descriptor, DescriptorFlag, QueueLayout
from zseal.guest.audit.queue import MAX_REPORTED, Addresses, QueueAudit, Refused, TouchedPages, Violation

NEXT, WRITE, INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
PAGE = 4096
PAGES = 16
LAYOUT = QueueLayout(size=8, descriptors=0x1000, available=0x2000, used=0x3000)


class Memory:
    """64 KiB of guest storage with a driver and a device; pages 1 to 7 are shared unless a test says otherwise."""

    def __init__(self, layout: QueueLayout = LAYOUT) -> None:
        self.data = bytearray(PAGES * PAGE)
        self.shared = set(range(1, 8))
        self.layout = layout
        self.offered = self.returned = 0

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.data):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return bytes(self.data[address : address + length])

    def find_refused(self, address: int, length: int, used: TouchedPages) -> Refused | None:
        for page in range(address // PAGE, min((address + length - 1) // PAGE, 1 << 20) + 1) if length else ():
            if page >= PAGES:
                return Refused(max(address, page * PAGE), "lies outside guest storage")
            if page not in self.shared:
                return Refused(max(address, page * PAGE), "is a private page")
            used.mark(slice(page, page + 1), PAGES)
        return None

    def all_shared(self, addresses: Addresses, lengths: Addresses, used: TouchedPages) -> bool:
        ranges = zip(addresses.tolist(), lengths.tolist(), strict=True)
        return not any(self.find_refused(address, length, used) for address, length in ranges)

    def _order(self) -> str:
        return ">" if self.layout.big_endian else "<"

    def describe(self, number: int, descriptor: Descriptor, *, table: int = LAYOUT.descriptors) -> None:
        packed = descriptor.pack(big_endian=self.layout.big_endian)
        self.data[table + 16 * number : table + 16 * number + 16] = packed

    def offer(self, head: int) -> None:
        """The driver's part: make a chain available."""
        slot = LAYOUT.available + 4 + 2 * (self.offered % LAYOUT.size)
        struct.pack_into(self._order() + "H", self.data, slot, head)
        self.offered = (self.offered + 1) % 0x10000
        struct.pack_into(self._order() + "H", self.data, LAYOUT.available + 2, self.offered)

    def give_back(self, head: int, written: int = 0) -> None:
        """The device's part: a chain is finished."""
        slot = LAYOUT.used + 4 + 8 * (self.returned % LAYOUT.size)
        struct.pack_into(self._order() + "II", self.data, slot, head, written)
        self.returned = (self.returned + 1) % 0x10000
        struct.pack_into(self._order() + "H", self.data, LAYOUT.used + 2, self.returned)


def audit(memory: Memory) -> QueueAudit:
    return QueueAudit("virtio-blk 0.0.0001", 0, memory.layout, memory.read, memory)


def told(violations: Iterable[Violation]) -> list[tuple[str, int]]:
    return [(violation.part, violation.address) for violation in violations]


def request(memory: Memory) -> None:
    """A disk's typical one: 16 bytes of command, a buffer, a byte for the status."""
    memory.describe(2, Descriptor(0x4000, 16, NEXT, 5))
    memory.describe(5, Descriptor(0x5000, 512, NEXT | WRITE, 1))
    memory.describe(1, Descriptor(0x6000, 1, WRITE, 0))


def test_a_chain_in_shared_pages_passes_and_is_counted_by_direction() -> None:
    memory = Memory()
    request(memory)
    memory.offer(2)
    watched = audit(memory)
    assert watched.check() == []
    assert watched.check() == [], "a second notification sees nothing new"
    activity = watched.activity
    assert (activity.requests, activity.unseen, activity.descriptors) == (1, 0, 3)
    assert (activity.bytes_to_device, activity.bytes_from_device) == (16, 0)
    memory.give_back(2, 400)
    watched.catch_up()
    watched.catch_up()
    assert activity.bytes_from_device == 400, "what the device has written, not what it could"
    assert len(watched.pages_used) == 6, "three of the rings, three of buffers"


def test_a_legacy_queue_has_the_byte_order_of_its_guest() -> None:
    memory = Memory(QueueLayout(8, LAYOUT.descriptors, LAYOUT.available, LAYOUT.used, big_endian=True))
    request(memory)
    memory.offer(2)
    memory.describe(3, Descriptor(0x4000, 32, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 8, NEXT, 1), table=0x4000)
    memory.describe(1, Descriptor(0x9000, 8, WRITE, 0), table=0x4000)
    memory.offer(3)
    watched = audit(memory)
    assert told(watched.check()) == [("descriptor 1 of the indirect table at descriptor 3", 0x9000)]
    assert watched.activity.requests == 2
    memory.give_back(3, 8)
    memory.give_back(2, 513)
    watched.catch_up()
    assert watched.activity.bytes_from_device == 521


def test_a_buffer_that_reaches_into_a_private_page_names_everything() -> None:
    memory = Memory()
    memory.shared.discard(6)
    memory.describe(0, Descriptor(0x5800, 0x1000, DescriptorFlag(0), 0))
    memory.offer(0)
    (violation,) = audit(memory).check()
    assert str(violation) == "virtio-blk 0.0.0001 queue 0: descriptor 0 at 0x6000 is a private page"
    assert violation.head == 0


def test_an_empty_buffer_may_lie_anywhere() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0xF0000, 0, DescriptorFlag(0), 0))
    memory.offer(0)
    assert audit(memory).check() == []


def test_a_private_ring_is_refused_before_it_is_read() -> None:
    memory = Memory()
    memory.shared.discard(2)
    memory.offer(0)
    watched = audit(memory)
    assert told(watched.check()) == [("available ring", 0x2000)]
    assert watched.activity.requests == 0


def test_a_ring_outside_storage_is_told() -> None:
    memory = Memory(QueueLayout(size=8, descriptors=0x1000, available=0xFFFFF000, used=0x3000))
    (violation,) = audit(memory).check()
    assert violation.reason == "lies outside guest storage"


def test_indirect_tables_are_walked_and_their_own_memory_is_checked() -> None:
    memory = Memory()
    memory.describe(3, Descriptor(0x4000, 48, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 8, NEXT, 1), table=0x4000)
    memory.describe(1, Descriptor(0x9000, 8, WRITE | NEXT, 2), table=0x4000)
    memory.describe(2, Descriptor(0x6000, 24, WRITE, 0), table=0x4000)
    memory.offer(3)
    watched = audit(memory)
    assert told(watched.check()) == [("descriptor 1 of the indirect table at descriptor 3", 0x9000)]
    assert watched.activity.descriptors == 3
    memory.give_back(3, 1 << 31)
    watched.catch_up()
    assert (watched.activity.bytes_to_device, watched.activity.bytes_from_device) == (8, 32), "no more than there is"
    memory.shared = {1, 2, 3, 5, 9}
    memory.offer(3)
    assert told(watched.check()) == [("descriptor 3", 0x4000)], "what lies in a private table is not looked at"


def test_an_indirect_table_in_any_order_is_followed() -> None:
    memory = Memory()
    memory.describe(3, Descriptor(0x4000, 64, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 8, NEXT, 3), table=0x4000)
    memory.describe(3, Descriptor(0x6000, 16, NEXT | WRITE, 1), table=0x4000)
    memory.describe(1, Descriptor(0xA000, 32, WRITE, 0), table=0x4000)
    memory.describe(2, Descriptor(0xB000, 64, WRITE, 0), table=0x4000)
    memory.offer(3)
    watched = audit(memory)
    assert told(watched.check()) == [("descriptor 1 of the indirect table at descriptor 3", 0xA000)]
    memory.give_back(3, 48)
    watched.catch_up()
    assert (watched.activity.bytes_to_device, watched.activity.bytes_from_device) == (8, 48)


def test_indirect_tables_that_make_no_sense_are_told() -> None:
    memory = Memory()
    for size in (0, 17, 16 * (MAX_CHAIN + 1)):
        memory.shared = set(range(1, 16))
        memory.describe(0, Descriptor(0x4000, size, INDIRECT, 0))
        memory.offer(0)
        assert [violation.reason for violation in audit(memory).check()][-1] == f"is an indirect table of {size} bytes"


def test_an_indirect_table_inside_another_is_refused() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 16, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 16, INDIRECT, 0), table=0x4000)
    memory.offer(0)
    assert [violation.reason for violation in audit(memory).check()] == ["is an indirect table inside another"]


def test_chains_that_leave_their_table_or_loop_end() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 8, NEXT, 0))
    memory.describe(1, Descriptor(0x4000, 8, NEXT, 8))
    memory.describe(2, Descriptor(0x5000, 32, INDIRECT, 0))
    memory.describe(0, Descriptor(0x4000, 8, NEXT, 1), table=0x5000)
    memory.describe(1, Descriptor(0x4000, 8, NEXT, 0), table=0x5000)
    memory.describe(3, Descriptor(0x6000, 16, INDIRECT, 0))
    memory.describe(0, Descriptor(0x4000, 8, NEXT, 7), table=0x6000)
    for head in (0, 1, 2, 3, 9):
        memory.offer(head)
    assert [str(violation).partition("0: ")[2] for violation in audit(memory).check()] == [
        "descriptor 0 at 0x1000 starts a chain without an end",
        "descriptor 8 at 0x1000 is outside its table of 8",
        "descriptor 0 of the indirect table at descriptor 2 at 0x5000 belongs to a chain without an end",
        "descriptor 7 of the indirect table at descriptor 3 at 0x6000 is outside its table of 1",
        "descriptor 9 at 0x1000 is outside its table of 8",
    ]


def test_what_the_device_finished_before_is_counted_but_not_looked_at() -> None:
    """Its memory is the driver's again, and may be anything by now."""
    memory = Memory()
    request(memory)
    memory.offer(2)
    watched = audit(memory)
    watched.check()
    memory.give_back(2, 513)
    memory.offer(4)  # added while the device was busy, so nobody was notified
    memory.give_back(4, 1000)
    memory.describe(4, Descriptor(0xF000, 8, NEXT, 4))
    memory.offer(2)
    assert watched.check() == []
    assert (watched.activity.requests, watched.activity.unseen) == (3, 1)
    assert watched.activity.bytes_from_device == 513 + 1000
    memory.give_back(2, 513)
    memory.offer(4)
    assert watched.check()[0].part == "descriptor 4", "the next use of it is looked at"


def test_a_finished_request_is_no_violation_any_longer() -> None:
    """Another CPU and the device go on while the audit looks."""
    memory = Memory()
    memory.describe(0, Descriptor(0x9000, 8, DescriptorFlag(0), 0))
    memory.offer(0)
    watched = audit(memory)
    (violation,) = watched.check()
    assert watched.persists(violation)
    memory.shared.add(9)
    assert not watched.persists(violation)
    memory.shared.discard(9)
    memory.give_back(0)
    assert not watched.persists(violation)


def test_the_running_index_wraps() -> None:
    memory = Memory()
    memory.offered = memory.returned = 0xFFFF
    for ring in (LAYOUT.available, LAYOUT.used):
        struct.pack_into("<H", memory.data, ring + 2, 0xFFFF)
    watched = QueueAudit("d", 0, LAYOUT, memory.read, memory, seen=0xFFFF, used=0xFFFF)
    memory.describe(0, Descriptor(0x4000, 8, DescriptorFlag(0), 0))
    memory.describe(1, Descriptor(0x5000, 8, DescriptorFlag(0), 0))
    memory.offer(0)
    memory.offer(1)
    assert watched.check() == []
    assert watched.activity.requests == 2
    memory.give_back(0)
    memory.give_back(1)
    memory.offer(1)
    assert watched.check() == []
    assert (watched.activity.requests, watched.activity.unseen) == (3, 0)


def test_a_last_look_at_memory_that_was_given_up_counts_nothing_unknown() -> None:
    memory = Memory()
    request(memory)
    memory.offer(2)
    watched = audit(memory)
    watched.check()
    memory.data[0x3000:0x3046] = b"\xa5" * 70
    watched.catch_up()
    assert watched.activity.bytes_from_device == 0
    watched.move(dataclasses.replace(LAYOUT, used=0xFFFF0000), seen=0, used=0)
    watched.catch_up()


def test_a_used_ring_that_came_around_is_survived() -> None:
    memory = Memory()
    watched = audit(memory)
    for number in range(20):
        memory.offer(number % 8)
        memory.give_back(number % 8)
    memory.describe(5, Descriptor(0x9000, 8, DescriptorFlag(0), 0))
    memory.offer(5)
    assert ("descriptor 5", 0x9000) in told(watched.check())


def test_a_device_is_recognised_by_how_far_it_came() -> None:
    memory = Memory()
    for head in range(5):
        memory.offer(head)
    watched = audit(memory)
    watched.check()
    assert watched.follows(taken=5, used=0)
    assert watched.follows(taken=5, used=5)
    assert not watched.follows(taken=5, used=6), "it cannot have given back what it did not have"
    assert watched.follows(taken=6, used=6), "while it is busy it takes what it was not told of"
    assert not watched.follows(taken=6, used=7)
    assert not watched.follows(taken=5 + LAYOUT.size, used=0), "but never a whole ring"
    assert not watched.follows(taken=0, used=0), "it was reset"


def test_a_device_that_is_met_in_the_middle_of_its_work() -> None:
    memory = Memory()
    for head in range(5):
        memory.offer(head)
    memory.give_back(0)
    memory.give_back(1)
    watched = QueueAudit("d", 0, LAYOUT, memory.read, memory, seen=4, used=2)
    memory.give_back(2, 100)
    memory.give_back(3, 200)
    memory.describe(4, Descriptor(0x9000, 8, DescriptorFlag(0), 0))
    assert told(watched.check()) == [("descriptor 4", 0x9000)]
    assert (watched.activity.requests, watched.activity.unseen, watched.activity.bytes_from_device) == (1, 0, 300)
    for head in range(3):
        memory.offer(head)
    watched.check()
    assert (watched.activity.requests, watched.activity.unseen) == (4, 0)


def test_a_long_indirect_table_is_checked_at_once_with_the_same_result() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 16 * 64, INDIRECT, 0))
    for number in range(64):
        flags = (NEXT if number < 63 else 0) | (WRITE if number > 9 else 0)
        memory.describe(number, Descriptor(0x5000 + 64 * number, 100, flags, number + 1 & 63), table=0x4000)
    memory.offer(0)
    watched = audit(memory)
    assert watched.check() == []
    memory.give_back(0, 5400)
    watched.catch_up()
    activity = watched.activity
    assert (activity.descriptors, activity.bytes_to_device, activity.bytes_from_device) == (64, 1000, 5400)
    memory.shared.discard(6)
    memory.offer(0)
    assert told(watched.check())[0] == ("descriptor 63 of the indirect table at descriptor 0", 0x6000)
    assert activity.descriptors == 128


def test_a_descriptor_of_many_requests_is_looked_at_once() -> None:
    memory = Memory()
    for number in range(8):
        memory.describe(number, Descriptor(0x9000 + number, 8, NEXT if number < 7 else DescriptorFlag(0), number + 1))
    for head in (0, 0, 3, 5, 7):
        memory.offer(head)
    watched = audit(memory)
    assert [each.address for each in watched.check()] == [0x9000 + number for number in range(8)]
    assert (watched.activity.requests, watched.activity.descriptors, watched.activity.violations) == (5, 8, 8)


def test_only_some_of_many_violations_are_told_but_all_are_counted() -> None:
    memory = Memory(QueueLayout(size=256, descriptors=0x1000, available=0x2000, used=0x3000))
    memory.describe(0, Descriptor(0x4000, 16 * 64, INDIRECT, 0))
    for number in range(64):
        flags = NEXT if number < 63 else DescriptorFlag(0)
        memory.describe(number, Descriptor(0x9000, 8, flags, (number + 1) % 64), table=0x4000)
    memory.offer(0)
    watched = audit(memory)
    assert len(watched.check()) == MAX_REPORTED
    assert watched.activity.violations == 64


@given(
    st.binary(min_size=0x80, max_size=0x80), st.binary(min_size=22, max_size=22), st.binary(min_size=70, max_size=70)
)
def test_hostile_rings_never_raise(table: bytes, available: bytes, used: bytes) -> None:
    memory = Memory()
    memory.data[0x1000:0x1080] = table
    memory.data[0x2000:0x2016] = available
    memory.data[0x3000:0x3046] = used
    watched = audit(memory)
    for violation in watched.check():
        assert violation.reason
        watched.persists(violation)
    watched.catch_up()
    QueueAudit("d", 0, LAYOUT, memory.read, memory, seen=7, used=3).check()


@given(st.binary(min_size=64, max_size=64))
def test_hostile_indirect_tables_never_raise(table: bytes) -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 64, INDIRECT, 0))
    memory.data[0x4000:0x4040] = table
    memory.offer(0)
    for violation in audit(memory).check():
        assert violation.reason
