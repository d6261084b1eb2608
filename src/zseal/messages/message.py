"""A line that another program prints, and what it means."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Callable
from typing import TypeAlias

RC_AND_RRC = r"\brc:?\s*(?:0x)?(?P<rc>[0-9a-f]{1,4})\W+rrc:?\s*(?:0x)?(?P<rrc>[0-9a-f]{1,4})"
"""How kernels write a response code and its reason, both hexadecimal; for lines in lower case."""
ANYTHING = "…"
"""Marks the part of a message's text that differs from one line to the next."""


class Role(enum.StrEnum):
    """The role of a line in a failure."""

    CAUSE = "cause"
    CONSEQUENCE = "consequence"
    """Something failed because of a failure that an earlier line reports."""
    NORMAL = "normal"
    """Nothing failed."""


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a line means, what usually causes it, and what to do."""

    meaning: str
    cause: str
    remedy: str


Refine: TypeAlias = Callable[[re.Match[str]], Meaning]


@dataclasses.dataclass(frozen=True)
class Message:
    """A line, recognised by ``text``, a part of it as printed. Letter case does not matter.

    ``ANYTHING`` in ``text`` matches any characters. ``source`` is the program that prints the line. ``values`` finds
    its variable parts, and ``refine`` turns them into a more exact meaning.
    """

    name: str
    source: str
    text: str
    meaning: Meaning
    role: Role = Role.CAUSE
    values: re.Pattern[str] | None = None
    refine: Refine | None = None

    @functools.cached_property
    def _parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.text.lower().split(ANYTHING) if part)

    @functools.cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern that finds the text in a line."""
        parts = (re.escape(part) for part in self.text.split(ANYTHING))
        return re.compile(".{0,200}?".join(parts), re.IGNORECASE)

    def is_in(self, line: str) -> bool:
        """Return whether ``line``, in lower case, contains this message."""
        position = 0
        for part in self._parts:
            position = line.find(part, position)
            if position < 0:
                return False
            position += len(part)
        return True

    def match(self, line: str) -> re.Match[str] | None:
        """Return the values in ``line``, or None if it does not have them."""
        return None if self.values is None else self.values.search(line)

    def read(self, line: str) -> Meaning:
        """Return the meaning of ``line``, which contains this message, with its values if it has any."""
        match = self.match(line)
        return self.meaning if match is None or self.refine is None else self.refine(match)
