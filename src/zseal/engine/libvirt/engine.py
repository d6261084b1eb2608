"""The QEMU engine on a QEMU that libvirt owns: resets and pauses may come from others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from zseal.arch.diag308 import Subcode
from zseal.arch.instructions import Pattern, classify
from zseal.arch.interruption import ProgramInterruption
from zseal.engine.errors import EngineError
from zseal.engine.interface import EngineListener, Stop, StopKind, TrapKind
from zseal.engine.libvirt.machine import DomainToStart, LibvirtMachine
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.gdbremote import StopReply
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.sites import Stage
from zseal.engine.qemu.traps import Traps
from zseal.libvirt.connection import Connection

BREAKPOINT_KIND = 2
ENTRY_CODE = 64
"""Bytes of the image that are compared to tell it from other code at the same address."""
_POWEROFF_SECONDS = 10.0
"""How long libvirt has to end a domain that powered off, or to start it again (virsh reboot)."""
_ENDS_AT_RESET = "the guest rebooted, and the domain ends then (on_reboot)"
_RESETS = frozenset({Subcode.LOAD_CLEAR, Subcode.LOAD_NORMAL_DUMP})


class ResetTraps(Traps):
    """As the parent; and it tells resets, which libvirt lets QEMU do at once, with the image started unprotected."""

    reset_wanted = False
    entry: int | None = None
    kernel: int | None = None

    def handle(self, cpu: QemuCpu) -> bool:
        """Handle ``cpu``; with ``reset_wanted`` set the machine is to be reset instead of being continued."""
        kind = self._sites.kind(cpu.psw.address)
        if self._was_reset(cpu):
            self.reset_wanted = True
            return False
        native = super().handle(cpu)
        if native and kind is TrapKind.DIAG_308 and self._asks_for_reset(cpu):
            self.reset_wanted = True
            return False
        return native

    @staticmethod
    def _asks_for_reset(cpu: QemuCpu) -> bool:
        try:
            instruction = cpu.instruction()
        except ProgramInterruption:
            return False
        return classify(instruction) is Pattern.DIAG_308 and cpu.gr(instruction[1] & 15) in _RESETS

    def _was_reset(self, cpu: QemuCpu) -> bool:
        """Whether the image's entry is reached again: with DAT off, and its code in place."""
        if self._sites.stage is Stage.IMAGE or cpu.psw.address != self.entry or cpu.psw.dat:
            return False
        if self.kernel is None:
            return self._sites.stage is Stage.KERNEL
        code = os.pread(self.kernel, ENTRY_CODE, self.entry)
        return self._memory.read(self.entry, len(code)) == code


