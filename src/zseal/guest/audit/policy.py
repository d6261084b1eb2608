"""The choice of I/O policy. Command lines need it, so this module imports nothing heavy."""

from __future__ import annotations

import enum
from typing import Self

from zseal.errors import UsageError


class IoPolicy(enum.Enum):
    """What happens to a guest whose device request names a page that it does not share."""

    ENFORCE = "enforce"
    """The guest is stopped before the device gets the request."""
    AUDIT = "audit"
    """The request is counted and reported."""
    OFF = "off"
    """No checks."""

    @classmethod
    def of(cls, value: Self | str) -> Self:
        """Return the policy that ``value`` is or names; raises UsageError if there is none."""
        try:
            return cls(value)
        except ValueError:
            raise UsageError(f"there is no I/O policy {value!r}", hint="use enforce, audit or off") from None
