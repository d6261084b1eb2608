"""Running protected guests: the guest, its events and reports, and its control by the owner of the machine.

:class:`Guest` runs an image and yields events; :class:`GuestControl` controls a guest that another process runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.guest.audit import IoAudit, IoFinding, IoPolicy
    from zseal.guest.control import ControlError, GuestControl, list_guests
    from zseal.guest.diagnosis import Diagnosis
    from zseal.guest.engines import EngineName, available_engine
    from zseal.guest.events import (
        ConsoleOutput,
        Ended,
        Event,
        IoViolation,
        Protected,
        Reached,
        Reset,
        Started,
        StartRefused,
    )
    from zseal.guest.guest import Guest
    from zseal.guest.host_view import HostView
    from zseal.guest.observation import Observation
    from zseal.guest.options import GuestKeywords, GuestOptions, RunKeywords, RunOptions
    from zseal.guest.outcome import Outcome, Result
    from zseal.guest.paging import PageIntegrityError
    from zseal.guest.records import RunRecord
    from zseal.guest.watch import render_html

__all__ = [
    "ConsoleOutput",
    "ControlError",
    "Diagnosis",
    "Ended",
    "EngineName",
    "Event",
    "Guest",
    "GuestControl",
    "GuestKeywords",
    "GuestOptions",
    "HostView",
    "IoAudit",
    "IoFinding",
    "IoPolicy",
    "IoViolation",
    "Observation",
    "Outcome",
    "PageIntegrityError",
    "Protected",
    "Reached",
    "Reset",
    "Result",
    "RunKeywords",
    "RunOptions",
    "RunRecord",
    "StartRefused",
    "Started",
    "available_engine",
    "list_guests",
    "render_html",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        audit=("IoFinding", "IoAudit", "IoPolicy"),
        control=("ControlError", "GuestControl", "list_guests"),
        diagnosis=("Diagnosis",),
        engines=("EngineName", "available_engine"),
        events=(
            "ConsoleOutput",
            "Ended",
            "Event",
            "IoViolation",
            "Protected",
            "Reached",
            "Reset",
            "StartRefused",
            "Started",
        ),
        guest=("Guest",),
        host_view=("HostView",),
        outcome=("Outcome", "Result"),
        paging=("PageIntegrityError",),
        observation=("Observation",),
        options=("GuestKeywords", "GuestOptions", "RunKeywords", "RunOptions"),
        records=("RunRecord",),
        watch=("render_html",),
    )
