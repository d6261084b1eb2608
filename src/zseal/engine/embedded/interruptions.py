"""External and restart interruptions: which are pending, and what a CPU finds in its lowcore.

Subclass masks are those of the z/Architecture Principles of Operation, chapter 6.
"""

from __future__ import annotations

import enum

from zseal.arch import lowcore
from zseal.arch.psw import EXTERNAL
from zseal.engine.embedded import clock
from zseal.engine.embedded.cpu import EmbeddedCpu
from zseal.engine.embedded.sclp import Sclp


class External(enum.IntEnum):
    """External-interruption codes."""

    CLOCK_COMPARATOR = 0x1004
    CPU_TIMER = 0x1005
    EMERGENCY_SIGNAL = 0x1201
    EXTERNAL_CALL = 0x1202
    SERVICE_SIGNAL = 0x2401


_SUBCLASS = {
    External.EMERGENCY_SIGNAL: 0x4000,
    External.EXTERNAL_CALL: 0x2000,
    External.CLOCK_COMPARATOR: 0x800,
    External.CPU_TIMER: 0x400,
    External.SERVICE_SIGNAL: 0x200,
}
"""The bit of control register 0 that lets a CPU take the interruption."""


def restart(cpu: EmbeddedCpu) -> None:
    """Take a restart interruption."""
    cpu.exchange_psws(lowcore.RESTART_OLD_PSW, lowcore.RESTART_NEW_PSW, cpu.psw)


def _pending(cpu: EmbeddedCpu, sclp: Sclp) -> External | None:
    """Return the interruption of the highest priority that ``cpu`` may take now."""
    controls = cpu.cr(0)
    conditions = (
        (External.EMERGENCY_SIGNAL, bool(cpu.emergency)),
        (External.EXTERNAL_CALL, cpu.external_call is not None),
        (External.CLOCK_COMPARATOR, controls & 0x800 and clock.time_of_day() > cpu.clock_comparator),
        (External.CPU_TIMER, controls & 0x400 and cpu.timer.negative),
        (External.SERVICE_SIGNAL, sclp.pending is not None),
    )
    return next((code for code, there in conditions if there and controls & _SUBCLASS[code]), None)


def ready(cpu: EmbeddedCpu, sclp: Sclp) -> bool:
    """Whether ``cpu`` may take an external interruption now."""
    return bool(cpu.psw.mask & EXTERNAL) and _pending(cpu, sclp) is not None


def take(cpu: EmbeddedCpu, sclp: Sclp) -> bool:
    """Let ``cpu`` take one external interruption if its PSW allows any and one is there."""
    psw = cpu.psw
    if not psw.mask & EXTERNAL:
        return False
    code = _pending(cpu, sclp)
    if code is None:
        return False
    if code is External.EMERGENCY_SIGNAL:
        sender = min(cpu.emergency)
        cpu.emergency.discard(sender)
        cpu.set_lowcore(lowcore.EXTERNAL_CPU, sender.to_bytes(2, "big"))
    elif code is External.EXTERNAL_CALL:
        cpu.set_lowcore(lowcore.EXTERNAL_CPU, (cpu.external_call or 0).to_bytes(2, "big"))
        cpu.external_call = None
    else:
        cpu.set_lowcore(lowcore.EXTERNAL_CPU, bytes(2))
    if code is External.SERVICE_SIGNAL:
        cpu.set_lowcore(lowcore.EXTERNAL_PARAMETER, (sclp.pending or 0).to_bytes(4, "big"))
        sclp.pending = None
    cpu.set_lowcore(lowcore.EXTERNAL_CODE, int(code).to_bytes(2, "big"))
    cpu.exchange_psws(lowcore.EXTERNAL_OLD_PSW, lowcore.EXTERNAL_NEW_PSW, psw)
    return True


def seconds_to_next(cpu: EmbeddedCpu) -> float | None:
    """Return in how many seconds a clock will interrupt the waiting ``cpu``; None if no clock will."""
    controls = cpu.cr(0)
    if not cpu.psw.mask & EXTERNAL:
        return None
    waits = []
    if controls & 0x800:
        waits.append(max(0.0, clock.seconds(cpu.clock_comparator - clock.time_of_day())))
    if controls & 0x400:
        waits.append(cpu.timer.remaining)
    return min(waits, default=None)
