"""Decides how a run ended, from why its machine stopped and the state of its protection."""

from __future__ import annotations

import dataclasses

from zseal.engine.interface import Stop, StopKind
from zseal.errors import ZsealError
from zseal.guest.outcome import Outcome, Result
from zseal.hypervisor.vmm import Refusal

_FIRMWARE_WAIT_CODES = range(0x4500, 0x4700)
"""Disabled-wait addresses of the bootloaders of Secure Execution images (stage3b 0x45.., stage3a 0x46..)."""

_OUTCOMES = {
    StopKind.POWEROFF: (Outcome.POWEROFF, "the guest powered off"),
    StopKind.RESET: (Outcome.RESET, "the guest rebooted"),
    StopKind.WATCHDOG: (Outcome.WATCHDOG, "the guest's watchdog expired"),
    StopKind.DISK: (Outcome.FAILED, "the guest lost a disk"),
    StopKind.CLOSED: (Outcome.STOPPED, "the guest was stopped"),
    StopKind.LOST: (Outcome.LOST, "the guest is lost"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtectedStart:
    """The progress of a guest's protected start when its machine stopped."""

    protected: bool
    """Whether the guest ran protected."""
    refusal: Refusal | None
    """Why the last attempt to protect it failed."""
    complaint: str
    """The fault in the parameter block that was last refused; may be empty."""


def judge(
    stop: Stop,
    *,
    failure: BaseException | None = None,
    wanted: Result | None = None,
    start: ProtectedStart | None = None,
) -> Result:
    """Return the result of a run whose machine stopped with ``stop``.

    ``failure`` is a failure on our side, if any, and ``wanted`` the result with which its user ended it. ``start`` is
    None for an unprotected guest.
    """
    if failure is not None:
        text = str(failure) if isinstance(failure, ZsealError) else f"{type(failure).__name__}: {failure}"
        return Result(Outcome.FAILED, f"zseal could not go on with the guest: {text}")
    if wanted is not None:
        return wanted
    if stop.kind is StopKind.PANIC:
        return _panic(stop, start)
    outcome, message = _OUTCOMES[stop.kind]
    return Result(outcome, f"{message}: {stop.detail}" if stop.detail else message, stop.cpu, stop.psw)


def _panic(stop: Stop, start: ProtectedStart | None) -> Result:
    place = f"disabled wait at {stop.psw.address:#x}" if stop.psw is not None else stop.detail or "no reason given"
    if start is not None and not start.protected:
        if start.refusal is not None:
            return Result(Outcome.REFUSED, start.refusal.message, stop.cpu, stop.psw, start.refusal)
        if stop.psw is not None and stop.psw.address in _FIRMWARE_WAIT_CODES:
            text = f"the image's bootloader gave up before it could be opened ({place})"
            message = f"{text}: {start.complaint}" if start.complaint else text
            return Result(Outcome.REFUSED, message, stop.cpu, stop.psw)
    return Result(Outcome.PANIC, f"the guest stopped for good: {place}", stop.cpu, stop.psw)
