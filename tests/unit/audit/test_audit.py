"""The I/O audit against queues laid out by hand: shared ones pass and are counted, private pages are named."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.formats.virtqueue import Descriptor, DescriptorFlag, QueueLayout
from zseal.host.audit import QueueAudit

NEXT, WRITE, INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
PAGE = 4096
LAYOUT = QueueLayout(size=8, descriptors=0x1000, available=0x2000, used=0x3000)


class Memory:
    """64 KiB of guest storage; pages 1 to 7 are shared unless a test says otherwise."""

    def __init__(self) -> None:
        self.data = bytearray(16 * PAGE)
        self.shared = set(range(1, 8))
        self.chains = 0

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.data):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return bytes(self.data[address : address + length])

    def find_private(self, address: int, length: int) -> tuple[int, str] | None:
        for page in range(address // PAGE, min((address + length - 1) // PAGE, 1 << 20) + 1):
            if page * PAGE >= len(self.data):
                return page * PAGE, "lies outside guest storage"
            if page not in self.shared:
                return max(address, page * PAGE), "is a private page"
        return None

    def describe(self, number: int, descriptor: Descriptor, *, table: int = LAYOUT.descriptors) -> None:
        self.data[table + 16 * number : table + 16 * number + 16] = descriptor.pack()

    def offer(self, head: int) -> None:
        struct.pack_into("<H", self.data, LAYOUT.available + 4 + 2 * (self.chains % LAYOUT.size), head)
        self.chains = (self.chains + 1) % 0x10000
        struct.pack_into("<H", self.data, LAYOUT.available + 2, self.chains)


def audit(memory: Memory) -> QueueAudit:
    return QueueAudit("virtio-blk 0.0.0001", 0, LAYOUT, memory.read, memory.find_private)


def test_a_chain_in_shared_pages_passes_and_is_counted_by_direction() -> None:
    memory = Memory()
    memory.describe(2, Descriptor(0x4000, 16, NEXT, 5))
    memory.describe(5, Descriptor(0x5000, 512, NEXT | WRITE, 1))
    memory.describe(1, Descriptor(0x6000, 1, WRITE, 0))
    memory.offer(2)
    watched = audit(memory)
    assert watched.notified() == []
    assert watched.notified() == [], "a second notification sees nothing new"
    activity = watched.activity
    assert (activity.notifications, activity.chains, activity.descriptors) == (2, 1, 3)
    assert (activity.bytes_to_device, activity.bytes_from_device) == (16, 513)


def test_a_buffer_that_reaches_into_a_private_page_names_everything() -> None:
    memory = Memory()
    memory.shared.discard(6)
    memory.describe(0, Descriptor(0x5800, 0x1000, DescriptorFlag(0), 0))
    memory.offer(0)
    (violation,) = audit(memory).notified()
    assert str(violation) == "virtio-blk 0.0.0001 queue 0: descriptor 0 at 0x6000 is a private page"


def test_a_private_ring_is_refused_before_it_is_read() -> None:
    memory = Memory()
    memory.shared.discard(2)
    watched = audit(memory)
    assert [violation.part for violation in watched.notified()] == ["available ring"]
    assert watched.activity.chains == 0


def test_indirect_tables_are_walked_and_their_own_memory_is_checked() -> None:
    memory = Memory()
    memory.describe(3, Descriptor(0x4000, 32, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 8, NEXT, 1), table=0x4000)
    memory.describe(1, Descriptor(0x9000, 8, WRITE, 0), table=0x4000)
    memory.offer(3)
    (violation,) = audit(memory).notified()
    assert (violation.part, violation.address) == ("descriptor 1 of the indirect table at descriptor 3", 0x9000)
    memory.shared = {1, 2, 3, 5, 9}
    memory.offer(3)
    assert [violation.address for violation in audit(memory).notified()] == [0x4000, 0x4000]


def test_an_indirect_table_inside_another_is_refused() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 16, INDIRECT, 0))
    memory.describe(0, Descriptor(0x5000, 16, INDIRECT, 0), table=0x4000)
    memory.offer(0)
    assert [violation.reason for violation in audit(memory).notified()] == ["is an indirect table inside another"]


def test_a_chain_that_loops_ends() -> None:
    memory = Memory()
    memory.describe(0, Descriptor(0x4000, 8, NEXT, 0))
    memory.offer(0)
    assert "without an end" in str(audit(memory).notified()[-1])


def test_the_running_index_wraps() -> None:
    memory = Memory()
    memory.chains = 0xFFFF
    struct.pack_into("<H", memory.data, LAYOUT.available + 2, memory.chains)
    watched = audit(memory)
    watched.notified()
    chains = watched.activity.chains
    memory.describe(0, Descriptor(0x4000, 8, DescriptorFlag(0), 0))
    memory.offer(0)
    memory.offer(0)
    assert watched.notified() == []
    assert watched.activity.chains == chains + 2


@given(st.binary(min_size=0x80, max_size=0x80), st.binary(min_size=22, max_size=22))
def test_hostile_rings_never_raise(table: bytes, ring: bytes) -> None:
    memory = Memory()
    memory.data[0x1000:0x1080] = table
    memory.data[0x2000:0x2016] = ring
    for violation in audit(memory).notified():
        assert violation.reason
