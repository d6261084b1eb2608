"""The QEMU engine on a QEMU that libvirt owns: resets and pauses may come from others."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from zseal.domain.document import Document
from zseal.domain.launch.connection import Connection
from zseal.domain.launch.machine import LibvirtMachine
from zseal.engine.interface import EngineListener, Stop, StopKind, TrapKind
from zseal.engine.qemu.commandline import MachineConfig
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.gdbremote import StopReply
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.sites import Sites, Stage
from zseal.host.firmware import Subcode

BREAKPOINT_KIND = 2
_RESETS = frozenset({Subcode.LOAD_CLEAR, Subcode.LOAD_NORMAL_DUMP})


class LibvirtEngine(QemuEngine):
    """Executes the domain ``document`` (already translated) through ``connection``."""

    name = "libvirt"

    def __init__(
        self, connection: Connection, document: Document, config: MachineConfig, *, entry: int, console: bool
    ) -> None:
        super().__init__(config, entry=entry)
        self._connection = connection
        self._document = document
        self._console = console
        self._entry = entry
        self._folder = Path(tempfile.mkdtemp(prefix="zseal-domain-"))
        self._suspended = False
        self._resetting = False
        self._wants_reset = False
        self._watching = False

    def _create(self) -> LibvirtMachine:
        return LibvirtMachine(
            self._connection, self._document, self._memory, folder=self._folder, console=self._console
        )

    def close(self) -> None:
        """End the domain and release guest RAM."""
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self, sites: Sites, listener: EngineListener, cpu: QemuCpu, kind: TrapKind | None) -> bool:
        """As the parent; but a guest's own reset is not left to QEMU, which would start the image at once."""
        if kind is None and self._watching and cpu.psw.address == self._entry and not cpu.psw.dat:
            self._wants_reset = True  # somebody reset the machine, and QEMU started the image at once
            return False
        native = super()._complete(sites, listener, cpu, kind)
        if native and kind is TrapKind.DIAG_308 and cpu.gr(cpu.instruction()[1] & 15) in _RESETS:
            self._wants_reset = True
            return False
        return native

    def _rearm(self) -> list[bytes]:
        """As the parent; and while the kernel runs, watch the image's entry, which only a reset leads to."""
        wanted = self._sites is not None and self._sites.stage is Stage.KERNEL
        commands = []
        if wanted != self._watching:
            self._watching = wanted
            commands.append(b"%c0,%x,%d" % (b"Z" if wanted else b"z", self._entry, BREAKPOINT_KIND))
        return commands + super()._rearm()

    def _handle(self, thread: int) -> list[bytes] | None:
        """As the parent; then the reset that the guest asked for, with protection dropped before."""
        commands = super()._handle(thread)
        if not self._wants_reset or commands is None:
            return commands
        self._wants_reset = False
        self._gdb().command(*commands)
        self._reset_now()
        return None

    def _stopped(self, reply: StopReply) -> None:
        """As the parent; but an interruption nobody here asked for is libvirt's suspend, which lasts."""
        if reply.signal == StopReply.INTERRUPT and not self._paused and not self._resetting:
            self._suspended = True
            return
        super()._stopped(reply)

    def _event(self, event: QmpEvent) -> None:
        """As the parent; and what libvirt, rather than the guest, has done."""
        if event.name == "RESUME" and self._suspended:
            self._suspended = False
            self._gdb().running = True
        elif event.name == "RESET":
            if event.data.get("guest") is False and not self._resetting:
                self._reset_now()
        elif event.name == "SHUTDOWN" and event.text("reason") == "guest-reset":
            self._finish(Stop(StopKind.POWEROFF, "the guest rebooted, and the domain ends then"))
        else:
            super()._event(event)

    def _reset_now(self) -> None:
        """Reset the machine in our order; where somebody else did it already, once more."""
        self._resetting = True
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

    def _on_process_end(self) -> None:
        """As the parent; the end of a QEMU that libvirt was told to end is no loss."""
        with contextlib.suppress(Exception):
            if not self._finished:
                for event in self._started().qmp.events():
                    self._event(event)
        if not self._finished:
            self._release(self._started().process.pidfd)
            self._finish(Stop(StopKind.CLOSED, "libvirt ended the domain"))
            return
        super()._on_process_end()
