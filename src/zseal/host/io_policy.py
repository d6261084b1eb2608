"""What the I/O audit is to do: a choice that is made on command lines, so nothing heavy is imported for it."""

from __future__ import annotations

import enum


class IoPolicy(enum.Enum):
    """What happens to a guest whose device request names a page it does not share."""

    ENFORCE = "enforce"
    """The guest is stopped before the device gets the request."""
    AUDIT = "audit"
    """It is counted and reported."""
    OFF = "off"
    """Nobody looks."""
