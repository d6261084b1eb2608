"""How long work reports its progress to the program that shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work; its methods are called from the thread that does the work."""

    def step(self, text: str) -> None:
        """Report that the step ``text`` begins, and that the one before it is done."""

    def share(self, what: str, done: float) -> None:
        """Report that ``done`` (0.0 to 1.0) of ``what`` is done."""


class NoProgress:
    """Shows nothing."""

    def step(self, text: str) -> None:
        """Ignore the step."""

    def share(self, what: str, done: float) -> None:
        """Ignore the share."""
