"""Finding the instructions that firmware completes, in code laid out by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from zseal.arch.storage import MIB
from zseal.engine.interface import TrapKind
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.sites import Sites, Stage
from zseal.linux import kernel_file

STFLE = bytes.fromhex("b2b0f0a0")
UVC = bytes.fromhex("b9a40034")
LPSWE = bytes.fromhex("b2b2f0a0")
DIAG_308 = bytes.fromhex("83120308")
FILLER = bytes.fromhex("a7110fff")  # tmll %r1,4095: four bytes, found in front of UVCs
LONG = bytes.fromhex("ec02fffa017e")  # six bytes

NO_TABLES = 0x20  # an ASCE with real-space control: virtual is real


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(16 * MIB)
    yield memory
    memory.close()


def sites_of(memory: SharedMemory, entry: int = kernel_file.ENTRY) -> Sites:
    return Sites(memory, entry)


def code(*parts: bytes) -> bytes:
    return FILLER * 20 + b"".join(parts) + FILLER * 20


def found(sites: Sites) -> dict[int, TrapKind | None]:
    return {address: sites.kind(address) for address in sites}


def test_before_the_start_only_the_entries_are_watched(memory: SharedMemory) -> None:
    sites = sites_of(memory, 0x11000)
    assert found(sites) == {0x10000: TrapKind.IMAGE_ENTRY, 0x11000: TrapKind.IMAGE_ENTRY}


def test_the_image_is_searched_for_what_its_bootloader_needs(memory: SharedMemory) -> None:
    memory.write(0x11000, code(STFLE, DIAG_308, UVC, LPSWE))
    sites = sites_of(memory, 0x11000)
    sites.image_entered(0x11000)
    assert found(sites) == {
        0x10000: TrapKind.IMAGE_ENTRY,
        0x11000 + 80: TrapKind.STFLE,
        0x11000 + 84: TrapKind.DIAG_308,
    }


def test_protected_code_of_any_bootloader_is_not_searched(memory: SharedMemory) -> None:
    memory.write(0x11000, code(STFLE))
    sites = sites_of(memory)
    sites.image_entered(0x10000)
    sites.protected()
    assert found(sites) == {0x10000: TrapKind.IMAGE_ENTRY}
    assert sites.stage is Stage.BOOTLOADER


def test_boot_code_is_searched_up_to_the_compressed_kernel(memory: SharedMemory) -> None:
    text = code(STFLE, UVC, LPSWE, DIAG_308)
    memory.write(0x10000, text.ljust(0x2000, b"\7"))
    packed = random.Random(1).randbytes(1 << 20)
    memory.write(0x12000, packed[:0x8000] + STFLE + packed[0x8004:])
    sites = sites_of(memory)
    sites.kernel_entered(0x10000)
    assert found(sites) == {
        0x10000 + 80: TrapKind.STFLE,
        0x10000 + 84: TrapKind.UVC,
        0x10000 + 88: TrapKind.LPSWE,
        0x10000 + 92: TrapKind.DIAG_308,
    }


def test_kernel_that_begins_with_dat_off_is_searched_when_it_does(memory: SharedMemory) -> None:
    text = code(STFLE, UVC, LPSWE).ljust(0x2000, b"\7")
    told = b"".join(value.to_bytes(8, "big") for value in (0x100000, 0x100000, 0x8000, 0x1000))
    memory.write(0x10000, text + told + random.Random(1).randbytes(1 << 19))
    sites = sites_of(memory)
    sites.kernel_entered(0x10000)
    assert sites.unmapped_entry == 0x100000
    assert 0x100000 in set(sites)
    memory.write(0x100000, code(STFLE, UVC, LPSWE).ljust(0x8000, b"\7") + code(LPSWE))
    sites.unmapped_entered()
    assert found(sites) == {
        0x10000: TrapKind.IMAGE_ENTRY,
        0x100000 + 80: TrapKind.STFLE,
        0x100000 + 88: TrapKind.LPSWE,
    }
    sites.ultravisor_queried()  # is not the boot code's any longer
    assert sites.kind(0x100000 + 80) is TrapKind.STFLE
    sites.image()
    assert sites.unmapped_entry is None


def test_an_uncompressed_kernel_is_searched_to_its_end(memory: SharedMemory) -> None:
    memory.write(0x10000, FILLER * 0x40000 + UVC + FILLER * 20)
    sites = sites_of(memory)
    sites.kernel_entered(0x10000)
    assert found(sites) == {0x110000: TrapKind.UVC}


def test_bytes_in_the_middle_of_an_instruction_are_no_site(memory: SharedMemory) -> None:
    hidden = b"\xc0\x10" + UVC  # larl with an immediate that looks like a UVC
    memory.write(0x10000, code(LONG, hidden, LONG, UVC, b"\xc0\x10" + STFLE))
    sites = sites_of(memory)
    sites.kernel_entered(0x10000)
    assert found(sites) == {0x10000 + 80 + 18: TrapKind.UVC}


def test_a_uvc_with_bits_on_that_must_be_zero_is_a_site_in_small_code(memory: SharedMemory) -> None:
    memory.write(0x10000, code(bytes.fromhex("b9a41034")))
    sites = sites_of(memory)
    sites.kernel_entered(0x10000)
    assert found(sites) == {0x10000 + 80: TrapKind.UVC}


def test_the_kernel_proper_is_searched_where_it_is_mapped(memory: SharedMemory) -> None:
    memory.write(0x200000, code(UVC, STFLE, DIAG_308, LPSWE))
    sites = sites_of(memory)
    sites.kernel_proper(NO_TABLES, 0x200000)
    assert sites.stage is Stage.KERNEL
    assert found(sites) == {
        0x10000: TrapKind.IMAGE_ENTRY,
        0x200050: TrapKind.UVC,
        0x200054: TrapKind.STFLE,
        0x200058: TrapKind.DIAG_308,
    }
    sites.drop_kind(TrapKind.STFLE)
    sites.drop(0x200058)
    sites.drop(0x1234)
    assert found(sites) == {0x10000: TrapKind.IMAGE_ENTRY, 0x200050: TrapKind.UVC}


def test_calls_that_a_plugin_sees_are_no_sites(memory: SharedMemory) -> None:
    memory.write(0x10000, code(STFLE, UVC, DIAG_308, UVC))
    memory.write(0x200000, code(STFLE, UVC, DIAG_308))
    sites = sites_of(memory)
    sites.calls = False
    sites.kernel_entered(0x10000)
    assert found(sites) == {0x10000 + 80: TrapKind.STFLE, 0x10000 + 88: TrapKind.DIAG_308}
    assert not sites.resets_unseen
    sites.kernel_proper(NO_TABLES, 0x200000)
    assert set(found(sites).values()) == {TrapKind.STFLE}
    assert sites.kind(0x200000 + 80) is TrapKind.STFLE
    assert sites.exception_handler is None
    assert sites.resets_unseen


def test_what_starts_a_kernel_is_known_without_a_breakpoint_too(memory: SharedMemory) -> None:
    memory.write(0x10000, code(STFLE, LPSWE).ljust(0x2000, b"\7") + random.Random(1).randbytes(1 << 19))
    sites = sites_of(memory)
    sites.loads = False
    assert not sites.may_start_kernel(0x10000 + 84)
    sites.kernel_entered(0x10000)
    assert set(sites) == {0x10000 + 80}
    assert sites.may_start_kernel(0x10000 + 84)
    assert not sites.may_start_kernel(0x10000 + 80)
    sites.ultravisor_queried()
    assert set(sites) == set()
    assert sites.may_start_kernel(0x10000 + 84)
    sites.kernel_proper(NO_TABLES, 0x200000)
    assert not sites.may_start_kernel(0x10000 + 84)


def test_virtual_addresses_come_from_the_page_tables(memory: SharedMemory) -> None:
    segment_table, page_table, frame = 0x100000, 0x104000, 0x300000
    virtual = 0x7F0000
    memory.write(segment_table + (virtual >> 20) * 8, page_table.to_bytes(8, "big"))
    for page in range(256):
        memory.write(page_table + page * 8, (0x400).to_bytes(8, "big"))
    for entry in range(2048):
        if entry != virtual >> 20:
            memory.write(segment_table + entry * 8, (0x20).to_bytes(8, "big"))
    memory.write(page_table + (virtual >> 12 & 255) * 8, frame.to_bytes(8, "big"))
    memory.write(frame, code(UVC))
    sites = sites_of(memory)
    sites.kernel_proper(segment_table | 3, virtual)
    assert found(sites) == {0x10000: TrapKind.IMAGE_ENTRY, virtual + 80: TrapKind.UVC}


def test_storage_is_looked_through_once_however_a_kernel_maps_it(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_table, page_table, pages = 0x4000, 0x8000, 256
    memory.write(segment_table, page_table.to_bytes(8, "big") + (0x20).to_bytes(8, "big") * 2047)
    places = [0x800000 + page * 0x2000 for page in reversed(range(pages))]  # every second page, the last one first
    memory.write(page_table, b"".join(place.to_bytes(8, "big") for place in places))
    for place in places:
        memory.write(place, code(UVC))
    asked = []
    used = memory.used

    def counted(start: int = 0) -> Iterator[tuple[int, int]]:
        for run in used(start):
            asked.append(run)
            yield run

    monkeypatch.setattr(memory, "used", counted)
    sites = sites_of(memory)
    sites.kernel_proper(segment_table | 3, 0)
    assert {at for at, kind in found(sites).items() if kind is TrapKind.UVC} == {
        number * 0x1000 + 80 for number in range(pages)
    }
    assert len(asked) <= 3 * pages


def test_a_reset_forgets_everything(memory: SharedMemory) -> None:
    memory.write(0x200000, code(UVC))
    sites = sites_of(memory, 0x11000)
    sites.kernel_proper(NO_TABLES, 0x200000)
    sites.image()
    assert set(sites) == {0x10000, 0x11000}
    assert sites.stage is Stage.IMAGE
