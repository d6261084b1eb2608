"""What QEMU's events show about the end of a guest."""

from __future__ import annotations

from zseal.arch.psw import Psw
from zseal.engine.interface import Stop, StopKind
from zseal.engine.qemu.qmp import QmpEvent


def wants_reset(event: QmpEvent) -> bool:
    """Whether the guest asked for a reset that boots it again; QEMU has stopped it and waits."""
    return event.name == "SHUTDOWN" and event.text("reason") == "guest-reset"


def stop_for(event: QmpEvent) -> Stop | None:
    """Return the end that ``event`` reports; None if the guest goes on."""
    if event.name == "SHUTDOWN":
        reason = event.text("reason")
        if reason == "guest-shutdown":
            return Stop(StopKind.POWEROFF)
        return Stop(StopKind.CLOSED, f"QEMU was ended from outside ({reason})")
    if event.name == "GUEST_PANICKED":
        return _panic(event)
    if event.name == "WATCHDOG":
        return Stop(StopKind.WATCHDOG)
    if event.name == "BLOCK_IO_ERROR" and event.text("action") == "stop":
        # QEMU holds the guest until there is room again, but nothing here would make room.
        disk = event.text("node-name") or event.text("device") or "a disk"
        reason = "there is no room left for it" if event.data.get("nospace") is True else event.text("reason")
        return Stop(StopKind.DISK, f"{disk} could not be written: {reason}")
    return None


def _panic(event: QmpEvent) -> Stop:
    info = event.data.get("info")
    if not isinstance(info, dict):
        return Stop(StopKind.PANIC, "the guest stopped")
    cpu, mask, address = (info.get(key) for key in ("core", "psw-mask", "psw-addr"))
    psw = Psw(mask, address) if isinstance(mask, int) and isinstance(address, int) else None
    return Stop(StopKind.PANIC, str(info.get("reason", "")), cpu if isinstance(cpu, int) else None, psw)
