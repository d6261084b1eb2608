"""Control registers: the values that a reset gives them (Principles of Operation, chapter 4, "Initial CPU Reset")."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

INITIAL_CONTROLS: Mapping[int, int] = MappingProxyType({0: 0xE0, 14: 0xC2000000})
"""By register number; every other control register becomes zero."""


def initial_controls() -> list[int]:
    """Return the 16 control registers as initial and clear reset leave them."""
    return [INITIAL_CONTROLS.get(number, 0) for number in range(16)]
