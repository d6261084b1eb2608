"""Time as s390x counts it: bit 51 of the time-of-day clock is a microsecond."""

from __future__ import annotations

import time

_UNIX_EPOCH = 0x7D91048BCA000000  # the clock at 1970-01-01 00:00 UTC; it began in 1900
_MASK64 = (1 << 64) - 1


def time_of_day() -> int:
    """Return the time-of-day clock (64 bits)."""
    return _UNIX_EPOCH + time.time_ns() * 512 // 125 & _MASK64


def seconds(clock_units: int) -> float:
    """Return the length of ``clock_units`` in seconds."""
    return clock_units / 4096 / 1_000_000


class CpuTimer:
    """A 64-bit signed counter that runs down; its interruption is pending while it is negative."""

    def __init__(self) -> None:
        self._end = 0
        self.set(0)

    def set(self, value: int) -> None:
        """Let it run down from ``value``."""
        signed = value - (1 << 64) if value >> 63 else value
        self._end = time.monotonic_ns() * 512 // 125 + signed

    def get(self) -> int:
        """Return its value now."""
        return self._end - time.monotonic_ns() * 512 // 125 & _MASK64

    @property
    def negative(self) -> bool:
        """Whether it has run down."""
        return bool(self.get() >> 63)

    @property
    def remaining(self) -> float:
        """Seconds until it is negative; 0 where it is."""
        return max(0.0, seconds(self._end - time.monotonic_ns() * 512 // 125))
