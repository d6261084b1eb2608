"""Whole logs: lines that a terminal or a journal broke in two, and the first line that names a cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from zseal.explanations.families import Reading
from zseal.messages import Role

# what journals, syslog and kernels put before each line
_PREFIX = re.compile(
    r"^(?:(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\d\d-\d\d[T ][\d:.,]{8,15}(?:Z|[+-][\d:]{4,5})?):? (?:\S{1,80} )?"
    r"(?:[\w./@-]{1,80}(?:\[\d{1,10}\])?: )?)?(?:\[ *\d{1,8}\.\d{1,9}\] )?"
)
# terminals and mail break lines where they end, and not before
_SHORTEST_BROKEN = 60
MOST_PIECES = 3
"""The most pieces into which a line is broken."""


def without_prefix(line: str) -> str:
    """Return ``line`` without the time, host and program before it."""
    return _PREFIX.sub("", line, count=1)


def joined(
    lines: Sequence[str], ask: Callable[[str], Sequence[Reading]], *, few: bool
) -> tuple[int, str, Sequence[Reading]] | None:
    """Return how many of ``lines`` are one broken line, that line, and its readings; None if they are not one.

    They are one if together they have more readings than each alone. ``ask`` explains a line. In a log, which is not
    ``few`` lines, only long lines are tried.
    """
    known = {(reading.code, reading.name) for reading in ask(lines[0])}
    for count in range(2, len(lines) + 1):
        if not few and len(lines[count - 2]) < _SHORTEST_BROKEN:
            break
        known |= {(reading.code, reading.name) for reading in ask(lines[count - 1])}
        for glue in (" ", ""):
            text = glue.join((lines[0], *(without_prefix(line) for line in lines[1:count])))
            readings = ask(text)
            if {(reading.code, reading.name) for reading in readings} - known:
                return count, text, readings
    return None


def is_cause(readings: Sequence[Reading]) -> bool:
    """Return whether any of ``readings`` shows why something failed, not only that it did."""
    return any(reading.role is Role.CAUSE for reading in readings)
