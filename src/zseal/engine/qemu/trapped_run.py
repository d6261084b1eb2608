"""A run whose CPUs stop for us: it turns QEMU's stops into completed instructions.

Extension points:

- ``Sites`` decides where the guest stops; an I/O audit adds DIAG 500 there.
- ``RunAhead`` goes on after a completed UVC while QEMU is stopped, if Unicorn is installed (``zseal[fast]``).
- ``MachineOwner`` decides what it means if something else stops, resets and resumes the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Sequence

from zseal.arch.psw import WAIT
from zseal.engine.errors import EngineError
from zseal.engine.interface import EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu, RegisterFile
from zseal.engine.qemu.gdbremote import GdbRemote, StopReply
from zseal.engine.qemu.interrupted_cpu import last_interruption
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.ownership import OwnerFactory
from zseal.engine.qemu.plugin import Notifications, PluginEvent
from zseal.engine.qemu.run import Counts, QemuRun
from zseal.engine.qemu.sites import Sites, Stage
from zseal.engine.qemu.traps import Traps
from zseal.engine.unicorn.runahead import RunAhead
from zseal.engine.virtio import NotifyHook

_BREAKPOINT_KIND = 2
_WITHOUT_LOCK = "zseal's plugin cannot watch this QEMU's lock, so it watches translations, and the guest runs slower"
_ENTRY_SECONDS = 1e-3
_REST_SECONDS = 0.25
"""Seconds after its last ultravisor call until a kernel is not expected to make another one soon."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trapping:
    """The means to stop CPUs: ``gdb`` is that of the machine, ``run_ahead`` None stops at every call."""

    sites: Sites
    run_ahead: RunAhead | None
    gdb: GdbRemote
    registers: RegisterFile
    notification: NotifyHook | None


