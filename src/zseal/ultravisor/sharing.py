"""Sharing: the guest decides which of its pages the host may see, and the host pins those that it is using."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT
from zseal.formats.uv_codes import Generic, PageCall
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.securestorage import GuestStorage, SecureStorage
from zseal.ultravisor.tables import DONATED, PINNED, PRIVATE, SECURE, SHARED, SHARED_FRAME, SHARED_OUT, UNUSED, Index


def _with_host(guest: GuestStorage, page: int) -> ProgramInterruption:
    """The page is not resident: the host has to import it, then the guest issues its call again."""
    gaddr = (guest.origin + page) << PAGE_SHIFT
    return ProgramInterruption(ProgramCode.NON_SECURE_STORAGE_ACCESS, gaddr, teid=gaddr | 4)


def share(storage: SecureStorage, guest: GuestStorage, page: int) -> bool:
    """Let the host see and change ``page``, which keeps its content; return whether that is new.

    An unused page is taken first, as zeros. Raises ProgramInterruption (3e) for one that the host has to import.
    """
    state = guest.pages.state.item(page)
    if state in (SHARED, SHARED_OUT):
        return False
    if state == UNUSED:
        try:
            storage.import_run(guest, page, 1)
        except UvcRefusal:
            raise _with_host(guest, page) from None
    elif state != PRIVATE:
        raise _with_host(guest, page)
    _change(storage, guest, page, SHARED_FRAME)
    guest.pages.change(page, SHARED)
    return True


def unshare(storage: SecureStorage, guest: GuestStorage, page: int) -> bool:
    """Hide ``page`` from the host, keeping its content; return False if the host has it pinned.

    Raises ProgramInterruption (3e) for a shared page that the host has to import first.
    """
    state = guest.pages.state.item(page)
    if state == SHARED_OUT:
        raise _with_host(guest, page)
    if state != SHARED:
        return True
    if storage.frames.state.item(guest.pages.frame.item(page)) == PINNED:
        return False
    _change(storage, guest, page, SECURE)
    guest.pages.change(page, PRIVATE)
    return True


def _change(storage: SecureStorage, guest: GuestStorage, page: int, state: int) -> None:
    """Give the frame of one resident ``page`` the FrameState ``state``; see ``SecureStorage.frames_of``."""
    frame = guest.pages.frame.item(page)
    if storage.holds(guest, page, frame):
        storage.frames.change(frame, state)


def _take_back(storage: SecureStorage, guest: GuestStorage, pages: Index) -> None:
    """Make shared ``pages`` private again, even if pinned."""
    storage.frames.change(storage.frames_of(guest, pages), SECURE)
    guest.pages.change(pages, PRIVATE)


def ready_to_share(guest: GuestStorage) -> NDArray[np.bool_]:
    """Return for each page whether :func:`share` would only change states."""
    ready: NDArray[np.bool_] = guest.pages.state == PRIVATE
    return ready


def _unchanged(ready: NDArray[np.bool_]) -> None:
    """Raise UvcRefusal if a page is no longer ready, because the answer to its guest is then wrong."""
    if not np.all(ready):
        raise UvcRefusal(Generic.INVALID_STATE, detail="pages left the guest during a series of its calls")


def share_pages(storage: SecureStorage, guest: GuestStorage, pages: Index) -> None:
    """Do :func:`share` for each of ``pages``, all of which were ready; raises UvcRefusal if one no longer is."""
    _unchanged(guest.pages.state[pages] == PRIVATE)
    storage.frames.change(storage.frames_of(guest, pages), SHARED_FRAME)
    guest.pages.change(pages, SHARED)


def ready_to_unshare(storage: SecureStorage, guest: GuestStorage) -> NDArray[np.bool_]:
    """Return for each page whether :func:`unshare` would only change states."""
    ready: NDArray[np.bool_] = guest.pages.state == SHARED
    shared = np.flatnonzero(ready)
    ready[shared] = storage.frames.state[guest.pages.frame[shared]] != PINNED
    return ready


def unshare_pages(storage: SecureStorage, guest: GuestStorage, pages: Index) -> None:
    """Do :func:`unshare` for each of ``pages``; raises as :func:`share_pages`."""
    _unchanged(ready_to_unshare(storage, guest)[pages])
    _take_back(storage, guest, pages)


def unshare_all(storage: SecureStorage, guest: GuestStorage) -> int:
    """Unshare every page, even if pinned; return their number.

    The content of a shared page that the host has cannot be trusted: the page becomes unused, so it reads as zeros.
    """
    table = guest.pages
    shared = np.flatnonzero(table.state == SHARED)
    _take_back(storage, guest, shared)
    out = np.flatnonzero(table.state == SHARED_OUT)
    table.change(out, UNUSED)
    return int(shared.size + out.size)


def pin(storage: SecureStorage, frame: int) -> None:
    """Keep a shared frame shared until it is unpinned; raises UvcRefusal unless a living guest shares it."""
    state = storage.frames.state.item(frame)
    if state == DONATED:
        raise UvcRefusal(PageCall.DONATED)
    if state not in (SHARED_FRAME, PINNED) or storage.owner(frame)[0] is None:
        raise UvcRefusal(PageCall.NOT_SHARED)
    storage.frames.change(frame, PINNED)


def unpin(storage: SecureStorage, guest: GuestStorage, page: int) -> None:
    """Undo :func:`pin` for the frame of ``page``; no effect if it is not pinned. Raises UvcRefusal."""
    if guest.pages.state.item(page) != SHARED:
        raise UvcRefusal(PageCall.NOT_SHARED)
    _change(storage, guest, page, SHARED_FRAME)
