"""The I/O audit: checks that devices are given only pages that the guest shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.guest.audit.audit import IoAudit, IoFinding
    from zseal.guest.audit.policy import IoPolicy

__all__ = [
    "IoAudit",
    "IoFinding",
    "IoPolicy",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        audit=("IoFinding", "IoAudit"),
        policy=("IoPolicy",),
    )
