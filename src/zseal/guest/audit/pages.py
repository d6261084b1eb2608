"""The pages of a protected guest that a device may touch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zseal.arch.storage import PAGE_SHIFT
from zseal.guest.audit.queue import Addresses, Refused, TouchedPages
from zseal.hypervisor.host_side import HostSide
from zseal.ultravisor.tables import PageState

_REASONS = {
    PageState.UNUSED: "is a private page (never touched)",
    PageState.PRIVATE: "is a private page",
    PageState.EXPORTED: "is a private page (paged out)",
    PageState.LOST: "is a page that was destroyed",
}
SHARED_STATES = (PageState.SHARED, PageState.SHARED_OUT)
"""The states of pages that the guest gave to its host."""
_SHARED = bytes(SHARED_STATES)
_IS_SHARED = np.isin(np.arange(256), SHARED_STATES)


class SharedPages:
    """The shared pages of the guest of ``side`` at the time of each question (``zseal.guest.audit.queue.Pages``)."""

    def __init__(self, side: HostSide) -> None:
        self._side = side
        self._handle: int | None = None
        self._states: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._view = self._states.data

    def _refresh(self) -> None:
        """Take the table of the present configuration; the table itself changes all the time."""
        handle = self._side.configuration
        if handle == self._handle:
            return
        if handle is None:
            self._states = np.zeros(0, np.uint8)
        else:
            self._states = self._side.uv.page_states(handle)
        self._view = self._states.data
        self._handle = handle

    def find_refused(self, address: int, length: int, used: TouchedPages) -> Refused | None:
        """See ``Pages.find_refused``."""
        if not length:
            return None
        self._refresh()
        first, last = address >> PAGE_SHIFT, (address + length - 1) >> PAGE_SHIFT
        total = len(self._view)
        if last >= total:
            return Refused(max(address, total << PAGE_SHIFT), "lies outside guest storage")
        states = self._view[first : last + 1].tobytes()
        rest = states.lstrip(_SHARED)
        used.mark(slice(first, last + 1 - len(rest)), total)
        if not rest:
            return None
        page = last + 1 - len(rest)
        return Refused(max(address, page << PAGE_SHIFT), _REASONS[PageState(rest[0])])

    def all_shared(self, addresses: Addresses, lengths: Addresses, used: TouchedPages) -> bool:
        """See ``Pages.all_shared``."""
        self._refresh()
        total = self._states.size
        if not lengths.all() or int(addresses.max()) >= total << PAGE_SHIFT:
            return False
        first = (addresses >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        last = ((addresses + lengths - np.uint64(1)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        if int(last.max()) >= total or int((last - first).max()) > 1:
            return False
        for pages in (first, last):
            if not _IS_SHARED[self._states[pages]].all():
                return False
            used.mark(pages, total)
        return True
