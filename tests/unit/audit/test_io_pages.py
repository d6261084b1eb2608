"""Page states of a guest, asked for many buffers at once, against the same question asked page by page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zseal.host.audit import UsedPages
from zseal.host.io_pages import SharedPages
from zseal.host.vmm import Vmm
from zseal.ultravisor.tables import PageState

COUNT = 512
SHARED = (PageState.SHARED, PageState.SHARED_OUT)


def pages(states: np.ndarray) -> SharedPages:
    """What SharedPages takes of a hypervisor: the handle and the table of states."""
    configuration = SimpleNamespace(guest=SimpleNamespace(pages=SimpleNamespace(state=states)))
    vmm = SimpleNamespace(configuration=1, ultravisor=SimpleNamespace(configuration=lambda _handle: configuration))
    return SharedPages(cast(Vmm, vmm))


def array(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def states(*, default: PageState = PageState.SHARED, **others: int) -> np.ndarray:
    found = np.full(COUNT, default, np.uint8)
    for name, page in others.items():
        found[page] = PageState[name.upper()]
    return found


def test_the_first_page_that_is_not_shared_is_named_with_its_state() -> None:
    table = states(private=3, exported=5, unused=7, lost=9, shared_out=11)
    used = UsedPages()
    refused = pages(table).refused(
        array(0x2F00, 0x1000, 0x5000, 0x7FFF, 0x9010, 0xB000, 0x4000),
        array(0x1200, 0x2000, 1, 1, 16, 8, 0x1001),
        used,
    )
    assert [(item.number, item.address, item.reason) for item in refused] == [
        (0, 0x3000, "is a private page"),
        (2, 0x5000, "is a private page (paged out)"),
        (3, 0x7FFF, "is a private page (never touched)"),
        (4, 0x9010, "is a page that was destroyed"),
        (6, 0x5000, "is a private page (paged out)"),
    ]
    assert len(used) == 4, "pages 1, 2, 4 and 11: what is shared of a refused range counts as well"


def test_ranges_outside_storage_and_at_the_end_of_the_address_space() -> None:
    top = (1 << 64) - 1
    refused = pages(states()).refused(
        array(COUNT << 12, (COUNT << 12) - 1, (COUNT << 12) - 1, top, 0), array(1, 1, 2, 0xFFFFFFFF, top), UsedPages()
    )
    assert [(item.number, item.address) for item in refused] == [
        (0, COUNT << 12),
        (2, COUNT << 12),
        (3, top),
        (4, COUNT << 12),
    ]


def test_without_protection_there_are_no_shared_pages() -> None:
    vmm = SimpleNamespace(configuration=None)
    assert SharedPages(cast(Vmm, vmm)).refused(array(0), array(1), UsedPages())


@given(
    st.binary(min_size=COUNT, max_size=COUNT),
    st.lists(st.tuples(st.integers(0, COUNT << 12), st.integers(0, 0x100000)), max_size=20),
)
def test_many_at_once_give_what_one_by_one_would(choice: bytes, ranges: list[tuple[int, int]]) -> None:
    # mostly shared, as a guest's buffers are
    kinds = [PageState.SHARED if byte > 20 else PageState(byte % len(PageState)) for byte in choice]
    table = np.array(kinds, np.uint8)
    used = UsedPages()
    refused = pages(table).refused(array(*(at for at, _ in ranges)), array(*(size for _, size in ranges)), used)
    expected = []
    marked = set()
    for number, (address, length) in enumerate(ranges):
        if not length:
            continue
        outside = address + length > COUNT << 12
        if outside:
            expected.append((number, max(address, COUNT << 12)))
            continue
        touched = range(address >> 12, (address + length - 1 >> 12) + 1)
        marked |= {page for page in touched if kinds[page] in SHARED}
        bad = next((page for page in touched if kinds[page] not in SHARED), None)
        if bad is not None:
            expected.append((number, max(address, bad << 12)))
    assert len(used) == len(marked)
    if len(expected) <= 16:
        assert [(item.number, item.address) for item in refused] == expected
    else:
        assert {(item.number, item.address) for item in refused} <= set(expected)
        assert refused
