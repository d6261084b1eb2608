"""Guest memory that two processes share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB
from zseal.engine.memory import SharedMemory
from zseal.errors import InputError


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(4 * MIB)
    yield memory
    memory.close()
    memory.close()


def test_what_is_written_is_read_by_whoever_has_the_descriptor(memory: SharedMemory) -> None:
    memory.write(0x1234, b"shared")
    assert memory.read(0x1234, 6) == b"shared"
    with mmap.mmap(memory.descriptor, 4 * MIB) as other:
        assert other[0x1234:0x123A] == b"shared"
        other[0x1234:0x123A] = b"SHARED"
    assert memory.read(0x1234, 6) == b"SHARED"
    assert not os.get_inheritable(memory.descriptor)


def test_a_view_writes_through(memory: SharedMemory) -> None:
    view = memory.view(8, 4)
    view[:] = b"abcd"
    view.release()
    assert memory.read(8, 4) == b"abcd"


@pytest.mark.parametrize(("address", "length"), [(-1, 1), (4 * MIB, 1), (4 * MIB - 1, 2), (0, -1), (1 << 60, 8)])
def test_accesses_outside_are_addressing_exceptions(memory: SharedMemory, address: int, length: int) -> None:
    for access in (memory.read, memory.view, memory.clear):
        with pytest.raises(ProgramInterruption) as caught:
            access(address, length)
        assert caught.value.code is ProgramCode.ADDRESSING


@pytest.mark.parametrize(("address", "length"), [(0, 8192), (100, 50), (4000, 200), (4090, 8200), (0, 4 * MIB)])
def test_clearing_clears_just_that(memory: SharedMemory, address: int, length: int) -> None:
    memory.write(0, b"x" * (5 * 4096))
    memory.clear(address, length)
    data = memory.read(0, 5 * 4096)
    end = min(address + length, 5 * 4096)
    assert data == b"x" * address + bytes(end - address) + b"x" * (5 * 4096 - end)


def test_only_what_was_written_is_used(memory: SharedMemory) -> None:
    assert list(memory.used()) == []
    memory.write(0x5000, b"a")
    memory.write(0x100000, b"b")
    assert list(memory.used()) == [(0x5000, 0x1000), (0x100000, 0x1000)]
    assert list(memory.used(0x5800)) == [(0x5800, 0x800), (0x100000, 0x1000)]
    memory.clear(0x5000, 0x1000)
    assert list(memory.used()) == [(0x100000, 0x1000)]


@pytest.mark.parametrize("size", [0, -MIB, 4096, MIB + 1])
def test_memory_is_whole_mebibytes(size: int) -> None:
    with pytest.raises(InputError):
        SharedMemory(size)


def test_more_memory_than_can_be_mapped_is_one_line() -> None:
    with pytest.raises(InputError, match="can't provide"):
        SharedMemory(1 << 62)
