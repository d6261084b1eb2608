"""Page states of a guest, asked for many buffers at once, against the same question asked page by page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.guest.audit.pages import SharedPages
from zseal.guest.audit.queue import Refused, TouchedPages
from zseal.hypervisor.host_side import HostSide
from zseal.ultravisor.host import HostInterface
from zseal.ultravisor.tables import PageState

COUNT = 512
END = COUNT << 12
TOP = (1 << 64) - 1
SHARED = (PageState.SHARED, PageState.SHARED_OUT)


def pages(states: np.ndarray) -> SharedPages:
    """What SharedPages takes of a hypervisor: the handle and the table of states."""
    uv = SimpleNamespace(page_states=lambda _handle: states)
    return SharedPages(HostSide(cast(HostInterface, uv), END, configuration=1))


def array(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def states(*, default: PageState = PageState.SHARED, **others: int) -> np.ndarray:
    found = np.full(COUNT, default, np.uint8)
    for name, page in others.items():
        found[page] = PageState[name.upper()]
    return found


@pytest.mark.parametrize(
    ("address", "length", "refused"),
    [
        (0x2F00, 0x1200, Refused(0x3000, "is a private page")),
        (0x1000, 0x2000, None),
        (0x5000, 1, Refused(0x5000, "is a private page (paged out)")),
        (0x7FFF, 1, Refused(0x7FFF, "is a private page (never touched)")),
        (0x9010, 16, Refused(0x9010, "is a page that was destroyed")),
        (0xB000, 8, None),
        (0x4000, 0x1001, Refused(0x5000, "is a private page (paged out)")),
        (0x3000, 0, None),
        (END - 1, 1, None),
        (END, 1, Refused(END, "lies outside guest storage")),
        (END - 1, 2, Refused(END, "lies outside guest storage")),
        (TOP, 0xFFFFFFFF, Refused(TOP, "lies outside guest storage")),
        (0, TOP, Refused(END, "lies outside guest storage")),
    ],
)
def test_the_first_page_that_is_not_shared_is_named_with_its_state(
    address: int, length: int, refused: Refused | None
) -> None:
    shared = pages(states(private=3, exported=5, unused=7, lost=9, shared_out=11))
    assert shared.find_refused(address, length, TouchedPages()) == refused
    if length:
        assert shared.all_shared(array(0x1000, address), array(1, length), TouchedPages()) is (refused is None)


def test_only_what_may_be_used_counts_as_used() -> None:
    shared = pages(states(private=3))
    used = TouchedPages()
    shared.find_refused(0x1000, 0x4000, used)  # pages 1 and 2, then the private one
    assert len(used) == 2
    shared.find_refused(END - 1, 2, used)
    assert len(used) == 2
    assert shared.all_shared(array(0x2000, 0x8000, 0x8000), array(1, 0x1000, 1), used)
    assert len(used) == 3


def test_a_new_configuration_has_a_table_of_its_own() -> None:
    private, shared = states(default=PageState.PRIVATE), states()
    tables = {1: private, 2: shared}
    side = HostSide(cast(HostInterface, SimpleNamespace(page_states=tables.__getitem__)), END)
    guest = SharedPages(side)
    for handle, allowed in ((None, False), (1, False), (2, True), (None, False)):
        side.configuration = handle
        assert (guest.find_refused(0, 1, TouchedPages()) is None) is allowed
        assert guest.all_shared(array(0), array(1), TouchedPages()) is allowed
    side.configuration = 2
    assert guest.find_refused(0, 1, TouchedPages()) is None
    shared[0] = PageState.PRIVATE  # the guest unshares it
    assert guest.find_refused(0, 1, TouchedPages()) is not None


@given(
    st.binary(min_size=COUNT, max_size=COUNT),
    st.lists(st.tuples(st.integers(0, END), st.integers(0, 0x100000)), max_size=20),
)
def test_both_questions_give_what_page_by_page_would(choice: bytes, ranges: list[tuple[int, int]]) -> None:
    # mostly shared, as a guest's buffers are
    kinds = [PageState.SHARED if byte > 20 else PageState(byte % len(PageState)) for byte in choice]
    guest = pages(np.array(kinds, np.uint8))
    marked = set()
    used = TouchedPages()
    good = []
    for address, length in ranges:
        refused = guest.find_refused(address, length, used)
        touched = range(address >> 12, (address + length - 1 >> 12) + 1) if length else range(0)
        outside = length > 0 and address + length > END
        bad = next((page for page in touched if outside or kinds[page] not in SHARED), None)
        if outside:
            assert refused == (max(address, END), "lies outside guest storage")
        elif bad is None:
            assert refused is None
            marked |= set(touched)
            if length:
                good.append((address, length))
        else:
            assert refused is not None
            assert refused.address == max(address, bad << 12)
            marked |= set(range(touched.start, bad))
    assert len(used) == len(marked)
    if ranges:
        everything = array(*(at for at, _ in ranges)), array(*(size for _, size in ranges))
        if guest.all_shared(*everything, used):
            assert len(good) == len(ranges)
        short = [(at, size) for at, size in good if size < 4096]
        if short:
            assert guest.all_shared(array(*(at for at, _ in short)), array(*(size for _, size in short)), used)
        assert len(used) == len(marked)
