"""The IPL parameter block: vectors, limits and hostile input."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import paths
from zseal.errors import FormatError
from zseal.formats.ipib import MAX_COMPONENTS, Ipib, IpibComponent, IpibHeader

VECTORS = paths.VECTORS / "se-image"
GENPROTIMG = (VECTORS / "se-ipib-genprotimg-2.35.bin").read_bytes()


def component(number: int = 1, **changes: int) -> IpibComponent:
    values = {"tweak_prefix": number << 48, "address": 0x15000 + 0x1000 * number, "size": 0x1000} | changes
    return IpibComponent(**values)


def block(*components: IpibComponent) -> Ipib:
    return Ipib.build(header_address=0x14000, header_size=640, components=components)


def test_block_of_genprotimg_parses_and_packs_to_the_same_page() -> None:
    ipib = Ipib.parse(GENPROTIMG)
    assert ipib.pack() == GENPROTIMG
    assert [(c.tweak_prefix, c.address, c.size) for c in ipib.components] == [
        (0x00005EF0A5D1EE63, 0x15000, 0x833000),
        (0x0001682C4B258336, 0x848000, 0x1000),
        (0x0002B114C7C27120, 0x849000, 0x10D000),
        (0x00038BAE82A48750, 0x956000, 0x2000),
    ]
    assert (ipib.header.pv_version, ipib.header.header_address, ipib.header.header_size) == (0, 0, 640)


def test_own_block_is_as_pvimg_writes_it() -> None:
    ipib = block(component(40), component(50))
    data = ipib.pack()
    assert len(data) == 136 + 48 == ipib.header.length
    assert ipib.header.block_length == 128 + 48
    assert Ipib.parse(data + b"behind") == ipib


def test_at_most_165_components() -> None:
    assert MAX_COMPONENTS == 165
    full = block(*(component(n) for n in range(1, 166)))
    assert Ipib.parse(full.pack()) == full
    with pytest.raises(FormatError, match="impossible length"):
        Ipib.parse(block(*(component(n) for n in range(1, 167))).pack())


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ([component(1, address=0x15001)], "page aligned"),
        ([component(1, size=0)], "whole pages"),
        ([component(1, size=4095)], "whole pages"),
        ([component(2), component(1)], "tweak prefix of component 2"),
        ([component(1), component(1)], "tweak prefix of component 2"),
        ([component(1, address=(1 << 64) - 4096, size=8192)], "beyond the address space"),
    ],
)
def test_bad_component_is_refused(components: list[IpibComponent], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Ipib.parse(block(*components).pack())


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (3, 147, "impossible length"),
        (2, 0x20, "impossible length"),
        (0x0C, 3, "type 3"),
        (0x77, 0, "no component"),
        (0x77, 2, "no room"),
        (0x74, 0xFF, "no room"),
        (0x86, 0x21, "SE header of"),
    ],
)
def test_bad_block_is_refused(offset: int, value: int, message: str) -> None:
    data = bytearray(block(component()).pack())
    data[offset] = value
    with pytest.raises(FormatError, match=message):
        Ipib.parse(bytes(data))


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        Ipib.parse(data)


@given(st.integers(0, IpibHeader.SIZE + 95), st.integers(0, 255))
def test_a_changed_block_parses_or_is_refused(offset: int, value: int) -> None:
    data = bytearray(GENPROTIMG)
    data[offset] = value
    with contextlib.suppress(FormatError):
        Ipib.parse(bytes(data))
