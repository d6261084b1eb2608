"""SE header layout: sizes, faults and the published vectors."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import paths
from zseal.errors import FormatError
from zseal.formats.key_slot import KeySlot
from zseal.formats.se_header import (
    MAX_KEY_SLOTS,
    FixedPart,
    HeaderError,
    HeaderFault,
    PlainFlags,
    SecretArea,
    SecretFlags,
    header_size,
    parse_header,
    read_header_size,
)
from zseal.secret import Secret

VECTORS = paths.VECTORS / "se-image"
HEADER = (VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes()
FACTS = json.loads((VECTORS / "se-hdr-genprotimg-2.35.json").read_text())


def changed(offset: int, value: bytes) -> bytes:
    return HEADER[:offset] + value + HEADER[offset + len(value) :]


def test_offsets_are_those_of_the_format() -> None:
    offsets = {name: spec.offset for name, spec in FixedPart.FIELDS.items()}
    assert offsets == {
        "magic": 0, "version": 8, "sehs": 12, "iv": 16, "res1": 0x1C, "nks": 0x20, "sea": 0x28, "nep": 0x30,
        "pcf": 0x38, "customer_key": 0x40, "pld": 0xE0, "ald": 0x120, "tld": 0x160,
    }  # fmt: skip
    assert (FixedPart.SIZE, KeySlot.SIZE) == (0x1A0, 80)


@pytest.mark.parametrize(("slots", "size"), [(1, 640), (2, 720), (44, 4080), (45, 4160), (95, 8160)])
def test_size_follows_the_number_of_slots(slots: int, size: int) -> None:
    assert header_size(slots) == size


def test_at_most_95_slots_fit() -> None:
    assert MAX_KEY_SLOTS == 95


def test_header_written_by_genprotimg_parses_and_packs_to_the_same_bytes() -> None:
    header = parse_header(HEADER)
    assert header.pack() == HEADER
    assert header.size == FACTS["sehs"] == read_header_size(HEADER[:16])
    assert header.fixed.nep == FACTS["nep"]
    assert header.fixed.iv.hex() == FACTS["iv"]
    assert header.fixed.customer_key.hex() == FACTS["cust"]
    assert header.fixed.pld.hex() == FACTS["pld"]
    assert header.slots[0].phkh.hex() == FACTS["phkh"]
    assert header.encrypted.hex() == FACTS["cipher"]
    assert header.tag.hex() == FACTS["tag"]
    assert header.pcf == PlainFlags.PCKMO_DEA | PlainFlags.PCKMO_AES | PlainFlags.PCKMO_ECC


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", HeaderFault.TRUNCATED),
        (HEADER[:15], HeaderFault.TRUNCATED),
        (HEADER[:100], HeaderFault.TRUNCATED),
        (b"X" + HEADER[1:], HeaderFault.MAGIC),
        (changed(8, b"\0\0\2\0"), HeaderFault.VERSION),
        (changed(12, (8193).to_bytes(4, "big")), HeaderFault.SIZE),
        (changed(12, (16).to_bytes(4, "big")), HeaderFault.SIZE),
        (HEADER + b"\0", HeaderFault.SIZE),
        (HEADER[:-1], HeaderFault.SIZE),
        (changed(0x20, bytes(8)), HeaderFault.NO_SLOTS),
        (changed(0x20, (2).to_bytes(8, "big")), HeaderFault.SIZE),
        (changed(0x20, b"\xff" * 8), HeaderFault.SIZE),
        (changed(0x28, (112).to_bytes(8, "big")), HeaderFault.AREA_SIZE),
        (changed(0x28, (129).to_bytes(8, "big")), HeaderFault.AREA_SIZE),
        (changed(0x28, b"\xff" * 7 + b"\xf0"), HeaderFault.AREA_SIZE),
        (changed(0x28, (144).to_bytes(8, "big")), HeaderFault.SIZE),
    ],
)
def test_every_structural_fault_is_told_apart(data: bytes, fault: HeaderFault) -> None:
    with pytest.raises(HeaderError) as raised:
        parse_header(data)
    assert raised.value.fault is fault


@given(st.binary(max_size=1200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(HeaderError):
        assert parse_header(data).pack() == data


@given(st.integers(0, len(HEADER) - 1), st.integers(1, 255))
def test_a_changed_header_parses_to_itself_or_is_refused(offset: int, flip: int) -> None:
    data = changed(offset, bytes([HEADER[offset] ^ flip]))
    with contextlib.suppress(HeaderError):
        assert parse_header(data).pack() == data


def area(**changes: int) -> SecretArea:
    return SecretArea(
        cck=Secret(b"c" * 32), image_key=Secret(b"k" * 64), psw_mask=0x180000000, psw_address=0x956000,
        scf=SecretFlags(changes.get("scf", 0)),
    )  # fmt: skip


def test_secret_area_round_trips_and_keeps_unknown_flags() -> None:
    original = area(scf=1 << 61 | 5)
    assert SecretArea.unpack(original.pack()) == original
    assert len(original.pack()) == 128


def test_secret_area_never_shows_its_keys() -> None:
    assert "ccc" not in repr(area()) and "63636363" not in repr(area())


def test_optional_items_are_refused() -> None:
    plain = bytearray(area().pack())
    plain[0x7B] = 1
    with pytest.raises(FormatError, match="optional items"):
        SecretArea.unpack(bytes(plain))
    with pytest.raises(FormatError, match="optional items"):
        SecretArea.unpack(area().pack() + bytes(16))


def test_flag_values() -> None:
    assert PlainFlags.known() == 0x300000F2
    assert SecretFlags.known() == 0x6000000000000000


def test_inverted_flags_cover_the_whole_word() -> None:
    assert ~PlainFlags.DUMP == (1 << 64) - 1 - PlainFlags.DUMP
    assert PlainFlags(1 << 40) & ~PlainFlags.known() == 1 << 40
