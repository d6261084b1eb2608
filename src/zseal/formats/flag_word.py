"""64-bit words of flags whose bit 0 is the most significant."""

from __future__ import annotations

import enum
from typing import Self


class FlagWord(enum.IntFlag):
    """A 64-bit word of flags that keeps bits without a name, also when it is inverted.

    IntFlag's own inversion covers no higher bit than the flags that have a name, and enum looks for ``__invert__`` in
    the class itself: subclasses set it to ``FlagWord.complement``.
    """

    def complement(self) -> Self:
        """Return the word with all 64 bits inverted."""
        return type(self)(self.value ^ (1 << 64) - 1)

    @classmethod
    def known(cls) -> Self:
        """Return all flags that have a meaning."""
        return cls(sum(cls))
