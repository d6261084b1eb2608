"""Hostile images: no crash, no unbounded memory or time, whatever the bytes."""

from __future__ import annotations

import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpora import replay
from tests.fuzz.image_targets import IPIB_OFFSET, TARGETS, file, known_image, machine, patched
from zseal.errors import FormatError, ZsealError
from zseal.image.model import Component
from zseal.image.read import read_image
from zseal.image.stage3b import find_arguments
from zseal.image.verify import verify_image

CALM = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_any_bytes_are_understood_or_refused(target: Callable[[bytes], None]) -> None:
    @CALM
    @given(st.binary(max_size=3000))
    def run(data: bytes) -> None:
        target(data)

    run()


def test_what_fuzzing_found_stays_harmless() -> None:
    assert replay("image", TARGETS) > 50


INTERESTING = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
# short PSW, metadata, stage3a's arguments, header, component list: where offsets and sizes are
PLACES = (
    st.integers(0xC000, 0xC01B)
    | st.integers(0x11218, 0x1122F)
    | st.integers(0x14000, 0x142CF)
    | st.integers(IPIB_OFFSET, IPIB_OFFSET + 231)
)


@CALM
@given(st.lists(st.tuples(PLACES, st.lists(INTERESTING, min_size=1, max_size=8)), min_size=1, max_size=6))
def test_changed_offsets_and_sizes_never_crash(changes: list[tuple[int, list[int]]]) -> None:
    patched(b"".join(place.to_bytes(3, "big") + bytes([len(new)]) + bytes(new) for place, new in changes))


def timed(data: bytes) -> float:
    started = time.process_time()
    file(data)
    return time.process_time() - started


@pytest.mark.parametrize(
    "data",
    [
        b"IBMSecEx" * (2 << 20),
        b"SeImgLnx" * (2 << 20),
        (b"IBMSecEx" + struct.pack(">II", 0x100, 8192)) * (1 << 20),
        bytes(0x14000) + b"IBMSecEx" + struct.pack(">II", 0x100, 8192) + b"\xff" * 8176,
        bytes(0x10000) + struct.pack(">Q", 0x4000) * 0x800 + known_image()[0x14000:],
    ],
    ids=["magics", "metadata", "headers", "ones", "arguments"],
)
def test_files_made_to_waste_time_end_soon(data: bytes) -> None:
    assert timed(data) < 20


def test_holes_of_a_sparse_file_are_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(1 << 42)
        started = time.process_time()
        with pytest.raises(FormatError, match="no SE header found"):
            read_image(path)
        stream.seek((1 << 41) + 4096)
        stream.write(known_image())
        stream.flush()
        assert read_image(path).base == (1 << 41) + 4096
        assert time.process_time() - started < 20


def test_huge_component_list_does_not_make_huge_work() -> None:
    """165 components that all cover the whole file are refused by their number of pages alone."""
    entries = b"".join(struct.pack(">QQQ", n, 0, 0x1A000) for n in range(1, 166))
    ipib = bytearray(known_image()[IPIB_OFFSET : IPIB_OFFSET + 0x88] + entries)
    ipib[0:4], ipib[0x74:0x78] = struct.pack(">I", len(ipib)), struct.pack(">I", 165)
    data = known_image()[:IPIB_OFFSET] + ipib
    with pytest.raises(ZsealError, match="rrc 0x001d"):
        verify_image(data, machine())


@pytest.mark.parametrize("offset", [1 << 62, (1 << 64) - 1, 1 << 63, 0xFFFFFFFF])
def test_offsets_beyond_any_file_are_harmless(offset: int) -> None:
    data = bytearray(known_image())
    data[0xC008:0xC010] = struct.pack(">Q", offset)
    with pytest.raises(FormatError, match="no SE header is there"):
        read_image(bytes(data))
    data = bytearray(known_image())
    data[0xC014:0xC01C] = struct.pack(">Q", offset)
    assert read_image(bytes(data)).ipib is None


def test_boot_loader_shorter_than_its_arguments_has_none() -> None:
    """Found by fuzzing."""
    part = Component(None, 1, 0x17000, 4096)
    assert find_arguments(bytes(26) + part.address.to_bytes(8, "big") + bytes(16), [part]) is None


def test_memory_does_not_follow_sizes_in_the_file() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bytearray(known_image())
    struct.pack_into(">Q", data, IPIB_OFFSET + 0x88 + 16, 1 << 40)
    with pytest.raises(ZsealError):
        verify_image(bytes(data), machine())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
