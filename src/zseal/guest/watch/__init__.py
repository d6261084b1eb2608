"""Watching a run: live on a terminal, recorded, or as an HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.guest.watch.html import render_html

__all__ = [
    "render_html",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        html=("render_html",),
    )
