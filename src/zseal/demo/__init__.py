"""The demonstration: the promises of protection, shown on a running guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.demo.bare_metal import demonstrate_embedded
    from zseal.demo.demonstration import DemoError, Demonstration
    from zseal.demo.linux import demonstrate

__all__ = [
    "DemoError",
    "Demonstration",
    "demonstrate",
    "demonstrate_embedded",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        bare_metal=("demonstrate_embedded",),
        demonstration=("DemoError", "Demonstration"),
        linux=("demonstrate",),
    )
