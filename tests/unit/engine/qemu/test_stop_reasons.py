"""What QEMU's events mean for a guest; the samples are QEMU 7.2's."""

from __future__ import annotations

import pytest

from zseal.arch.psw import Psw
from zseal.engine.interface import Stop, StopKind
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.stop_reasons import stop_for, wants_reset
from zseal.jsonvalue import Json

PANIC: dict[str, Json] = {
    "action": "pause",
    "info": {"type": "s390", "core": 1, "psw-mask": 562956395872256, "psw-addr": 17928, "reason": "disabled-wait"},
}
NO_ROOM: dict[str, Json] = {
    "device": "",
    "node-name": "disk0",
    "operation": "write",
    "action": "stop",
    "nospace": True,
    "reason": "No space left on device",
}


@pytest.mark.parametrize(
    ("name", "data", "stop"),
    [
        ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, Stop(StopKind.POWEROFF)),
        ("SHUTDOWN", {"reason": "host-signal"}, Stop(StopKind.CLOSED, "QEMU was ended from outside (host-signal)")),
        ("GUEST_PANICKED", PANIC, Stop(StopKind.PANIC, "disabled-wait", 1, Psw(562956395872256, 17928))),
        ("GUEST_PANICKED", {"action": "pause"}, Stop(StopKind.PANIC, "the guest stopped")),
        ("WATCHDOG", {"action": "pause"}, Stop(StopKind.WATCHDOG)),
        ("BLOCK_IO_ERROR", NO_ROOM, Stop(StopKind.DISK, "disk0 could not be written: there is no room left for it")),
        ("BLOCK_IO_ERROR", {**NO_ROOM, "action": "report"}, None),
        ("RTC_CHANGE", {"offset": 1}, None),
    ],
)
def test_events_tell_how_a_guest_ended(name: str, data: dict[str, Json], stop: Stop | None) -> None:
    event = QmpEvent(name, data)
    assert stop_for(event) == stop
    assert not wants_reset(event)


def test_a_reset_is_no_end() -> None:
    assert wants_reset(QmpEvent("SHUTDOWN", {"guest": True, "reason": "guest-reset"}))
