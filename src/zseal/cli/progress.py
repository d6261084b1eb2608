"""Progress of long work on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBars:
    """Shows steps as lines on stderr, or as progress bars if that is a terminal (:class:`zseal.progress.Progress`)."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bars = Progress(*columns, console=Console(stderr=True))
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._finish_all(self._bars)
            self._bars.stop()

    def step(self, text: str) -> None:
        """Begin a step; the steps before it are done."""
        if self._bars is None:
            print(f"- {text}", file=sys.stderr)
            return
        self._finish_all(self._bars)
        self._tasks[text] = self._bars.add_task(text, total=None)

    def share(self, what: str, done: float) -> None:
        """Move the bar of ``what``."""
        if self._bars is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=1)
        self._bars.update(self._tasks[what], completed=done)

    def _finish_all(self, bars: Progress) -> None:
        for task in self._tasks.values():
            bars.update(task, total=1, completed=1)
