"""The file of pages that are out: its layout, and that whatever is wrong with it is read as something or refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.errors import FormatError, InputError
from zseal.guest.paging.page_file import (
    HEADER_SIZE,
    RECORD_SIZE,
    PageFileHeader,
    open_page_file,
    pack_records,
    read_pages,
)

PAGES = np.array([5, 6, 0x12345678])
DATA = b"".join(bytes([number]) * 4096 for number in (1, 2, 3))


def test_layout() -> None:
    header = PageFileHeader(bytes(range(16)), 3)
    packed = header.pack() + pack_records(PAGES, DATA)
    assert (HEADER_SIZE, RECORD_SIZE) == (64, 4104)
    assert len(packed) == 64 + 3 * 4104
    assert packed[:64] == struct.pack(">8sII16sQ", b"zsealPGS", 1, 4096, bytes(range(16)), 3) + bytes(24)
    assert packed[64 + 2 * 4104 :][:8] == bytes.fromhex("0000000012345678")
    assert packed[64 + 2 * 4104 + 8 :] == b"\3" * 4096
    assert PageFileHeader.unpack(packed) == header


def test_no_two_files_are_alike() -> None:
    assert PageFileHeader.new(1).identifier != PageFileHeader.new(1).identifier


def test_pages_are_read_by_the_number_of_their_record(tmp_path: Path) -> None:
    file = tmp_path / "pages"
    file.write_bytes(PageFileHeader.new(3).pack() + pack_records(PAGES, DATA))
    with open_page_file(file) as stream:
        assert read_pages(stream, 0, 3) == DATA
        assert read_pages(stream, 1, 1) == DATA[4096:8192]


@pytest.mark.parametrize("size", [0, 10, HEADER_SIZE, HEADER_SIZE + RECORD_SIZE, HEADER_SIZE + RECORD_SIZE + 100])
def test_what_a_short_file_lacks_is_read_as_zeros(tmp_path: Path, size: int) -> None:
    file = tmp_path / "pages"
    whole = PageFileHeader.new(3).pack() + pack_records(PAGES, DATA)
    file.write_bytes(whole[:size])
    with open_page_file(file) as stream:
        found = read_pages(stream, 0, 3)
    kept = b"".join(whole[at + 8 : at + RECORD_SIZE] for at in range(HEADER_SIZE, size, RECORD_SIZE))
    kept = kept[: max(0, sum(max(0, min(size - at, RECORD_SIZE) - 8) for at in range(HEADER_SIZE, size, RECORD_SIZE)))]
    assert found == kept.ljust(3 * 4096, b"\0")


@given(st.binary(max_size=200))
def test_header_of_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        PageFileHeader.unpack(data)


@pytest.mark.parametrize("at", [11, 14])
def test_header_of_another_version_is_refused(at: int) -> None:
    data = bytearray(PageFileHeader.new(1).pack())
    data[at] ^= 1
    with pytest.raises(FormatError, match="cannot be read"):
        PageFileHeader.unpack(bytes(data))


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="ordinary file"):
        open_page_file(tmp_path / "fifo")  # and does not wait for a writer
    with pytest.raises(InputError, match="ordinary file"):
        open_page_file(tmp_path)
    with pytest.raises(InputError, match="cannot read the page file: No such file"):
        open_page_file(tmp_path / "missing")
