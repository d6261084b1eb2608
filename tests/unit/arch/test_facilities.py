"""The facility list: bit numbering, what STFLE stores, and adding bits to a list that a CPU stored."""

from __future__ import annotations

import pytest

from zseal.arch.facilities import (
    Facility,
    amend_facility_list,
    facility_bits,
    facility_list,
    has_facility,
    store_facility_list,
)


class Buffer:
    """Operand memory that records what is stored at 0."""

    def __init__(self, size: int = 64) -> None:
        self.data = bytearray(b"\xee" * size)

    designation = None

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.data[address : address + len(data)] = data

    def check(self, address: int, length: int, *, write: bool) -> None: ...


def test_bit_161_is_where_boot_code_looks_for_it() -> None:
    data = facility_list([Facility.UNPACK])
    assert len(data) == 24
    assert data[20] == 0x40
    assert facility_bits(data) == [161]
    assert has_facility(data, 161)
    assert not has_facility(data, 158)
    assert not has_facility(data, 400)


@pytest.mark.parametrize(("wanted", "stored", "cc"), [(1, 8, 3), (2, 16, 3), (3, 24, 0), (32, 24, 0)])
def test_only_the_doublewords_asked_for_are_stored(wanted: int, stored: int, cc: int) -> None:
    buffer = Buffer()
    facilities = facility_list([1, 7, 158])
    assert store_facility_list(buffer, 0, 0xABCD00 | wanted - 1, facilities) == (0xABCD02, cc)
    assert buffer.data == facilities[:stored] + b"\xee" * (64 - stored)


@pytest.mark.parametrize("present", [1, 2, 3, 4])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 32])
def test_an_amended_list_is_what_a_machine_with_these_facilities_stores(present: int, wanted: int) -> None:
    own = {2, 64 * present - 1}
    cpu_list, whole = facility_list(own), facility_list(own | {158, 161})
    by_cpu, by_machine = Buffer(), Buffer()
    r0, _ = store_facility_list(by_cpu, 0, wanted - 1, cpu_list)
    expected = store_facility_list(by_machine, 0, wanted - 1, whole)
    assert amend_facility_list(by_cpu, 0, r0_before=wanted - 1, r0_after=r0, add=(158, 161)) == expected
    assert by_cpu.data == by_machine.data
