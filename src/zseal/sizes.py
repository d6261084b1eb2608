"""Sizes of memory and disks as people write them on a command line."""

from __future__ import annotations

import re

from zseal.errors import UsageError

_SHIFTS = {"": 20, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d{1,15})\s*(?:([kmgt])(?:i?b)?)?", re.ASCII)
"""A number of at most 15 digits, and a unit with or without ``B`` or ``iB``, in either case."""


def parse_size(text: str, what: str = "memory size") -> int:
    """Return the bytes that ``text`` names: ``512M``, ``2G``, ``4GiB``, or a plain number of MiB.

    Every unit is binary, as QEMU's are. Raises UsageError for anything else and for 0; ``what`` names the value in its
    message.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or not int(match[1]):
        raise UsageError(f"invalid {what} {text!r}: use a value such as 512M or 2G")
    return int(match[1]) << _SHIFTS[match[2] or ""]