class TrappedRun(QemuRun):
    """A run whose CPUs stop at instructions that firmware completes, by breakpoints and the plugin in QEMU."""

    def __init__(
        self,
        machine: QemuMachine,
        memory: SharedMemory,
        loop: asyncio.AbstractEventLoop,
        listener: EngineListener,
        owner: OwnerFactory,
        *,
        trapping: Trapping,
    ) -> None:
        super().__init__(machine, memory, loop, listener, owner)
        self._sites, self._gdb, self._registers = trapping.sites, trapping.gdb, trapping.registers
        self._notifications = Notifications(trapping.notification, self._reached_by_plugin, self._failed_elsewhere)
        self._traps = Traps(
            self._sites,
            self.memory,
            listener,
            run_ahead=trapping.run_ahead,
            notify=lambda cpu: self._notifications.at_breakpoint(cpu, self.machine),
            kernel_begins=self._notifications.kernel_begins,
            going_on=lambda: not self.finished,
        )
        self._armed: set[int] = set()
        self._prefixes: dict[int, int] = {}
        self._reached: deque[tuple[int, PluginEvent, int]] = deque()
        self._interrupting = False
        self._rest_timer: asyncio.TimerHandle | None = None
        self._calls_before_rest = 0
        self._stops = 0

    @property
    def stage(self) -> Stage:
        """The code that the guest runs."""
        return self._sites.stage

    def counts(self) -> Counts:
        """Return the stops at breakpoints, the calls and the round trips to the gdb stub."""
        return dataclasses.replace(
            super().counts(),
            stops=self._stops,
            calls_without_stop=self._traps.calls_ahead,
            calls_by_exception=self._traps.exceptions,
            round_trips=self._gdb.round_trips,
            calls_by=self._notifications.calls_by,
            notifications_by=self._notifications.by,
        )

    def notices(self) -> Sequence[str]:
        """Return a notice if the plugin works with less than it could."""
        less = self.machine.lock and self._notifications.calls_by == "translations"
        return [*super().notices(), *([_WITHOUT_LOCK] if less else [])]

    # --- by what means ---

    def _begin(self) -> None:
        self._notifications.watch(self.machine, self._sites)
        self.loop.add_reader(self._gdb.fileno(), self.guarded, self._on_gdb)
        cpu = self._cpu(1)
        self._notifications.begin(cpu, self.memory)
        self._continue(*cpu.pending())

    def _stop(self) -> None:
        if self._gdb.running:
            self._gdb.interrupt()
            self._stopped(self._gdb.wait())

    def _go_on(self) -> None:
        self._continue()

    def _settle(self) -> None:
        if self._gdb.running:
            self._gdb.wait()
        self._reached.clear()

    def _after_reset(self) -> None:
        self._sites.image()
        if self.held:
            self._gdb.command(*self._rearm())
        else:
            self._continue()

    def interrupt(self) -> None:
        """Let the gdb stub stop the CPUs if they run."""
        if self._gdb.running:
            self._gdb.interrupt()

    def resumed(self) -> None:
        """Expect the next stop; cause it if the host has paused the machine."""
        self._gdb.running = True
        if self.paused:
            self._stop()

    def explained(self, stop: Stop) -> Stop:
        """Add to a panic the instruction that may have caused it."""
        if stop.kind is not StopKind.PANIC or stop.cpu is None:
            return stop
        with contextlib.suppress(EngineError):  # QEMU may be gone by now
            if self._gdb.running:
                self._gdb.wait()
            return dataclasses.replace(stop, interrupted=last_interruption(self._cpu(stop.cpu + 1), self.memory))
        return stop

    def _connections(self) -> Sequence[int]:
        return (*super()._connections(), self._gdb.fileno())

    def end(self) -> None:
        """As in every run; then stop answering the plugin."""
        super().end()
        self._notifications.close()

    def close(self) -> None:
        """As in every run; then stop answering the plugin."""
        super().close()
        self._notifications.close()

    # --- the plugin's thread ---

    def _reached_by_plugin(self, cpu: int, what: PluginEvent, address: int) -> None:
        """Stop the machine for ``cpu``, which is about to execute what only firmware may; in the plugin's thread.

        To QEMU a UVC is an operation exception. To take it, the CPU needs QEMU's global lock, which the main thread
        does not release between receiving an interruption and ordering the CPUs to stop. So at the stop the exception
        has had its first effects, the guest's handler has not begun, and ``Traps.handle_call`` takes the exception
        back. Before the other instructions the plugin takes that lock itself: an LPSWE is then the last thing that the
        CPU does. A QEMU that does not give the lock to plugins gets a thousand microseconds for the few that it needs
        at a kernel's entry.
        """
        if what is PluginEvent.ENTRY and self._sites.stage is not Stage.KERNEL:
            return  # there is a breakpoint
        if what is PluginEvent.LOAD and not self._traps.may_start_kernel(cpu, address):
            return
        self._reached.append((cpu, what, address))
        self._gdb.interrupt()
        self._gdb.wait_until_taken()
        if what is PluginEvent.ENTRY and not self._notifications.exact:
            time.sleep(_ENTRY_SECONDS)

    def _failed_elsewhere(self, error: BaseException) -> None:
        """End the machine with ``error``: a notification or call could not be handled; in the plugin's thread."""

        def fail() -> None:
            raise error

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.guarded, fail)

    # --- stops ---

    def _on_gdb(self) -> None:
        reply = self._gdb.poll()
        if reply is not None:
            self._stopped(reply)

    def _stopped(self, reply: StopReply) -> None:
        """Handle one stop and go on, unless it shall last."""
        ours = self._interrupting or self.paused or self.owner.resetting or bool(self._reached)
        self._interrupting = False
        if reply.signal == StopReply.INTERRUPT and not ours and self.owner.interrupted():
            return
        if reply.signal not in (StopReply.TRAP, StopReply.INTERRUPT):
            # The end of the guest, or its reset: QMP shows which.
            self.read_events()
            return
        commands: list[bytes] = []
        if reply.signal == StopReply.TRAP:
            self.owner.trapped()
            if reply.thread is not None:
                self._stops += 1
                handled = self._handle(reply.thread)
                if handled is None:
                    return
                commands = handled
        while self._reached and not self.finished:
            self._gdb.command(*commands)
            commands = self._handle_reached(*self._reached.popleft())
        if self.finished:
            return
        if self.held:
            self._gdb.command(*commands)
        else:
            self._continue(*commands)

    def _continue(self, *commands: bytes) -> None:
        self._gdb.resume(*commands, *self._rearm())
        if self._gdb.buffered:
            # The next stop arrived together with the answers: the descriptor will not become readable for it again.
            self.loop.call_soon(self.guarded, self._on_gdb)

    def _rearm(self) -> list[bytes]:
        """Return the requests that make QEMU's breakpoints those of the current stage."""
        wanted = {*self._sites, *self.owner.breakpoints()}
        commands = [b"z0,%x,%d" % (address, _BREAKPOINT_KIND) for address in sorted(self._armed - wanted)]
        commands += [b"Z0,%x,%d" % (address, _BREAKPOINT_KIND) for address in sorted(wanted - self._armed)]
        self._armed = wanted
        return commands

    def _cpu(self, thread: int) -> QemuCpu:
        return QemuCpu(self._gdb, self._registers, self.memory, thread, self._prefixes.get(thread, 0))

    def _handle(self, thread: int) -> list[bytes] | None:
        """Handle the CPU of ``thread`` at a breakpoint; returns what to send with the resume.

        Returns None if there is nothing to resume: the machine stopped in another way, and that was handled.
        """
        cpu = self._cpu(thread)
        if self.owner.was_reset(cpu):
            self._reset_instead(cpu)
            return None
        native = self._traps.handle(cpu)
        self._rest_later()
        if native and self.owner.asks_for_reset(cpu):
            self._reset_instead(cpu)
            return None
        if native:
            cpu.step()
            stop = cpu.last_stop
            if stop is not None and stop.signal != StopReply.TRAP:
                self._stopped(stop)
                return None
        return self._handled(cpu, native=native)

    def _reset_instead(self, cpu: QemuCpu) -> None:
        """Reset the machine in our order instead of letting ``cpu`` go on."""
        self._gdb.command(*cpu.pending())
        self.owner.reset()

    def _handle_reached(self, number: int, what: PluginEvent, address: int) -> list[bytes]:
        """Handle CPU ``number`` after ``what`` at ``address``; returns what to send with the resume."""
        self._stops += 1
        cpu = self._cpu(number + 1)
        if what is PluginEvent.CALL:
            self._traps.handle_call(cpu)
        elif what is PluginEvent.LOAD:
            self._traps.handle_load(cpu, address)
        else:
            self._traps.handle_entry(cpu)
        return self._handled(cpu, native=False) or []

    def _handled(self, cpu: QemuCpu, *, native: bool) -> list[bytes] | None:
        """Return the requests about ``cpu`` to QEMU, whether it executed its instruction itself or not; None at its
        end.
        """
        self._prefixes[cpu.thread] = cpu.known_prefix
        psw = cpu.psw
        if native or not (psw.mask & WAIT and psw.disabled_wait):
            return cpu.pending()
        # It is the end if no other CPU runs: QEMU knows, whether it executed an LPSWE or is given the PSW from outside.
        self._gdb.command(*cpu.pending())
        self.machine.qmp.execute("query-status")  # all that came before the answer is known then
        self.read_events()
        return None if self.finished else []

    # --- rest ---

    def _rest_later(self) -> None:
        """Drop the sites of the kernel when its calls have ended."""
        if self._rest_timer is None and self._sites.boot_breakpoints_remain():
            self._rest_timer = self.loop.call_later(_REST_SECONDS, self.guarded, self._rest)

    def _rest(self) -> None:
        self._rest_timer = None
        if self._traps.calls != self._calls_before_rest:
            self._calls_before_rest = self._traps.calls
            self._rest_later()
            return
        self._sites.drop_boot_breakpoints()
        if self._gdb.running:
            self._interrupting = True
            self._gdb.interrupt()  # the resume that follows makes QEMU drop the rest