class LibvirtEngine(QemuEngine):
    """Executes a domain that runs on this computer, through ``connection``."""

    name = "libvirt"
    traps_type = ResetTraps

    def __init__(
        self, connection: Connection, domain: DomainToStart, config: MachineConfig, *, entry: int, console: bool
    ) -> None:
        super().__init__(config, entry=entry)
        self._connection = connection
        self._domain = domain
        self._console = console
        self._entry = entry
        self._folder = Path(tempfile.mkdtemp(prefix="zseal-domain-"))
        self._suspended = False
        self._powered_off: asyncio.TimerHandle | None = None
        self._restarting = False
        self._resetting = False
        self._interrupted = False
        self._watching = False

    def _create(self) -> LibvirtMachine:
        return LibvirtMachine(self._connection, self._domain, self._memory, folder=self._folder, console=self._console)

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener) -> None:
        """Let libvirt create the domain, and run it."""
        super().start(loop, listener)
        if isinstance(self._traps, ResetTraps):
            self._traps.entry, self._traps.kernel = self._entry, self._config.kernel

    @property
    def domain(self) -> object:
        """libvirt's domain object (a libvirt.virDomain)."""
        machine = self._started()
        if not isinstance(machine, LibvirtMachine):
            raise EngineError("the domain is not started")
        return machine.domain

    def close(self) -> None:
        """End the domain and release guest RAM."""
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _rearm(self) -> list[bytes]:
        """As the parent; and watch the image's entry, which a reset leads to."""
        wanted = self._sites is not None and self._sites.stage is not Stage.IMAGE
        commands = []
        if wanted != self._watching:
            self._watching = wanted
            commands.append(b"%c0,%x,%d" % (b"Z" if wanted else b"z", self._entry, BREAKPOINT_KIND))
        return commands + super()._rearm()

    def _handle(self, thread: int) -> list[bytes] | None:
        """As the parent; then the reset that the guest or somebody else asked for, with protection dropped before."""
        commands = super()._handle(thread)
        traps = self._traps
        if not isinstance(traps, ResetTraps) or not traps.reset_wanted or commands is None:
            return commands
        traps.reset_wanted = False
        self._gdb().command(*commands)
        self._reset_now()
        return None

    def _rest(self) -> None:
        """As the parent, which interrupts the machine for a moment."""
        running = self._gdb().running
        super()._rest()
        self._interrupted = running and self._rest_timer is None

    def _stopped(self, reply: StopReply) -> None:
        """As the parent; but an interruption nobody here asked for is libvirt's suspend, which lasts."""
        ours, self._interrupted = self._interrupted or self._paused or self._resetting, False
        if reply.signal == StopReply.INTERRUPT and not ours:
            self._suspend()
        else:
            if self._suspended and reply.signal == StopReply.TRAP:
                # It has run, so it was resumed, whether or not that has been told yet.
                self._suspended = self._started().qmp.state_events = False
            super()._stopped(reply)

    @property
    def _held(self) -> bool:
        """As the parent; libvirt's suspend holds the machine too."""
        return super()._held or self._suspended

    def _suspend(self) -> None:
        """Wait for libvirt to resume the machine."""
        qmp = self._started().qmp
        status = qmp.execute("query-status")  # what came before is older than the suspend
        self._suspended = True
        qmp.state_events = True
        if isinstance(status, dict) and status.get("running"):
            self._resumed()

    def _resumed(self) -> None:
        """libvirt has resumed the machine, which runs."""
        self._suspended = False
        self._started().qmp.state_events = False
        gdb = self._gdb()
        gdb.running = True
        if self._paused:
            gdb.interrupt()
            self._stopped(gdb.wait())

    def resume(self) -> None:
        """As the parent; a machine that libvirt has suspended waits for libvirt."""
        if self._suspended:
            self._paused = False
        else:
            super().resume()

    def _event(self, event: QmpEvent) -> None:
        """As the parent; and what libvirt, rather than the guest, has done."""
        if event.name == "RESUME":
            if self._suspended:
                self._resumed()
            if self._restarting:
                self._reset_now()
        elif event.name == "RESET":
            if self._powered_off is not None:
                # libvirt resumes it next, which must not get in between: it is reset in our order after that.
                self._powered_off.cancel()
                self._powered_off, self._restarting = None, True
            elif event.data.get("guest") is False and not self._resetting:
                self._reset_now()
        elif event.name == "SHUTDOWN" and event.text("reason") == "guest-reset":
            self._finish(Stop(StopKind.POWEROFF, _ENDS_AT_RESET))
        elif event.name == "SHUTDOWN" and event.text("reason") == "guest-shutdown":
            self._power_off()
        else:
            super()._event(event)

    def _power_off(self) -> None:
        """Leave it to libvirt whether this is the end: it reboots a guest by its power-off, a reset and a resume."""
        self._suspended = self._started().qmp.state_events = True
        if self._loop is not None and self._powered_off is None:
            self._powered_off = self._loop.call_later(_POWEROFF_SECONDS, self._finish, Stop(StopKind.POWEROFF))

    def _finish(self, stop: Stop) -> None:
        """As the parent; that libvirt ends QEMU after a power-off is no end of another kind."""
        if self._powered_off is not None:
            self._powered_off.cancel()
            stop = Stop(StopKind.POWEROFF) if stop.kind in (StopKind.CLOSED, StopKind.LOST) else stop
        if isinstance(self._machine, LibvirtMachine) and not self._finished:
            self._machine.await_last_words()
        super()._finish(stop)

    def _reset_now(self) -> None:
        """Reset the machine in our order; where somebody else did it already, once more.

        A domain with ``<on_reboot>destroy</on_reboot>`` ends instead.
        """
        if self._domain.ends_at_reset:
            self._finish(Stop(StopKind.POWEROFF, _ENDS_AT_RESET))
            return
        self._resetting, self._restarting = True, False
        try:
            gdb, qmp = self._gdb(), self._started().qmp
            qmp.execute("query-status")  # all that came before the answer is known then
            for event in qmp.events():
                self._event(event)
            if gdb.running:
                gdb.interrupt()
            self._reset()
            # the parent leaves QEMU waiting at the next reset, which to libvirt would be the end of the domain
            qmp.execute("set-action", reboot="reset")
        finally:
            self._resetting = False

    def _lost(self, reason: str) -> None:
        """As the parent; but QEMU's last words come first: libvirt ends it while it may be asked something."""
        with contextlib.suppress(EngineError):
            self._on_qmp()
        super()._lost(reason)
