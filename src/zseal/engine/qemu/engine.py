"""The QEMU engine: one thread's event loop, QEMU's stops in, answers out.

Where others hook in:

- ``Sites`` decides where the guest stops; an I/O audit adds DIAG 500 there, modules' sites are added with ``add_site``.
- ``RunAhead`` goes on behind a completed UVC while QEMU stands still, where Unicorn is installed (``zseal[fast]``).
- ``qmp`` gives control sockets and views what only QEMU knows (block devices, screendump).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence

from zseal.arch.psw import WAIT, Psw
from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.interface import Engine, EngineListener, Stop, StopKind
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.consoles import Consoles
from zseal.engine.qemu.cpu import QemuCpu, RegisterFile
from zseal.engine.qemu.gdbremote import GdbRemote, StopReply
from zseal.engine.qemu.interrupted_cpu import last_interruption
from zseal.engine.qemu.machine import ANSWER_SECONDS, QemuMachine
from zseal.engine.qemu.plugin import Notifications, PluginEvent
from zseal.engine.qemu.qmp import Qmp, QmpEvent
from zseal.engine.qemu.sites import Sites, Stage
from zseal.engine.qemu.stop_reasons import end_of, wants_reset
from zseal.engine.qemu.traps import Traps
from zseal.engine.qemu.virtio import VirtioView
from zseal.engine.unicorn.runahead import RunAhead
from zseal.engine.virtio import VirtioDevice
from zseal.errors import MissingDependencyError

_BREAKPOINT_KIND = 2
_ENTRY_SECONDS = 1e-3
_REST_SECONDS = 0.25
"""So long after its last ultravisor call a kernel is not expected to make another one soon."""


class QemuEngine(Engine):
    """Executes the machine that ``config`` describes.

    ``entry`` is the address of the boot image's first instruction; None boots without any traps, as plain QEMU would.
    ``run_ahead`` False stops at every single call even where Unicorn is installed.
    """

    name = "qemu"
    traps_type = Traps

    def __init__(
        self, config: MachineConfig, *, entry: int | None, program: str | None = None, run_ahead: bool = True
    ) -> None:
        self._config = config
        self._program = program
        self._memory = SharedMemory(config.memory, large_pages=True)
        self._sites = Sites(self._memory, entry) if entry is not None else None
        self._run_ahead = self._find_run_ahead() if run_ahead and entry is not None else None
        self._armed: set[int] = set()
        self._prefixes: dict[int, int] = {}
        self._paused = False
        self._finished = False
        self._machine: QemuMachine | None = None
        self._registers: RegisterFile | None = None
        self._listener: EngineListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._consoles = Consoles()
        self.notifications = Notifications(self._cpu_reached, self._notification_failed)
        """Set its ``hook`` before the start to be asked before a guest notifies a virtio device, see there."""
        self._reached: deque[tuple[int, PluginEvent, int]] = deque()
        self._traps: Traps | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._calls_before_rest = 0
        self.stops = 0

    def _find_run_ahead(self) -> RunAhead | None:
        try:
            return RunAhead(self._memory)
        except MissingDependencyError:
            return None

    # --- what the host asks for ---

    @property
    def memory(self) -> SharedMemory:
        """The guest's RAM."""
        return self._memory

    def statistics(self) -> dict[str, int | float | str]:
        """Return QEMU's version, the stops at breakpoints and the round trips to the gdb stub."""
        machine = self._machine
        return {
            "version": ".".join(map(str, machine.qmp.version)) if machine else "",
            "stops": self.stops,
            "run_ahead": self._run_ahead is not None,
            "calls_without_stop": self._traps.calls_ahead if self._traps else 0,
            "calls_by_exception": self._traps.exceptions if self._traps else 0,
            "round_trips": machine.gdb.round_trips if machine and machine.gdb else 0,
            "calls_by": self.notifications.calls_by,
            "notifications_by": self.notifications.by,
            "large_pages": self._memory.large_pages,
        }

    @property
    def pid(self) -> int | None:
        """QEMU's process; None before the start."""
        return self._machine.process.pid if self._machine else None

    @property
    def qmp(self) -> Qmp:
        """QEMU's control connection; events are read by the engine."""
        return self._started().qmp

    @property
    def sites(self) -> Sites | None:
        """Where the guest stops; None where it runs without traps."""
        return self._sites

    def _started(self) -> QemuMachine:
        if self._machine is None:
            raise EngineError("the machine is not started")
        return self._machine

    def _gdb(self) -> GdbRemote:
        gdb = self._started().gdb
        if gdb is None:
            raise EngineError("this machine runs without traps")
        return gdb

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener) -> None:
        """Start QEMU and let the guest run."""
        self._loop, self._listener = loop, listener
        self._machine = self._create()
        if self._sites is not None:
            self.notifications.watch(self._machine, self._sites)
        loop.add_reader(self._machine.process.pidfd, self._on_process_end)
        if self._machine.process.output is not None:
            loop.add_reader(self._machine.process.output, self._on_output, self._machine.process.output)
        loop.add_reader(self._machine.qmp.fileno(), self._guarded, self._on_qmp)
        self._consoles.start(self._machine.consoles, loop, listener)
        if self._machine.gdb is None or self._sites is None:
            self._machine.qmp.execute("cont")
            return
        self._traps = self.traps_type(
            self._sites,
            self._memory,
            listener,
            run_ahead=self._run_ahead,
            notify=lambda cpu: self.notifications.at_breakpoint(cpu, self._started()),
            kernel_begins=self.notifications.kernel_begins,
            going_on=lambda: not self._finished,
        )
        self._registers = RegisterFile(self._machine.gdb.registers())
        loop.add_reader(self._machine.gdb.fileno(), self._guarded, self._on_gdb)
        cpu = self._cpu(1)
        self.notifications.begin(cpu, self._memory)
        self._continue(*cpu.pending())

    def _create(self) -> QemuMachine:
        """Return the machine, created stopped; an engine whose QEMU another program starts has its own way."""
        if self._sites is None:
            return QemuMachine(self._config, self._memory, traps=False, program=self._program)
        return self.notifications.with_plugin(
            lambda plugin: QemuMachine(
                self._config,
                self._memory,
                traps=True,
                program=self._program,
                plugin_file=plugin,
                notifications=self.notifications.hook is not None,
                queues=self.notifications.queues,
            )
        )

    def _cpu_reached(self, cpu: int, what: PluginEvent, address: int) -> None:
        """CPU ``cpu`` is about to execute what only firmware may; in the plugin's thread: have the machine stop for it.

        To QEMU a UVC is an operation exception. To take it the CPU needs QEMU's global lock, which the main thread does
        not give away between receiving an interruption and telling the CPUs to stop. So the exception's first effects
        are there at the stop, the guest's handler has not begun, and ``Traps.handle_call`` takes it back. In front of
        the others the plugin takes that lock itself: an LPSWE is the last thing that the CPU does then. A QEMU that
        does not give it to plugins is given a thousand microseconds for the few it needs at a kernel's entry.
        """
        sites = self._sites
        if sites is None:
            return
        if what is PluginEvent.ENTRY and sites.stage is not Stage.KERNEL:
            return  # there is a breakpoint
        if what is PluginEvent.LOAD and not sites.may_start_kernel(address):
            return
        self._reached.append((cpu, what, address))
        gdb = self._gdb()
        gdb.interrupt()
        gdb.wait_until_taken()
        if what is PluginEvent.ENTRY and not self.notifications.exact:
            time.sleep(_ENTRY_SECONDS)

    def _notification_failed(self, error: BaseException) -> None:
        """A notification or call could not be handled, in the plugin's thread: the machine ends with ``error``."""

        def fail() -> None:
            raise error

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._guarded, fail)

    def protected(self, entry: Psw) -> None:
        """Look for a protected guest's traps from now on."""
        if self._sites is not None:
            self._sites.protected()

    def pause(self) -> None:
        """Stop all CPUs."""
        if self._finished or self._paused:
            return
        self._paused = True
        machine = self._started()
        if machine.gdb is None:
            machine.qmp.execute("stop")
        elif machine.gdb.running:
            machine.gdb.interrupt()
            self._stopped(machine.gdb.wait())

    @property
    def _held(self) -> bool:
        """Whether the machine is to stand still for now."""
        return self._paused

    def resume(self) -> None:
        """Run on after a pause."""
        if self._finished or not self._paused:
            return
        self._paused = False
        if self._started().gdb is None:
            self._started().qmp.execute("cont")
        else:
            self._continue()

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``; what QEMU does not take at once follows as it does."""
        self._consoles.type(data, when_room)

    def request_poweroff(self) -> bool:
        """Send the guest SCLP's signal quiesce, which Linux takes as Ctrl-Alt-Del for a shutdown."""
        if not self._finished and not self._paused:
            self.qmp.execute("system_powerdown")
        return not self._finished and not self._paused

    def unused_without_iommu(self) -> Sequence[VirtioDevice]:
        """Ask QEMU, which is given little time: the guest may be about to be ended because it hangs."""
        if self._machine is None:
            return ()
        try:
            with self._machine.qmp.answers_within(ANSWER_SECONDS):
                return VirtioView(self._machine.qmp).unused_without_iommu()
        except EngineError:
            return ()

    def kill(self) -> None:
        """Kill QEMU; its end is noticed like any other."""
        if self._machine is not None and not self._finished:
            self._machine.process.send_kill()

    def end(self) -> None:
        """Let QEMU write out its disks and end; kill it where it does not in time."""
        self._finish(Stop(StopKind.CLOSED))
        if self._machine is not None:
            self._machine.end(self._release)
        self.notifications.close()

    def close(self) -> None:
        """Kill QEMU and release guest RAM."""
        self._finish(Stop(StopKind.CLOSED))
        if self._machine is not None:
            self._machine.close(self._release)
        self.notifications.close()
        if self._run_ahead is not None:
            self._run_ahead.close()
        self._memory.close()

    def _release(self, descriptor: int) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    # --- events of the loop ---

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run ``step``; whatever it raises ends the machine, never the loop."""
        if self._finished:
            self._quiet()
            return
        try:
            step()
        except EngineLostError as error:
            # QEMU's own last event, or its exit status, says more than the connection that broke first.
            self._lost(error.message)
        except Exception as error:
            if self._listener is not None:
                self._listener.failed(error)
            self._finish(Stop(StopKind.LOST, f"{type(error).__name__}: {error}"))

    def _quiet(self) -> None:
        """After the end: read no more, so that a readable descriptor does not keep the loop busy."""
        if self._machine is not None:
            for connection in (self._machine.qmp, self._machine.gdb):
                if connection is not None and connection.fileno() >= 0:
                    self._release(connection.fileno())

    def _lost(self, reason: str) -> None:
        machine = self._started()
        status = machine.process.wait(2.0)
        if status is not None and status < 0:
            reason = f"QEMU was killed by signal {-status}"
        elif status:
            reason = f"QEMU ended with exit code {status}: {machine.process.last_message() or 'no message'}"
        elif status == 0:
            reason = "QEMU ended"
        self._finish(Stop(StopKind.LOST, reason))

    def _finish(self, stop: Stop) -> None:
        if self._finished:
            return
        self._finished = True
        self._consoles.finish()
        self._quiet()
        if self._listener is not None:
            self._listener.stopped(stop)

    def _on_process_end(self) -> None:
        self._release(self._started().process.pidfd)
        if not self._finished:
            # What happened before the end is in the connections still.
            self._guarded(self._on_qmp)
        if not self._finished:
            self._lost("QEMU ended")

    def _on_output(self, descriptor: int) -> None:
        if not self._started().process.collect():
            self._release(descriptor)

    def _on_qmp(self) -> None:
        for event in self._started().qmp.events():
            self._event(event)

    def _event(self, event: QmpEvent) -> None:
        if wants_reset(event):
            self._reset()
        elif (stop := end_of(event)) is not None:
            self._finish(self._explained(stop))

    def _explained(self, stop: Stop) -> Stop:
        """Tell of a panic which instruction it may have come from."""
        gdb = self._started().gdb
        if stop.kind is not StopKind.PANIC or stop.cpu is None or gdb is None:
            return stop
        with contextlib.suppress(EngineError):  # QEMU may be gone by now
            if gdb.running:
                gdb.wait()
            return dataclasses.replace(stop, interrupted=last_interruption(self._cpu(stop.cpu + 1), self._memory))
        return stop

    def _reset(self) -> None:
        """The guest asked for a reset and stands still: drop protection, then let QEMU do it."""
        if self._listener is not None:
            self._listener.reset()
        machine = self._started()
        if machine.gdb is not None and machine.gdb.running:
            machine.gdb.wait()
        self._reached.clear()
        machine.qmp.execute("set-action", reboot="reset")
        machine.qmp.execute("system_reset")
        for event in machine.qmp.wait_for("RESET"):
            self._event(event)
        machine.qmp.execute("set-action", reboot="shutdown")  # answered when QEMU has left the reset behind
        if machine.gdb is None or self._sites is None:
            machine.qmp.execute("cont")
            return
        self._sites.image()
        if self._held:
            machine.gdb.command(*self._rearm())
        else:
            self._continue()

    def _on_gdb(self) -> None:
        gdb = self._gdb()
        reply = gdb.poll()
        if reply is not None:
            self._stopped(reply)

    # --- stops ---

    def _stopped(self, reply: StopReply) -> None:
        """Handle one stop and go on, unless it is to last."""
        if reply.signal not in (StopReply.TRAP, StopReply.INTERRUPT):
            # The end of the guest, or its reset: QMP tells which.
            self._on_qmp()
            return
        if reply.signal == StopReply.TRAP and reply.thread is not None:
            self.stops += 1
            commands = self._handle(reply.thread)
            if commands is None:
                return
        else:
            commands = []
        while self._reached and not self._finished:
            self._gdb().command(*commands)
            commands = self._handle_reached(*self._reached.popleft())
        if self._finished:
            return
        if self._held:
            self._gdb().command(*commands)
        else:
            self._continue(*commands)

    def _continue(self, *commands: bytes) -> None:
        gdb = self._gdb()
        gdb.resume(*commands, *self._rearm())
        if gdb.buffered and self._loop is not None:
            # The next stop came along with the answers: its descriptor will not become readable for it again.
            self._loop.call_soon(self._guarded, self._on_gdb)

    def _rearm(self) -> list[bytes]:
        """Return the requests that make QEMU's breakpoints those of the current stage."""
        wanted = set(self._sites) if self._sites is not None else set()
        commands = [b"z0,%x,%d" % (address, _BREAKPOINT_KIND) for address in sorted(self._armed - wanted)]
        commands += [b"Z0,%x,%d" % (address, _BREAKPOINT_KIND) for address in sorted(wanted - self._armed)]
        self._armed = wanted
        return commands

    def _cpu(self, thread: int) -> QemuCpu:
        if self._registers is None:
            raise EngineError("this machine runs without traps")
        return QemuCpu(self._gdb(), self._registers, self._memory, thread, self._prefixes.get(thread, 0))

    def _handler(self) -> Traps:
        if self._traps is None:
            raise EngineError("QEMU stopped at a breakpoint that was never set")
        return self._traps

    def _handle(self, thread: int) -> list[bytes] | None:
        """Handle the CPU of ``thread`` at a breakpoint; returns what is to be sent with the resume.

        None where there is nothing to resume: the machine stopped in another way, and that was handled.
        """
        cpu = self._cpu(thread)
        native = self._handler().handle(cpu)
        self._rest_later()
        if native:
            cpu.step()
            stop = cpu.last_stop
            if stop is not None and stop.signal != StopReply.TRAP:
                self._stopped(stop)
                return None
        return self._handled(cpu, native=native)

    def _handle_reached(self, number: int, what: PluginEvent, address: int) -> list[bytes]:
        """Handle CPU ``number`` after ``what`` at ``address``; returns what is to be sent with the resume."""
        self.stops += 1
        cpu = self._cpu(number + 1)
        if what is PluginEvent.CALL:
            self._handler().handle_call(cpu)
        elif what is PluginEvent.LOAD:
            self._handler().handle_load(cpu, address)
        else:
            self._handler().handle_entry(cpu)
        return self._handled(cpu, native=False) or []

    def _handled(self, cpu: QemuCpu, *, native: bool) -> list[bytes] | None:
        """Return what QEMU is to be told of ``cpu``, which executed its instruction itself or not; None at its end."""
        self._prefixes[cpu.thread] = cpu.known_prefix
        psw = cpu.psw
        if psw.mask & WAIT and psw.disabled_wait and not native:
            # Set from outside, the wait bit does not stop QEMU's CPU: this is the end all the same.
            self._finish(Stop(StopKind.PANIC, "disabled-wait", cpu.number, psw))
            return None
        return cpu.pending()

    # --- rest ---

    def _rest_later(self) -> None:
        """Have the sites of the kernel left when its calls have ended."""
        if self._rest_timer is not None or self._loop is None or self._sites is None:
            return
        if self._sites.boot_breakpoints_remain():
            self._rest_timer = self._loop.call_later(_REST_SECONDS, self._guarded, self._rest)

    def _rest(self) -> None:
        self._rest_timer = None
        sites, traps = self._sites, self._traps
        if sites is None or traps is None:
            return
        if traps.calls != self._calls_before_rest:
            self._calls_before_rest = traps.calls
            self._rest_later()
            return
        sites.drop_boot_breakpoints()
        if self._gdb().running:
            self._gdb().interrupt()  # the resume that follows makes QEMU forget what is left
