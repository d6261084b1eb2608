"""Which pages of a protected guest a device may touch, for whole lists of buffers at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zseal.arch.storage import PAGE_SHIFT
from zseal.host.audit import MAX_REPORTED, Addresses, Refused, UsedPages
from zseal.host.vmm import Vmm
from zseal.ultravisor.tables import PageState

_FEW_PAGES = 64  # a buffer of at most so many is put in one list with the others
_REASONS = {
    PageState.UNUSED: "is a private page (never touched)",
    PageState.PRIVATE: "is a private page",
    PageState.EXPORTED: "is a private page (paged out)",
    PageState.LOST: "is a page that was destroyed",
}
_SHARED = np.array([state in (PageState.SHARED, PageState.SHARED_OUT) for state in PageState])
"""By page state: whether the guest gave the page to its host."""


class SharedPages:
    """The shared pages of the guest of ``vmm`` as they are at each question (``zseal.host.audit.Pages``)."""

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm

    def _states(self) -> npt.NDArray[np.uint8]:
        handle = self._vmm.configuration
        if handle is None:
            return np.zeros(0, np.uint8)
        return self._vmm.ultravisor.configuration(handle).guest.pages.state

    def refused(self, addresses: Addresses, lengths: Addresses, used: UsedPages) -> Sequence[Refused]:
        """See ``Pages.refused``."""
        states = self._states()
        limit = np.uint64(states.size << PAGE_SHIFT)
        # In this order nothing can overflow.
        outside = (lengths != 0) & ((addresses >= limit) | (lengths > limit - np.minimum(addresses, limit)))
        inside = np.flatnonzero(~outside & (lengths != 0))
        first = (addresses[inside] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        last = ((addresses[inside] + lengths[inside] - np.uint64(1)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        counts = last - first + 1
        found: dict[int, int] = {}  # range: its first page that is not shared
        few = counts <= _FEW_PAGES
        if few.any():
            pages = _expand(first[few], counts[few])
            shared = _SHARED[states[pages]]
            used.mark(pages[shared], states.size)
            if not shared.all():
                owner = np.repeat(inside[few], counts[few])[~shared]
                ranges, where = np.unique(owner, return_index=True)
                found |= zip(ranges.tolist(), pages[~shared][where].tolist(), strict=True)
        for index, begin, end in zip(inside[~few].tolist(), first[~few].tolist(), last[~few].tolist(), strict=True):
            shared = _SHARED[states[begin : end + 1]]
            used.mark(np.flatnonzero(shared) + begin, states.size)
            if not shared.all():
                found[index] = begin + int(np.argmin(shared))
        answer = [
            Refused(index, max(int(addresses[index]), page << PAGE_SHIFT), _REASONS[PageState(int(states[page]))])
            for index, page in sorted(found.items())[:MAX_REPORTED]
        ]
        for index in np.flatnonzero(outside)[:MAX_REPORTED].tolist():
            at = max(int(addresses[index]), int(limit))
            answer.append(Refused(index, at, "lies outside guest storage"))
        return sorted(answer)


def _expand(first: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return all page numbers of runs of ``counts`` pages from ``first`` on, one run behind the other."""
    ends = np.cumsum(counts)
    pages: npt.NDArray[np.int64] = np.arange(int(ends[-1])) + np.repeat(first - (ends - counts), counts)
    return pages
