"""Guest memory that two processes share."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB
from zseal.engine import memoryfile
from zseal.engine.memory import SharedMemory
from zseal.errors import InputError


@pytest.fixture(params=[False, True], ids=["small-pages", "large-pages"])
def memory(request: pytest.FixtureRequest) -> Iterator[SharedMemory]:
    """A memory that asks for large pages or not; it has none where the computer gives us none."""
    memory = SharedMemory(4 * MIB, large_pages=request.param)
    assert request.param or not memory.large_pages
    yield memory
    memory.close()
    memory.close()


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


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


def test_another_process_can_open_it_as_qemu_does(memory: SharedMemory) -> None:
    memory.write(0x5000, b"shared")
    program = f"file = open('/proc/self/fd/{memory.descriptor}', 'r+b'); file.seek(0x5000); file.write(b'SHARED')"
    subprocess.run([sys.executable, "-I", "-c", program], pass_fds=[memory.descriptor], check=True, timeout=PATIENCE)
    assert memory.read(0x5000, 6) == b"SHARED"


def test_nothing_stays_open() -> None:
    before, opened = _descriptors(), set()
    for large_pages in (True, False):
        memory = SharedMemory(4 * MIB, large_pages=large_pages)
        opened.add(len(_descriptors()))
        memory.close()
        assert _descriptors() == before
    assert len(opened) == 1


@pytest.mark.parametrize("refused", [memoryfile._FSOPEN, memoryfile._FSCONFIG, memoryfile._FSMOUNT])
def test_where_no_tmpfs_is_to_be_had_memory_has_small_pages(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    checked = memoryfile._checked

    def refusing(system_call: Callable[..., int], number: int, *arguments: object) -> int:
        if number == refused:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if os.geteuid() == 0:
            return checked(system_call, number, *arguments)
        return 0 if number == memoryfile._FSCONFIG else os.dup(0)

    monkeypatch.setattr(memoryfile, "_checked", refusing)
    before = _descriptors()
    memory = SharedMemory(MIB, large_pages=True)
    assert not memory.large_pages
    memory.write(MIB - 1, b"x")
    assert list(memory.used()) == [(MIB - 4096, 4096)]
    memory.close()
    assert _descriptors() == before


def test_who_may_mount_gets_large_pages() -> None:
    # the same by the tools for it, in a namespace of their own: no part of what is tested
    mounted = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "huge=always", "none", "/mnt"],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    memory = SharedMemory(MIB, large_pages=True)
    assert memory.large_pages or mounted.returncode
    memory.close()


def test_large_pages_are_used_as_a_whole() -> None:
    memory = SharedMemory(8 * MIB, large_pages=True)
    memory.write(5 * MIB, b"a")
    used = list(memory.used())
    memory.clear(0, 8 * MIB)
    assert list(memory.used()) == []
    memory.close()
    (run,) = used
    assert run == ((4 * MIB, 2 * MIB) if run[1] > 4096 else (5 * MIB, 4096))


def test_only_what_was_written_is_used() -> None:
    memory = SharedMemory(4 * MIB)
    assert list(memory.used()) == []
    memory.write(0x5000, b"a")
    memory.write(0x100000, b"b")
    assert list(memory.used()) == [(0x5000, 0x1000), (0x100000, 0x1000)]
    assert list(memory.used(0x5800)) == [(0x5800, 0x800), (0x100000, 0x1000)]
    memory.clear(0x5000, 0x1000)
    assert list(memory.used()) == [(0x100000, 0x1000)]
    memory.close()


@pytest.mark.parametrize("size", [0, -MIB, 4096, MIB + 1])
def test_memory_is_whole_mebibytes(size: int) -> None:
    with pytest.raises(InputError):
        SharedMemory(size)


def test_more_memory_than_can_be_mapped_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot provide"):
        SharedMemory(1 << 62)
