"""How guest absolute addresses lead to host frames: the tables of the ASCE with which a configuration is created.

The host owns this mapping and may change it at any time; its changes can harm only the progress of its own guest,
because every frame's owner and page are checked against the ultravisor's tables after translation.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.ultravisor.tables import NO_FRAME, Index

LARGE_PAGES = 256
"""4 KiB pages in a 1 MiB frame."""


class AddressSpace(Protocol):
    """A mapping of guest absolute pages (the main storage origin included) to host frames."""

    def resolve(self, page: int) -> int:
        """Return the frame of ``page``, or NO_FRAME (-1)."""

    def resolve_run(self, first: int, count: int) -> Index:
        """Return the frames of ``count`` pages from ``first`` on, NO_FRAME if there is none."""

    def mapping_size(self, page: int) -> int:
        """Return how many bytes the entry that maps ``page`` covers: 4 KiB, 1 MiB or 2 GiB; 0 if there is none."""


@dataclasses.dataclass(frozen=True)
class OffsetSpace:
    """Guest storage in one piece: guest page p is in frame ``first_frame + p``, for ``pages`` pages."""

    first_frame: int
    pages: int

    def resolve(self, page: int) -> int:
        """Return the frame of ``page``."""
        return self.first_frame + page if 0 <= page < self.pages else NO_FRAME

    def resolve_run(self, first: int, count: int) -> Index:
        """Return the frames of a run of pages."""
        pages = np.arange(first, first + count, dtype=np.int64)
        if first >= 0 and first + count <= self.pages:
            pages += self.first_frame
            return pages
        return np.where((pages >= 0) & (pages < self.pages), pages + self.first_frame, NO_FRAME)

    def mapping_size(self, page: int) -> int:
        """Return 4 KiB for a mapped page."""
        return PAGE_SIZE if 0 <= page < self.pages else 0


class MappedSpace:
    """Guest storage mapped page by page, as by a host that pages; as thread-safe as single assignments."""

    def __init__(self, pages: int) -> None:
        # frame + 1, so that an untouched table is all zeros and takes no memory
        self._entries = np.zeros(pages, np.uint32)
        self._large: set[int] = set()

    def map(self, page: int, frame: int) -> None:
        """Map ``page`` to ``frame`` with a 4 KiB entry, splitting a large entry there."""
        self._large.discard(page // LARGE_PAGES)
        self._entries[page] = frame + 1

    def map_run(self, page: int, frame: int, count: int) -> None:
        """Map ``count`` pages to consecutive frames with 4 KiB entries."""
        for part in range(page // LARGE_PAGES, (page + count - 1) // LARGE_PAGES + 1):
            self._large.discard(part)
        self._entries[page : page + count] = np.arange(frame + 1, frame + 1 + count)

    def map_large(self, page: int, frame: int) -> None:
        """Map 256 pages to a 1 MiB frame; raises ValueError unless both are multiples of 256."""
        if page % LARGE_PAGES or frame % LARGE_PAGES:
            raise ValueError("a 1 MiB entry maps aligned pages to an aligned frame")
        self.map_run(page, frame, LARGE_PAGES)
        self._large.add(page // LARGE_PAGES)

    def unmap(self, page: int) -> None:
        """Remove the mapping of ``page``."""
        self.map(page, NO_FRAME)

    def mapped(self) -> list[tuple[int, int]]:
        """Return (page, frame) of every mapped page."""
        pages = np.flatnonzero(self._entries)
        return list(zip(pages.tolist(), (self._entries[pages] - np.uint32(1)).tolist(), strict=True))

    def resolve(self, page: int) -> int:
        """Return the frame of ``page``."""
        return int(self._entries[page]) - 1 if 0 <= page < self._entries.size else NO_FRAME

    def resolve_run(self, first: int, count: int) -> Index:
        """Return the frames of a run of pages."""
        found = np.full(count, NO_FRAME, np.int64)
        begin, end = max(first, 0), min(first + count, self._entries.size)
        if begin < end:
            found[begin - first : end - first] = self._entries[begin:end].astype(np.int64) - 1
        return found

    def mapping_size(self, page: int) -> int:
        """Return 1 MiB for a page mapped by :meth:`map_large`, 4 KiB for another mapped one."""
        if self.resolve(page) == NO_FRAME:
            return 0
        return LARGE_PAGES * PAGE_SIZE if page // LARGE_PAGES in self._large else PAGE_SIZE
