"""Address translation: every exception the architecture names, prefixing, large frames, hostile tables."""

from __future__ import annotations

import dataclasses

import pytest

from zseal.arch.dat import CpuMemory, mapped_ranges, real_to_absolute, translate
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import AddressSpace, Psw
from zseal.errors import FormatError

DAT_ON = 0x0400C00180000000


class Memory:
    """Absolute storage in a bytearray."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    @property
    def size(self) -> int:
        return len(self.data)

    def _check(self, address: int, length: int) -> None:
        if address < 0 or address + length > len(self.data):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)

    def read(self, address: int, length: int) -> bytes:
        self._check(address, length)
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._check(address, len(data))
        self.data[address : address + len(data)] = data

    def view(self, address: int, length: int) -> memoryview:
        self._check(address, length)
        return memoryview(self.data)[address : address + length]


@dataclasses.dataclass
class FakeCpu:
    """The registers that translation looks at."""

    psw: Psw = dataclasses.field(default_factory=lambda: Psw(0x0000000180000000, 0))
    prefix: int = 0
    crs: dict[int, int] = dataclasses.field(default_factory=dict)
    ars: dict[int, int] = dataclasses.field(default_factory=dict)

    def cr(self, number: int) -> int:
        return self.crs.get(number, 0)

    def ar(self, number: int) -> int:
        return self.ars.get(number, 0)


class Tables:
    """Builds translation tables in a Memory, from ``origin`` upward; one address space."""

    def __init__(self, memory: Memory, origin: int, level: int) -> None:
        self.memory = memory
        self.level = level
        self._next = origin
        self.root = self._new(level)

    @property
    def asce(self) -> int:
        return self.root | self.level << 2 | 3

    def _new(self, level: int) -> int:
        """An empty table (all entries invalid) of 16 KiB, or a page table of 2 KiB in a frame of its own."""
        origin = self._next
        entries, invalid = (256, 0x400) if level < 0 else (2048, 0x20)
        self._next += max(4096, entries * 8)
        for index in range(entries):
            self.put(origin + index * 8, invalid)
        return origin

    def put(self, address: int, entry: int) -> None:
        self.memory.write(address, entry.to_bytes(8, "big"))

    def get(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "big")

    def slot(self, virtual: int, level: int) -> int:
        """The address of the entry for ``virtual`` in the table of ``level`` (-1: page table), made if needed."""
        table = self.root
        for current in range(self.level, level, -1):
            address = table + (virtual >> (20 + 11 * current) & 0x7FF) * 8
            if self.get(address) & 0x20:
                self.put(address, self._new(current - 1) | (current << 2 | 3 if current else 0))
            table = self.get(address) & ~0xFFF
        index = virtual >> 12 & 0xFF if level < 0 else virtual >> (20 + 11 * level) & 0x7FF
        return table + index * 8

    def map(self, virtual: int, entry: int) -> None:
        self.put(self.slot(virtual, -1), entry)


@pytest.fixture
def memory() -> Memory:
    return Memory(4 << 20)


def code_of(memory: Memory, asce: int, virtual: int, *, write: bool = False) -> ProgramCode:
    with pytest.raises(ProgramInterruption) as caught:
        translate(memory, asce, virtual, write=write)
    assert caught.value.address == virtual
    return caught.value.code


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_page_is_found_through_tables_of_every_height(memory: Memory, level: int) -> None:
    tables = Tables(memory, 0x100000, level)
    virtual = (0x7FF << 20 | 0x55000) + (0x7FF << 31 if level else 0) + (0x401 << 42 if level > 1 else 0)
    virtual += 0x3 << 53 if level > 2 else 0
    tables.map(virtual, 0x9000)
    assert translate(memory, tables.asce, virtual + 0xABC) == 0x9ABC
    assert list(mapped_ranges(memory, tables.asce)) == [(virtual, 0x9000, 0x1000)]


def test_an_address_above_the_tables_is_an_asce_type_exception(memory: Memory) -> None:
    for level, limit in ((0, 31), (1, 42), (2, 53)):
        tables = Tables(memory, 0x100000, level)
        assert code_of(memory, tables.asce, 1 << limit) is ProgramCode.ASCE_TYPE


def test_invalid_entries_raise_the_code_of_their_level(memory: Memory) -> None:
    expected = [
        ProgramCode.REGION_FIRST_TRANSLATION,
        ProgramCode.REGION_SECOND_TRANSLATION,
        ProgramCode.REGION_THIRD_TRANSLATION,
        ProgramCode.SEGMENT_TRANSLATION,
        ProgramCode.PAGE_TRANSLATION,
    ]
    tables = Tables(memory, 0x100000, 3)
    for level, code in zip((2, 1, 0, -1), expected, strict=False):
        assert code_of(memory, tables.asce, 0x1234) is code
        tables.slot(0x1234, level)
    assert code_of(memory, tables.asce, 0x1234) is ProgramCode.PAGE_TRANSLATION


def test_table_length_and_offset_bound_the_index(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    high = 0x600 << 20
    tables.map(high, 0x9000)
    tables.map(0x1000, 0xA000)
    slot = tables.slot(high, 1)
    entry = tables.get(slot)
    assert translate(memory, tables.asce, high) == 0x9000
    tables.put(slot, entry & ~3 | 2)  # the segment table ends behind its third quarter
    assert code_of(memory, tables.asce, high) is ProgramCode.SEGMENT_TRANSLATION
    assert list(mapped_ranges(memory, tables.asce)) == [(0x1000, 0xA000, 0x1000)]
    tables.put(slot, entry | 1 << 6)  # and begins with its second quarter
    assert code_of(memory, tables.asce, 0x1000) is ProgramCode.SEGMENT_TRANSLATION
    assert list(mapped_ranges(memory, tables.asce)) == [(high, 0x9000, 0x1000)]
    assert code_of(memory, tables.asce & ~3, 0x200 << 31) is ProgramCode.REGION_THIRD_TRANSLATION


def test_wrong_types_and_reserved_bits_are_translation_specification(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.map(0x1000, 0x9000)
    for level, wrong in ((1, 8), (0, 4)):
        slot = tables.slot(0x1000, level)
        entry = tables.get(slot)
        tables.put(slot, entry ^ wrong)
        assert code_of(memory, tables.asce, 0x1000) is ProgramCode.TRANSLATION_SPECIFICATION
        assert list(mapped_ranges(memory, tables.asce)) == []
        tables.put(slot, entry)
    tables.map(0x1000, 0x9800)
    assert code_of(memory, tables.asce, 0x1000) is ProgramCode.TRANSLATION_SPECIFICATION
    tables.map(0x1000, 0x9000)
    segment = tables.slot(0x1000, 0)
    tables.put(segment, tables.get(segment) | 0x10)
    assert translate(memory, tables.asce, 0x1000) == 0x9000
    assert code_of(memory, tables.asce | 0x100, 0x1000) is ProgramCode.TRANSLATION_SPECIFICATION


def test_tables_outside_storage_are_addressing_exceptions(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.map(0x1000, 0x9000)
    assert code_of_any(memory, (1 << 40) | 7, 0x1000) is ProgramCode.ADDRESSING
    segment = tables.slot(0x1000, 0)
    tables.put(segment, 1 << 40)
    assert code_of_any(memory, tables.asce, 0x1000) is ProgramCode.ADDRESSING
    assert list(mapped_ranges(memory, tables.asce)) == []


def code_of_any(memory: Memory, asce: int, virtual: int) -> ProgramCode:
    with pytest.raises(ProgramInterruption) as caught:
        translate(memory, asce, virtual)
    return caught.value.code


@pytest.mark.parametrize("level", [1, 0, -1])
def test_protection_at_any_level_refuses_stores_only(memory: Memory, level: int) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.map(0x1000, 0x9000)
    slot = tables.slot(0x1000, level)
    tables.put(slot, tables.get(slot) | 0x200)
    assert translate(memory, tables.asce, 0x1008) == 0x9008
    assert code_of(memory, tables.asce, 0x1008, write=True) is ProgramCode.PROTECTION


def test_large_frames_of_one_mebibyte_and_two_gibibytes(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.put(tables.slot(0x300000, 0), 0x100000 | 0x400)
    assert translate(memory, tables.asce, 0x3ABCDE) == 0x1ABCDE
    tables.put(tables.slot(5 << 31, 1), 0x400 | 4)
    assert translate(memory, tables.asce, (5 << 31) + 0x12345) == 0x12345
    assert list(mapped_ranges(memory, tables.asce)) == [(0x300000, 0x100000, 0x100000), (5 << 31, 0, memory.size)]


def test_ranges_merge_clip_and_leave_out_what_can_not_be_executed(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    for number in range(6):
        tables.map(0xFE000 + number * 0x1000, 0x20000 + number * 0x1000)  # across a segment boundary
    assert list(mapped_ranges(memory, tables.asce)) == [(0xFE000, 0x20000, 0x6000)]
    assert list(mapped_ranges(memory, tables.asce, start=0xFF800, end=0x101000)) == [(0xFF800, 0x21800, 0x1800)]
    tables.map(0x100000, 0x22000 | 0x100)
    assert list(mapped_ranges(memory, tables.asce, executable_only=True)) == [
        (0xFE000, 0x20000, 0x2000),
        (0x101000, 0x23000, 0x3000),
    ]


def test_a_real_space_needs_no_tables(memory: Memory) -> None:
    assert translate(memory, 0x20, 0x1234, prefix=0x8000) == 0x9234
    assert list(mapped_ranges(memory, 0x20)) == [(0, 0, memory.size)]


def test_tables_in_circles_come_to_an_end() -> None:
    memory = Memory(0x10000)
    for index in range(2048):
        memory.write(0x4000 + index * 8, (0x4000 | 3 << 2 | 3).to_bytes(8, "big"))
        memory.write(0x8000 + index * 8, (0x8000 | 1 << 2 | 3).to_bytes(8, "big"))
    # A region-first entry cannot point to a table of its own type: every entry of that one is out of place.
    assert list(mapped_ranges(memory, 0x4000 | 3 << 2 | 3)) == []
    for index in range(2048):
        memory.write(0x4000 + index * 8, (0x8000 | 2 << 2 | 3).to_bytes(8, "big"))
        memory.write(0x8000 + index * 8, (0xC000 | 1 << 2 | 3).to_bytes(8, "big"))
        memory.write(0xC000 + index * 8, (0x20).to_bytes(8, "big"))
    with pytest.raises(FormatError, match="translation tables"):
        list(mapped_ranges(memory, 0x4000 | 2 << 2 | 3))


def test_prefixing_exchanges_two_areas() -> None:
    assert real_to_absolute(0x1FFF, 0x8000) == 0x9FFF
    assert real_to_absolute(0x8010, 0x8000) == 0x10
    assert real_to_absolute(0x2000, 0x8000) == 0x2000
    assert real_to_absolute(0x123, 0) == 0x123


def test_mapped_ranges_follow_prefixing(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.put(tables.slot(0, 0), 0x400)
    assert list(mapped_ranges(memory, tables.asce, prefix=0x8000)) == [
        (0, 0x8000, 0x2000),
        (0x2000, 0x2000, 0x6000),
        (0x8000, 0, 0x2000),
        (0xA000, 0xA000, 0xF6000),
    ]


def test_operands_without_translation_are_real_addresses(memory: Memory) -> None:
    view = CpuMemory(FakeCpu(prefix=0x8000), memory)
    view.write(0x1FFC, b"ABCDEFGH")  # the second half lies behind the lowcore
    assert memory.read(0x9FFC, 4) == b"ABCD"
    assert memory.read(0x2000, 4) == b"EFGH"
    assert view.read(0x1FFC, 8) == b"ABCDEFGH"
    with pytest.raises(ProgramInterruption) as caught:
        view.read(memory.size - 4, 8)
    assert caught.value.code is ProgramCode.ADDRESSING


def test_a_uvc_operand_is_in_the_home_space_and_pages_need_not_be_neighbours(memory: Memory) -> None:
    home, primary = Tables(memory, 0x100000, 1), Tables(memory, 0x200000, 1)
    home.map(0x1000, 0x9000)
    home.map(0x2000, 0x5000)
    primary.map(0x1000, 0xB000)
    cpu = FakeCpu(Psw(DAT_ON & ~0xC00000000000, 0), crs={1: primary.asce, 13: home.asce})
    CpuMemory(cpu, memory).write(0x1FFE, b"wxyz")
    assert (memory.read(0x9FFE, 2), memory.read(0x5000, 2)) == (b"wx", b"yz")
    CpuMemory(cpu, memory, space=None).write(0x1000, b"primary")
    assert memory.read(0xB000, 7) == b"primary"


def test_a_write_that_fails_in_its_last_page_stores_nothing(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 1)
    tables.map(0x1000, 0x9000)
    tables.map(0x2000, 0x5000 | 0x200)
    view = CpuMemory(FakeCpu(Psw(DAT_ON, 0), crs={13: tables.asce}), memory)
    with pytest.raises(ProgramInterruption) as caught:
        view.write(0x1FF0, bytes(range(1, 33)))
    assert caught.value.code is ProgramCode.PROTECTION
    assert caught.value.teid == 0x2000 | 4 | AddressSpace.HOME
    assert memory.read(0x9FF0, 16) == bytes(16)
    view.check(0x1FF0, 32, write=False)
    with pytest.raises(ProgramInterruption) as caught:
        view.check(0x2FF0, 32, write=False)
    assert caught.value.code is ProgramCode.PAGE_TRANSLATION
    assert caught.value.teid == 0x3000 | AddressSpace.HOME


def test_access_register_mode_takes_primary_and_secondary_by_token(memory: Memory) -> None:
    primary, secondary = Tables(memory, 0x100000, 1), Tables(memory, 0x200000, 1)
    primary.map(0, 0x9000)
    secondary.map(0, 0xA000)
    cpu = FakeCpu(Psw(DAT_ON & ~0xC00000000000 | 0x400000000000, 0), crs={1: primary.asce, 7: secondary.asce})
    cpu.ars = {0: 1, 2: 1, 3: 7}
    assert CpuMemory(cpu, memory, space=None, base=2).absolute(0) == 0xA000
    assert CpuMemory(cpu, memory, space=None, base=1).absolute(0) == 0x9000
    assert CpuMemory(cpu, memory, space=None, base=0).absolute(0) == 0x9000
    with pytest.raises(ProgramInterruption) as caught:
        CpuMemory(cpu, memory, space=None, base=3)
    assert caught.value.code is ProgramCode.ALEN_TRANSLATION


def test_low_address_protection_covers_two_stretches_of_the_lowcore(memory: Memory) -> None:
    view = CpuMemory(FakeCpu(crs={0: 0x10000000}), memory)
    for address in (0, 0x1FF, 0x1000, 0x11FF):
        with pytest.raises(ProgramInterruption) as caught:
            view.write(address, b"x")
        assert caught.value.code is ProgramCode.PROTECTION
    for address in (0x200, 0xFFF, 0x1200, 0x2000):
        view.write(address, b"x")
    view.read(0, 8)
    with pytest.raises(ProgramInterruption):
        view.write(0xFF8, bytes(16))
    assert memory.read(0xFF8, 7) == bytes(7)


def test_addresses_wrap_at_the_end_of_64_bits(memory: Memory) -> None:
    tables = Tables(memory, 0x100000, 3)
    tables.map((1 << 64) - 0x1000, 0x9000)
    tables.map(0, 0xA000)
    view = CpuMemory(FakeCpu(Psw(DAT_ON, 0), crs={13: tables.asce}), memory)
    view.write((1 << 64) - 2, b"wrap")
    assert (memory.read(0x9FFE, 2), memory.read(0xA000, 2)) == (b"wr", b"ap")
    with pytest.raises(ValueError, match="negative"):
        view.read(0, -1)
