"""What holds of a machine's tables after every call, whatever host and guests did."""

from __future__ import annotations

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.ultravisor import FrameState, PageState, Ultravisor
from zseal.ultravisor.addressspace import LARGE_PAGES


def tables_agree(ultravisor: Ultravisor, top: int | None = None) -> None:
    """The frame table and the page tables of the living guests are a bijection, and donated storage adds up.

    ``top`` is one beyond the last frame that guests can have, if that is known: less to look at.
    """
    machine = ultravisor._machine  # the tables themselves: no call shows all of them
    frames, guests = machine.secure.frames, machine.secure.guests
    seen = 0
    for guest in guests.values():
        state = guest.pages.state
        pages = np.flatnonzero((state == PageState.PRIVATE) | (state == PageState.SHARED))
        held = guest.pages.frame[pages]
        assert (frames.owner[held] == guest.serial).all(), "a guest's page is in a frame of another owner"
        assert (frames.page[held] == pages).all(), "a frame holds another page than the one that names it"
        assert ((frames.state[held] == FrameState.SECURE) == (state[pages] == PageState.PRIVATE)).all()
        assert (frames.state[held] >= FrameState.SECURE).all()
        seen += pages.size
    owners = frames.owner[:top][frames.state[:top] >= FrameState.SECURE]
    alive = sum(int(np.count_nonzero(owners == serial)) for serial in guests)
    assert alive == seen, "a frame of a living guest is named by none of its pages"
    for part in machine.secure.large:
        whole = slice(part * LARGE_PAGES, (part + 1) * LARGE_PAGES)
        assert (frames.state[whole] >= FrameState.SECURE).all(), "part of a large frame is not its guest's any more"
        assert (frames.owner[whole] == frames.owner[part * LARGE_PAGES]).all()
    if top is None:
        assert machine.ledger.total == PAGE_SIZE * int(np.count_nonzero(frames.state == FrameState.DONATED))
