"""One run of a QEMU machine in its event loop, from its first instruction to its end."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.interface import EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.consoles import Consoles
from zseal.engine.qemu.launch import ANSWER_SECONDS
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.ownership import OwnerFactory
from zseal.engine.qemu.sites import Stage
from zseal.engine.qemu.virtio import VirtioView
from zseal.engine.virtio import VirtioDevice

_END_SECONDS = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """The counters of a run; ``calls_by`` and ``notifications_by`` name what sees those."""

    version: str = ""
    stops: int = 0
    calls_without_stop: int = 0
    calls_by_exception: int = 0
    round_trips: int = 0
    calls_by: str = "none"
    notifications_by: str = "none"


class QemuRun(abc.ABC):
    """Executes ``machine``, whose RAM is ``memory``, in the thread of ``loop`` and reports to ``listener``.

    ``owner`` makes the policy of its owner. A subclass implements how the CPUs stop and go on.
    """

    def __init__(
        self,
        machine: QemuMachine,
        memory: SharedMemory,
        loop: asyncio.AbstractEventLoop,
        listener: EngineListener,
        owner: OwnerFactory,
    ) -> None:
        self.machine = machine
        self.memory = memory
        self.loop = loop
        self.listener = listener
        self.paused = False
        self.finished = False
        self.owner = owner(self)
        self._consoles = Consoles(machine.consoles, loop, listener)

    def begin(self) -> None:
        """Listen to QEMU, and let the guest run."""
        process = self.machine.process
        self.loop.add_reader(process.pidfd, self._on_process_end)
        if process.output is not None:
            self.loop.add_reader(process.output, self._on_output, process.output)
        self.loop.add_reader(self.machine.qmp.fileno(), self.guarded, self.read_events)
        self._consoles.start()
        try:
            self._begin()
        except EngineLostError as error:
            raise EngineLostError(self._why_lost(error.message)) from error

    # --- how CPUs stop and go on ---

    @abc.abstractmethod
    def _begin(self) -> None:
        """Let the CPUs run for the first time."""

    @abc.abstractmethod
    def _stop(self) -> None:
        """Stop the CPUs, if they run."""

    @abc.abstractmethod
    def _go_on(self) -> None:
        """Let the CPUs, which are stopped, run."""

    @abc.abstractmethod
    def _settle(self) -> None:
        """Wait until the CPUs have stopped, as they are about to for a reset or at the end."""

    @abc.abstractmethod
    def _after_reset(self) -> None:
        """Go on after the machine was reset, unless it is held."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Have the CPUs stop if they run."""

    @abc.abstractmethod
    def resumed(self) -> None:
        """Note that something else resumed the machine; stop it again if the host has paused it."""

    def explained(self, stop: Stop) -> Stop:
        """Return ``stop`` with what a stopped CPU can add to it."""
        return stop

    def counts(self) -> Counts:
        """Return the counters."""
        return Counts(version=".".join(map(str, self.machine.qmp.version)))

    def notices(self) -> Sequence[str]:
        """Return what the user should know about the execution of the guest."""
        return [self.machine.notice] if self.machine.notice else []

    @property
    def stage(self) -> Stage:
        """The code that the guest runs; IMAGE as long as that is not checked."""
        return Stage.IMAGE

    # --- requests of the host ---

    @property
    def held(self) -> bool:
        """Whether the machine shall be stopped for now."""
        return self.paused or self.owner.holds

    def pause(self) -> None:
        """Stop all CPUs; no effect while paused or after the end."""
        if not self.finished and not self.paused:
            self.paused = True
            self._stop()

    def resume(self) -> None:
        """Run on after a pause; a machine that its owner holds waits for that."""
        if not self.finished and self.paused:
            self.paused = False
            if not self.held:
                self._go_on()

    def type(self, data: bytes, when_room: Callable[[], None] | None) -> None:
        """Type ``data``; the part that QEMU does not take immediately follows later."""
        self._consoles.type(data, when_room)

    def request_poweroff(self) -> bool:
        """Send the guest SCLP's signal quiesce, on which Linux shuts down as on Ctrl-Alt-Del."""
        able = not self.finished and not self.paused
        if able:
            self.machine.qmp.execute("system_powerdown")
        return able

    def unused_without_iommu(self) -> Sequence[VirtioDevice]:
        """Ask QEMU, with little time: the guest may be about to be ended because it hangs."""
        try:
            with self.machine.qmp.answers_within(ANSWER_SECONDS):
                return VirtioView(self.machine.qmp).unused_without_iommu()
        except EngineError:
            return ()

    def kill(self) -> None:
        """Kill QEMU; its end is noticed like any other."""
        if not self.finished:
            self.machine.process.send_kill()

    def end(self) -> None:
        """Let QEMU write out its disks and end; kill it if it takes too long."""
        self.finish(Stop(StopKind.CLOSED))
        self.machine.end(self._release)

    def close(self) -> None:
        """Kill QEMU."""
        self.finish(Stop(StopKind.CLOSED))
        self.machine.close(self._release)

    # --- events of the loop ---

    def guarded(self, step: Callable[[], None]) -> None:
        """Run ``step``; whatever it raises ends the machine, never the loop."""
        if self.finished:
            self._quiet()
            return
        try:
            step()
        except EngineLostError as error:
            # QEMU's own last event, or its exit status, is more informative than the connection that broke first.
            self._lost(error.message)
        except Exception as error:
            self.listener.failed(error)
            self.finish(Stop(StopKind.LOST, f"{type(error).__name__}: {error}"))

    def _release(self, descriptor: int) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(descriptor)
            self.loop.remove_writer(descriptor)

    def _connections(self) -> Sequence[int]:
        """Return the descriptors through which QEMU reports."""
        return (self.machine.qmp.fileno(),)

    def _quiet(self) -> None:
        """Read no more after the end, so that a readable descriptor does not keep the loop busy."""
        for descriptor in self._connections():
            if descriptor >= 0:
                self._release(descriptor)

    def _lost(self, reason: str) -> None:
        with contextlib.suppress(EngineError):
            self.read_events()  # its last output comes first
        if self.finished:
            return
        self.finish(Stop(StopKind.LOST, self._why_lost(reason)))

    def _why_lost(self, reason: str) -> str:
        """Return how QEMU ended, with its last message; ``reason`` if it still exists."""
        status = self.machine.process.wait(_END_SECONDS)
        if status is not None and status < 0:
            reason = f"QEMU was killed by signal {-status}"
        elif status:
            reason = f"QEMU ended with exit code {status}"
        elif status == 0:
            reason = "QEMU ended"
        words = self.machine.process.last_message()
        return f"{reason}: {words}" if words else reason

    def finish(self, stop: Stop) -> None:
        """End the run; a second call has no effect."""
        if self.finished:
            return
        self.finished = True
        stop = self.owner.final(stop)
        self.machine.await_last_words()
        self._consoles.finish()
        self._quiet()
        self.listener.stopped(stop)

    def _on_process_end(self) -> None:
        self._release(self.machine.process.pidfd)
        if not self.finished:
            # Events before the end are still in the connections.
            self.guarded(self.read_events)
        if not self.finished:
            self._lost("QEMU ended")

    def _on_output(self, descriptor: int) -> None:
        if not self.machine.process.collect():
            self._release(descriptor)

    def read_events(self) -> None:
        """Handle what QEMU has reported so far."""
        for event in self.machine.qmp.events():
            self.owner.event(event)

    def reset(self) -> None:
        """Drop protection, let QEMU reset the machine, which has stopped or is about to, and go on."""
        self.listener.reset()
        self._settle()
        qmp = self.machine.qmp
        qmp.execute("set-action", reboot="reset")
        qmp.execute("system_reset")
        for event in qmp.wait_for("RESET"):
            self.owner.event(event)
        qmp.execute("set-action", reboot=self.owner.reboot_action)  # answered after the reset
        self._after_reset()


class PlainRun(QemuRun):
    """A run without traps: QEMU alone stops the CPUs."""

    def _begin(self) -> None:
        self.machine.qmp.execute("cont")

    def _stop(self) -> None:
        self.machine.qmp.execute("stop")

    def _go_on(self) -> None:
        self.machine.qmp.execute("cont")

    def _settle(self) -> None:
        """Do nothing: QEMU has stopped them."""

    def _after_reset(self) -> None:
        if not self.held:
            self._go_on()

    def interrupt(self) -> None:
        """Let QEMU stop the CPUs."""
        self._stop()

    def resumed(self) -> None:
        """Stop again if the host has paused the machine."""
        if self.paused:
            self._stop()
