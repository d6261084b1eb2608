"""Known failures are recognised in a guest's console output, however it is cut into pieces, and explained."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.engine.interface import Interrupted
from zseal.guest.diagnosis import ConsoleWatch, Diagnosis, explain_end, refused_function
from zseal.linux.swiotlb import SLOT_SIZE

NO_IOMMU = b"[    2.345678] virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM\r\n"
FULL = (
    b"[   12.000001] virtio_blk virtio1: swiotlb buffer is full (sz: 262144 bytes), "
    b"total 32768 (slots), used 28249 (slots)\r\n"
)


def diagnose(*pieces: bytes) -> list[Diagnosis]:
    watch = ConsoleWatch()
    for piece in pieces:
        watch.feed(piece)
    watch.finish()
    return list(watch.diagnoses)


def test_device_without_iommu_is_named_and_explained() -> None:
    (found,) = diagnose(b"boot\r\n", NO_IOMMU, b"more\r\n")
    assert found.id == "virtio-without-iommu"
    assert "virtio_blk device virtio0" in found.message
    assert "iommu_platform=on" in found.hint
    assert found.line == "[    2.345678] virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM"


def test_full_bounce_buffers_come_with_the_arithmetic() -> None:
    (found,) = diagnose(FULL)
    assert found.id == "swiotlb-full"
    assert "262144 bytes needs 128 slots of 2 KiB" in found.message
    assert "28249 of 32768 slots (56498 KiB of 64 MiB)" in found.message
    assert "swiotlb=65536" in found.hint
    assert "65536 slots x 2 KiB = 128 MiB" in found.hint


@pytest.mark.parametrize("total", [1, 100, 4096, 30000, 262144])
def test_suggested_pool_is_a_power_of_two_at_least_twice_as_large_and_no_smaller_than_by_default(total: int) -> None:
    (found,) = diagnose(f"swiotlb buffer is full (sz: 4096 bytes), total {total} (slots), used 1 (slots)".encode())
    suggested = re.search(r"swiotlb=(\d+)", found.hint)
    assert suggested is not None
    slots = int(suggested[1])
    assert slots >= max(2 * total, 32768)
    assert slots & (slots - 1) == 0
    assert f"{slots * SLOT_SIZE // 1024}" in found.hint or f"{slots * SLOT_SIZE >> 20} MiB" in found.hint


@pytest.mark.parametrize("total", [524288, 999999999999])
def test_no_pool_is_suggested_that_can_not_be(total: int) -> None:
    (found,) = diagnose(f"swiotlb buffer is full (sz: 4096 bytes), total {total} (slots), used 1 (slots)".encode())
    assert "swiotlb=" not in found.hint
    assert "1024 MiB is the largest pool" in found.hint


def test_suggestion_says_what_is_not_known() -> None:
    (found,) = diagnose(FULL)
    assert "does not say how much more was waiting" in found.hint


def test_transfer_larger_than_a_segment_is_no_matter_of_the_pool() -> None:
    (found,) = diagnose(FULL.replace(b"262144", b"262145"))
    assert "no pool can take it" in found.hint
    assert "swiotlb=" not in found.hint


def test_short_form_of_older_kernels_is_recognised() -> None:
    (found,) = diagnose(b"swiotlb buffer is full (sz: 4096 bytes)\n")
    assert found.id == "swiotlb-full"


def test_each_device_is_told_once_and_counted() -> None:
    found = diagnose(NO_IOMMU, NO_IOMMU, NO_IOMMU.replace(b"blk virtio0", b"net virtio1"), FULL, FULL)
    assert [(item.id, item.count) for item in found] == [
        ("virtio-without-iommu", 2),
        ("virtio-without-iommu", 1),
        ("swiotlb-full", 2),
    ]


@pytest.mark.parametrize("mark", ["#", "*"])
def test_ultravisor_call_that_ended_in_an_oops_is_named(mark: str) -> None:
    (found,) = diagnose(
        b"[    7.29] Krnl Code: 000003ff7e628462: 4110f108\t\tla\t%r1,264(%r15)\r\n"
        + f"[    7.29]           {mark}000003ff7e628466: b9a40021\t\tuvc\t%r2,%r1,0\r\n".encode()
        + b"[    7.29]           >000003ff7e62846a: b2220000\t\tipm\t%r0\r\n"
    )
    assert found.id == "missed-call"
    assert "at 0x3ff7e628466," in found.message
    assert found.line.endswith("b9a40021  uvc %r2,%r1,0")


UVC, DIAG_308, OTHER = (bytes.fromhex(code) for code in ("b9a40034", "834a0308", "83020044"))


@pytest.mark.parametrize(
    ("code", "instruction", "expected"),
    [
        (1, UVC, "missed-call"),
        (6, DIAG_308, "diag308-refused"),
        (6, UVC, None),
        (1, DIAG_308, None),
        (6, OTHER, None),
        (1, b"\0\0", None),
    ],
)
def test_instruction_that_a_kernel_stopped_at_is_explained(code: int, instruction: bytes, expected: str | None) -> None:
    found = explain_end(Interrupted(code, 0x3FFE0001234, instruction))
    assert (found.id if found is not None else None) == expected


def test_refused_reipl_comes_with_its_remedy() -> None:
    for subcode in (None, 4):
        found = refused_function(subcode)
        assert "re-IPL without clear" in found.message
        assert "subcode 4" in found.message
        assert "echo 1 > /sys/firmware/reipl/ccw/clear" in found.hint
    assert "function 7 of DIAGNOSE 0x308" in refused_function(7).message
    assert "reipl" not in refused_function(10).hint


def test_oops_near_an_ultravisor_call_is_another_matter() -> None:
    assert not diagnose(
        b"[    7.29]            000003ff7e628462: b9a40021\t\tuvc\t%r2,%r1,0\r\n"
        b"[    7.29]           #000003ff7e628466: e3b0f0b00004\tlg\t%r11,176(%r15)\r\n"
        b"[    7.29]           >000003ff7e62846c: b9a40021\t\tuvc\t%r2,%r1,0\r\n"
    )


def test_terminal_sequences_do_not_hide_a_line() -> None:
    assert diagnose(b"\x1b[1;31mvirtio_rng virtio2: \x1b[0mdevice must provide VIRTIO_F_ACCESS_PLATFORM")


def test_channels_do_not_mix() -> None:
    watch = ConsoleWatch()
    watch.feed(b"device must provide ", "terminal")
    watch.feed(b"VIRTIO_F_ACCESS_PLATFORM\n", "line-mode")
    watch.finish()
    assert not watch.diagnoses


@given(st.lists(st.integers(0, len(NO_IOMMU + FULL)), max_size=12).map(sorted))
def test_result_does_not_depend_on_how_output_is_cut(cuts: list[int]) -> None:
    text = NO_IOMMU + FULL
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert diagnose(*pieces) == diagnose(text)


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_output_is_taken(pieces: list[bytes]) -> None:
    assert diagnose(*pieces) == []


def test_endless_lines_and_endless_devices_are_bounded() -> None:
    watch = ConsoleWatch()
    for _ in range(100):
        watch.feed(b"x" * 100_000)
    watch.feed(b"\n")
    for number in range(1000):
        watch.feed(NO_IOMMU.replace(b"virtio0", b"virtio%d" % number))
    assert len(watch.diagnoses) == 32
    assert all(len(item.line) <= 1024 for item in watch.diagnoses)
    assert sum(map(len, watch._rests.values())) <= 1024


def test_missing_vector_facility_is_explained_with_the_option_that_gives_it() -> None:
    (found,) = diagnose(b"Detected machine-type number: 8561\r\nMissing facilities: 57,129,134-135\r\n")
    assert found.id == "facilities-missing"
    assert "57,129,134-135" in found.message
    assert "-- -cpu max" in found.hint
    (other,) = diagnose(b"Missing facilities: 12,1290\r\n")
    assert "-cpu max" not in other.hint


def test_no_pool_at_all_is_no_small_pool() -> None:
    for line in (
        b"virtio_blk virtio0: swiotlb buffer is full (sz: 4096 bytes), total 0 (slots), used 0 (slots)\r\n",
        b"Can not allocate SWIOTLB buffer earlier and can't now provide you with the DMA bounce buffer\r\n",
    ):
        (found,) = diagnose(line)
        assert found.id == "swiotlb-none"
        assert "noforce" in found.hint


def test_a_pool_that_the_kernel_made_smaller_is_told_with_both_sizes() -> None:
    (found,) = diagnose(b"software IO TLB: SWIOTLB bounce buffer size adjusted 262144 -> 65536 slabs\r\n")
    assert found.id == "swiotlb-shrunk"
    assert "65536 slots (128 MiB) instead of 262144 (512 MiB)" in found.message
    assert "swiotlb=65536" in found.hint


def test_a_kernel_without_room_to_unpack_itself_needs_memory() -> None:
    found = diagnose(b"Out of memory allocating 11082a bytes 8 aligned in range 0:2000000\n\n -- System halted\n")
    assert [item.id for item in found] == ["no-room-for-kernel"]
    assert "more memory" in found[0].hint


@pytest.mark.parametrize(
    ("reason", "message", "hint"),
    [
        (b"VFS: Unable to mount root fs on unknown-block(0,0)", "cannot mount its root file system", "ramdisk"),
        (b"No working init found.", "no program to start", "/init"),
        (b"Attempted to kill init! exitcode=0x00007f00", "exit status 127", "init must never end"),
        (b"out of the ordinary", "stopped itself: out of the ordinary", "lines above"),
    ],
)
def test_the_reason_of_a_panic_is_told(reason: bytes, message: str, hint: str) -> None:
    (found,) = diagnose(b"[    1.0] Kernel panic - not syncing: " + reason + b"\r\n")
    assert found.id == "kernel-panic"
    assert message in found.message
    assert hint in found.hint


def test_the_panic_after_a_missed_call_is_not_explained_again() -> None:
    found = diagnose(
        b"00000000001123a4: b9a40001 \r\n#00000000001123a8: b9a4 0001 uvc\r\n".replace(b"b9a4 0001", b"b9a40001"),
        b"Kernel panic - not syncing: Fatal exception: panic_on_oops\r\n",
    )
    assert [item.id for item in found] == ["missed-call"]


def test_a_missing_root_disk_is_told() -> None:
    found = diagnose(b"ALERT!  /dev/vda1 does not exist.  Dropping to a shell!\r\n")
    assert [item.id for item in found] == ["root-missing"]


@pytest.mark.parametrize(("code", "expected"), [(b"0005", "no-room-for-kernel"), (b"0001", "boot-fault")])
def test_a_fault_in_the_decompressor_is_told(code: bytes, expected: str) -> None:
    (found,) = diagnose(b"Kernel fault: interruption code " + code + b" ilc:3\r\n")
    assert found.id == expected
    assert "more memory" in found.hint
