"""A QEMU that a manager such as libvirt also controls: it pauses, resets and ends the machine without asking us.

QEMU's gdb stub shows a manager's pause as an unrequested interruption. A reset shows when the image's
entry is reached again: QEMU resets the machine immediately there, with the image started unprotected, so protection is
dropped and the reset repeated in our order. A power-off may be the first half of the manager's reboot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection

from zseal.arch.diag308 import Subcode
from zseal.arch.instructions import Pattern, classify
from zseal.arch.interruption import ProgramInterruption
from zseal.engine.interface import Stop, StopKind
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.ownership import MachineOwner, Owned
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.sites import Stage
from zseal.engine.qemu.stop_reasons import wants_reset

ENTRY_CODE = 64
"""Bytes of the image to compare, to distinguish it from other code at the same address."""
_POWEROFF_SECONDS = 10.0
"""How long the manager has to end a machine that powered off, or to start it again (virsh reboot)."""
_ENDED_BY_RESET = Stop(StopKind.RESET, "its domain ends then (on_reboot)")
_RESETS = frozenset({Subcode.LOAD_CLEAR, Subcode.LOAD_NORMAL_DUMP})


class ManagedOwner(MachineOwner):
    """The policy for a managed QEMU; with ``ends_at_reset`` its guest's reset is its end.

    ``entry`` is where the boot image begins, ``kernel`` its file, None if it is on a disk.
    """

    reboot_action = "reset"  # for its manager, a QEMU that waits at a reset has ended

    def __init__(self, run: Owned, *, entry: int, kernel: int | None, ends_at_reset: bool) -> None:
        super().__init__(run)
        self._entry = entry
        self._kernel = kernel
        self._ends_at_reset = ends_at_reset
        self._suspended = False
        self._powered_off: asyncio.TimerHandle | None = None
        self._restarting = False
        self._resetting = False

    # --- what the manager does ---

    def event(self, event: QmpEvent) -> None:
        """React to ``event``, which the manager may have caused rather than the guest."""
        if event.name == "RESUME":
            self._on_resume()
        elif event.name == "RESET":
            self._on_reset(by_guest=event.data.get("guest") is not False)
        elif wants_reset(event):
            self._run.finish(_ENDED_BY_RESET)
        elif event.name == "SHUTDOWN" and event.text("reason") == "guest-shutdown":
            self._on_power_off()
        else:
            super().event(event)

    def _on_resume(self) -> None:
        if self._suspended:
            self._resumed()
        if self._restarting:
            self.reset()

    def _on_reset(self, *, by_guest: bool) -> None:
        if self._powered_off is not None:
            # The manager resumes it next, which must not interfere: our own reset comes after that.
            self._powered_off.cancel()
            self._powered_off, self._restarting = None, True
        elif not by_guest and not self._resetting:
            self.reset()

    def _on_power_off(self) -> None:
        """Let the manager decide whether this is the end: it reboots a guest with a power-off, a reset and a resume."""
        self._suspended = self._run.machine.qmp.state_events = True
        if self._powered_off is None:
            self._powered_off = self._run.loop.call_later(_POWEROFF_SECONDS, self._run.finish, Stop(StopKind.POWEROFF))

    def final(self, stop: Stop) -> Stop:
        """Return ``stop``; if the manager ends QEMU after a power-off, the end remains the power-off."""
        if self._powered_off is None:
            return stop
        self._powered_off.cancel()
        return Stop(StopKind.POWEROFF) if stop.kind in (StopKind.CLOSED, StopKind.LOST) else stop

    # --- suspended ---

    @property
    def holds(self) -> bool:
        """Whether the manager has suspended the machine."""
        return self._suspended

    def interrupted(self) -> bool:
        """Note the manager's suspend, which lasts until its resume."""
        qmp = self._run.machine.qmp
        status = qmp.execute("query-status")  # earlier events are older than the suspend
        self._suspended = qmp.state_events = True
        if isinstance(status, dict) and status.get("running"):
            self._resumed()
        return True

    def _resumed(self) -> None:
        self._suspended = self._run.machine.qmp.state_events = False
        self._run.resumed()

    def trapped(self) -> None:
        """It has run, so it was resumed, whether or not that has been reported yet."""
        if self._suspended:
            self._suspended = self._run.machine.qmp.state_events = False

    # --- resets ---

    @property
    def resetting(self) -> bool:
        """Whether the machine is reset in our order."""
        return self._resetting

    @property
    def _entry_watched(self) -> bool:
        """Whether the code that runs now is not the start of the image."""
        return self._run.stage is not Stage.IMAGE

    def breakpoints(self) -> Collection[int]:
        """Watch the image's entry, which a reset leads to."""
        return (self._entry,) if self._entry_watched else ()

    def was_reset(self, cpu: QemuCpu) -> bool:
        """Whether the image's entry is reached again: with DAT off, and its code in place."""
        if not self._entry_watched or cpu.psw.address != self._entry or cpu.psw.dat:
            return False
        if self._kernel is None:
            return self._run.stage is Stage.KERNEL
        code = os.pread(self._kernel, ENTRY_CODE, self._entry)
        return self._run.memory.read(self._entry, len(code)) == code

    def asks_for_reset(self, cpu: QemuCpu) -> bool:
        """Whether ``cpu`` is at a DIAGNOSE 0x308 that loads the image again."""
        try:
            instruction = cpu.instruction()
        except ProgramInterruption:
            return False
        return classify(instruction) is Pattern.DIAG_308 and cpu.gr(instruction[1] & 15) in _RESETS

    def reset(self) -> None:
        """Reset the machine in our order; if another has done so already, once more. Or end it, if it ends then."""
        if self._ends_at_reset:
            self._run.finish(_ENDED_BY_RESET)
            return
        self._resetting, self._restarting = True, False
        try:
            self._run.machine.qmp.execute("query-status")  # all earlier events are then known
            self._run.read_events()
            self._run.interrupt()
            self._run.reset()
        finally:
            self._resetting = False
