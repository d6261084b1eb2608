"""Which PSWs a CPU accepts."""

from __future__ import annotations

from zseal.arch.psw import BA, EA, SHORT_FORMAT, Psw

_RESERVED = 0xB80800FE7FFFFFFF  # bits 0, 2-4, 12, 24-30 and 33-63


def acceptable(psw: Psw) -> bool:
    """Whether ``psw`` has no early specification exception: reserved bits, addressing mode, address."""
    if psw.mask & (_RESERVED | SHORT_FORMAT):
        return False
    if psw.mask & EA and not psw.mask & BA:
        return False
    if psw.mask & EA:
        return True
    return psw.address <= (0x7FFFFFFF if psw.mask & BA else 0xFFFFFF)
