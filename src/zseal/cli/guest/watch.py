"""The live view on a terminal, and the lines that replace it elsewhere."""

from __future__ import annotations

import contextlib
import enum
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from zseal.guest.observation import Observation
    from zseal.guest.watch.live import Look

Show = Callable[["Look"], None]


class Format(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def default_interval(stream: TextIO) -> float:
    """Return the refresh interval in seconds: short on a terminal, longer in a log."""
    return 0.5 if _is_terminal(stream) else 2.0


@contextlib.contextmanager
def shown(stream: TextIO, form: Format = Format.TEXT) -> Iterator[Show]:
    """Yield a function that shows a frame on ``stream``: a picture on a terminal, a line of text or JSON elsewhere."""
    from zseal.guest.watch.live import line, view

    if form is Format.JSON or not _is_terminal(stream):

        def write(look: Look) -> None:
            text = json.dumps(look.now.to_json()) if form is Format.JSON else line(look)
            print(text, file=stream, flush=True)

        yield write
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=stream), auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda look: live.update(view(look), refresh=True)


def watch(
    observe: Callable[[], Observation | None],
    pause: Callable[[float], bool],
    *,
    stream: TextIO | None = None,
    form: Format = Format.TEXT,
    interval: float | None = None,
    count: int | None = None,
) -> None:
    """Show what ``observe`` returns every ``interval`` s, until it or ``pause`` ends the view, or ``count`` times.

    ``observe`` returns None at the end. ``pause`` waits the seconds given and returns whether to go on.
    """
    from zseal.guest.watch.live import Watcher

    stream = stream or sys.stdout
    seconds = interval or default_interval(stream)
    watcher = Watcher()
    number = 0
    with shown(stream, form) as show:
        while (seen := observe()) is not None:
            show(watcher.look(seen))
            number += 1
            if number == count or not pause(seconds):
                # show the last state as well
                if number != count and (seen := observe()) is not None:
                    show(watcher.look(seen))
                return
