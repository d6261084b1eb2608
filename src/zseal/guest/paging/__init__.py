"""Paging: moves pages of a running guest out to a file and back, as a host does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.guest.paging.page_file import PageFileHeader
    from zseal.guest.paging.paging import PageIntegrityError, Paging

__all__ = [
    "PageFileHeader",
    "PageIntegrityError",
    "Paging",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        page_file=("PageFileHeader",),
        paging=("PageIntegrityError", "Paging"),
    )
