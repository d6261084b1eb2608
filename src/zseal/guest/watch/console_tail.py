"""The end of a guest's console as lines of text, as a terminal would show them."""

from __future__ import annotations

import re

LIMIT = 64 << 10
"""Bytes of output kept; the oldest go first."""
SCREEN_LINES = 24
_LINE_LIMIT = 1000
_TAB = 8

_CLEAR = re.compile(r"\x1b(?:c|\[[23]J|\[H\x1b\[0?J)")
_ERASE = re.compile(r"\x1b\[0?K")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor, modes
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # strings for the terminal: its title and such
    r"|\x1b[ -/]*[0-~]?"
)
_TO_END = "\x00"  # marks an erased end of line during layout; it never comes from the guest


class ConsoleTail:
    """Keeps the last 64 KiB of a guest's output."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Take more output."""
        self._data += data
        if len(self._data) > LIMIT:
            del self._data[:-LIMIT]
            self._cut = True

    def text(self) -> str:
        """Return everything that is kept, as lines without control sequences."""
        return "\n".join(self.lines(None))

    def lines(self, count: int | None = SCREEN_LINES) -> list[str]:
        """Return the last ``count`` lines (None: all) since the screen was last cleared, and an unfinished one."""
        text = self._data.decode("utf-8", "replace").replace(_TO_END, "")
        *_, text = _CLEAR.split(text)
        raw = text.split("\n")
        if self._cut and len(raw) > 1:
            raw = raw[1:]  # the rest of a line that is gone
        if raw[-1] == "":
            raw.pop()
        return [_lay_out(line) for line in (raw if count is None else raw[-count:] if count > 0 else [])]


def _lay_out(line: str) -> str:
    """Return the appearance of a line after carriage returns, backspaces, tabs and erasures."""
    line = _ESCAPES.sub("", _ERASE.sub(_TO_END, line.rstrip("\r")))
    shown: list[str] = []
    column = 0
    for character in line:
        if character == "\r":
            column = 0
        elif character == "\b":
            column = max(0, column - 1)
        elif character == _TO_END:
            del shown[column:]
        elif column < _LINE_LIMIT:
            if character == "\t":
                text = " " * (_TAB - column % _TAB)
            elif character.isprintable():
                text = character
            else:
                continue
            shown += " " * (column - len(shown))
            shown[column : column + len(text)] = text
            column += len(text)
    return "".join(shown).rstrip()
