"""Pages of a running guest leave as ciphertext, come back verified, and only as what they were."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.errors import InputError, OutputError
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.guest.paging.page_file import HEADER_SIZE, RECORD_SIZE, PageFileHeader, Pages, pack_records
from zseal.guest.paging.paging import PageIntegrityError
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from tests.integration.control.conftest import MEMORY, Seal
else:
    MEMORY, Seal = 32 << 20, object

pytestmark = pytest.mark.qemu

MARKER = "a-word-that-must-not-be-seen"
MARKER_ADDRESS = 0x100000
WORDS = f"marker={MARKER} share=2" + f" nap=500 holds=marker,{MARKER[:6]}" * 120


@pytest.fixture
def guest(machine: Machine, seal: Seal) -> Iterator[Guest]:
    """A guest that looks every now and then whether its private page still holds the marker."""
    with Guest(seal(WORDS), machine=machine, memory=MEMORY, timeout=PATIENCE) as guest:
        guest.wait_for_output("share pages=2 of 2", PATIENCE)
        yield guest


def finds_its_marker(guest: Guest) -> bool:
    """What the guest says of its private page when it looks the next time."""

    def looks() -> list[str]:
        events = (event.data for event in guest.events(0.0) if isinstance(event, ConsoleOutput))
        return re.findall(rf"holds address={MARKER_ADDRESS:#x} (\w+)", b"".join(events).decode())

    before = len(looks())
    return wait_until(lambda: looks()[before:])[0] == "yes"


def records(path: Path) -> list[bytes]:
    data = path.read_bytes()[HEADER_SIZE:]
    return [data[at : at + RECORD_SIZE] for at in range(0, len(data), RECORD_SIZE)]


def pages(guest: Guest) -> dict[str, int]:
    counts = guest.in_loop(lambda: guest.vmm.page_counts() if guest.vmm else {})
    return {name: count for name, count in counts.items() if count}


def test_all_private_pages_leave_and_come_back(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "pages"
    before = pages(guest)
    assert guest.page_out(file) == before["private"] == MEMORY // 4096 - 2
    assert pages(guest) == {"exported": before["private"], "shared": 2}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size == HEADER_SIZE + before["private"] * RECORD_SIZE
    assert PageFileHeader.unpack(file.read_bytes()).count == before["private"]
    assert MARKER.encode() not in file.read_bytes()
    assert guest.host.find(MARKER.encode()) is None
    assert guest.host.read_memory(MARKER_ADDRESS, 4096) == bytes(4096)
    guest.resume()
    assert pages(guest) == before
    assert finds_its_marker(guest)


def test_some_pages_leave_from_an_address_on(guest: Guest, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert guest.page_out(first, 3, start=MARKER_ADDRESS) == 3
    assert [int.from_bytes(record[:8]) for record in records(first)] == [0x100, 0x101, 0x102]
    assert guest.page_out(second, 1, start=MARKER_ADDRESS) == 1  # the next one that is private still
    assert [int.from_bytes(record[:8]) for record in records(second)] == [0x103]
    moved = tmp_path / "moved"
    first.rename(moved)
    assert guest.page_in(moved) == 3
    assert pages(guest)["exported"] == 1
    with pytest.raises(InputError, match="no pages of this guest wait"):
        guest.page_in(moved)
    guest.resume()
    assert finds_its_marker(guest)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + RECORD_SIZE + 8 + 100] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    head, (one, two, *rest) = path.read_bytes()[:HEADER_SIZE], records(path)
    path.write_bytes(head + one[:8] + two[8:] + two[:8] + one[8:] + b"".join(rest))


def truncate(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(HEADER_SIZE + RECORD_SIZE + 77)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("tamper", "page"), [(flip, 0x101), (swap, 0x100), (truncate, 0x101), (empty, 0x100)])
def test_a_tampered_file_ends_the_guest(
    guest: Guest, tmp_path: Path, tamper: Callable[[Path], None], page: int
) -> None:
    file = tmp_path / "pages"
    guest.page_out(file, 4, start=MARKER_ADDRESS)
    tamper(file)
    with pytest.raises(PageIntegrityError, match=f"integrity check failed for page {page << 12:#x} from {file}: "):
        guest.resume()
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.INTEGRITY
    assert result.outcome.exit_code == 8
    assert f"page {page << 12:#x}" in result.message


def test_a_replayed_file_ends_the_guest(guest: Guest, tmp_path: Path) -> None:
    file, old = tmp_path / "pages", tmp_path / "old"
    guest.page_out(file, 4, start=MARKER_ADDRESS)
    shutil.copy(file, old)
    guest.page_in(file)
    guest.page_out(file, 4, start=MARKER_ADDRESS, overwrite=True)
    with pytest.raises(InputError, match="no pages of this guest wait"):
        guest.page_in(old)
    shutil.copy(old, file)
    with pytest.raises(PageIntegrityError):
        guest.page_in(file)
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.INTEGRITY


def test_a_file_that_can_not_be_written_changes_nothing(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack_until_the_disk_is_full(indexes: Pages, data: bytes) -> bytes:
        if indexes[0] > 0x400:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pack_records(indexes, data)

    before = pages(guest)
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(OutputError, match="the output exists"):
        guest.page_out(tmp_path / "there")
    monkeypatch.setattr("zseal.guest.paging.paging.pack_records", pack_until_the_disk_is_full)
    with pytest.raises(OutputError, match="cannot write the output: No space left on device"):
        guest.page_out(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_bytes() == b"mine"
    assert pages(guest) == before
    assert finds_its_marker(guest)  # it goes on
