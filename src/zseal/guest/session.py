"""One run of a guest, in the thread of its event loop: engine, firmware and hypervisor put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from zseal.arch.interruption import ProgramInterruption
from zseal.engine.errors import EngineError
from zseal.engine.interface import (
    NO_HOOKS,
    Action,
    Console,
    Engine,
    EngineHooks,
    Milestone,
    Series,
    Stop,
    StopKind,
    Trap,
    TrapKind,
)
from zseal.engine.qemu.plugin_queues import QueueWatch
from zseal.errors import ZsealError
from zseal.guest.audit.audit import Finding, IoAudit
from zseal.guest.audit.pages import SharedPages
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.diagnosis import (
    WITHOUT_IOMMU,
    ConsoleWatch,
    Diagnosis,
    explain_end,
    kernel_unaware,
    never_protected,
    refused_function,
    unused_device,
)
from zseal.guest.events import (
    ConsoleOutput,
    Ended,
    Event,
    EventStream,
    IoViolation,
    Outcome,
    Protected,
    Reached,
    Reset,
    Result,
    Started,
    StartRefused,
)
from zseal.guest.paging.paging import Paging, Steps, finish
from zseal.guest.records import DeviceTraffic
from zseal.guest.report import Report
from zseal.hypervisor.diag308 import Firmware
from zseal.hypervisor.vmm import Vmm
from zseal.jsonvalue import Json

_FIRMWARE_WAIT_CODES = range(0x4500, 0x4700)
"""Disabled-wait addresses of the bootloaders of Secure Execution images (stage3b 0x45.., stage3a 0x46..)."""

_OUTCOMES = {
    StopKind.POWEROFF: (Outcome.POWEROFF, "the guest powered off"),
    StopKind.WATCHDOG: (Outcome.WATCHDOG, "the guest's watchdog expired"),
    StopKind.DISK: (Outcome.FAILED, "the guest lost a disk"),
    StopKind.CLOSED: (Outcome.STOPPED, "the guest was stopped"),
    StopKind.LOST: (Outcome.LOST, "the guest is lost"),
}


class Session:
    """Listens to ``engine`` (``zseal.engine.interface.EngineListener``) and says what happens in ``events``.

    ``vmm`` None is an ordinary guest. All methods are for the thread of the loop; ``result`` is set at the end.
    """

    def __init__(self, engine: Engine, vmm: Vmm | None, events: EventStream, subject: dict[str, Json]) -> None:
        self._engine = engine
        self._vmm = vmm
        self._events = events
        self.subject = subject
        """What runs: image, machine, memory, CPUs, as the report begins."""
        self._report = Report(subject)
        self._watch = ConsoleWatch()
        self._firmware = Firmware(engine, vmm) if vmm is not None else None
        self._wanted: Result | None = None
        self._failure: BaseException | None = None
        self.result: Result | None = None
        self.report: dict[str, Json] = {}
        self.at_end: list[Callable[[], None]] = []
        """Called when the guest has stopped, while its memory and pages are still what they were."""
        self.io: IoAudit | None = None
        """The audit of what the guest's devices are told to do; None if nobody looks."""
        self.paging = Paging(vmm.host_side, self) if vmm is not None else None
        self._paused = False
        self._ever_protected = False
        self._about_run: list[Diagnosis] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def engine(self) -> Engine:
        """What executes the guest."""
        return self._engine

    @property
    def vmm(self) -> Vmm | None:
        """What protects it; None for an ordinary guest."""
        return self._vmm

    @property
    def events(self) -> EventStream:
        """What happens to it."""
        return self._events

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """Known failures that the guest's console, its requests, and at the end its whole run, told of so far."""
        refused = {} if self._firmware is None else self._firmware.refused
        return (*self._watch.diagnoses, *(refused_function(*item) for item in refused.copy().items()), *self._about_run)

    def _judge_run(self, outcome: Outcome, stop: Stop) -> list[Diagnosis]:
        """Return what is to be said about the whole run of a guest that ended with ``outcome``, after ``stop``."""
        if self._vmm is None or outcome not in (Outcome.POWEROFF, Outcome.PANIC, Outcome.IO_VIOLATION):
            return []  # it may not have come far
        if not self._ever_protected:
            return [never_protected()]
        known = {found.id for found in self.diagnoses}
        end = None if stop.interrupted is None else explain_end(stop.interrupted)
        if end is not None and end.id not in known:
            return [end]
        called = self._vmm.ultravisor.snapshot().calls
        # The boot code of every Linux asks what the ultravisor can; one that knows what for then shares its buffers.
        unaware = called.get("QUI") and not called.get("SET_SHARED_ACCESS") and "missed-call" not in known
        return [kernel_unaware()] if unaware else []

    def _unused_devices(self, stop: Stop) -> list[Diagnosis]:
        """Tell of devices without iommu_platform, where the guest's kernel did not: with ``quiet`` for example."""
        told = any(found.id == WITHOUT_IOMMU for found in self._watch.diagnoses)
        if told or not self._ever_protected or stop.kind is StopKind.LOST:
            return []
        used = set() if self.io is None else {each.device for each in self.io.traffic()}  # and given up since, maybe
        return [unused_device(name) for name in map(str, self._engine.unused_without_iommu()) if name not in used]

    @property
    def paused(self) -> bool:
        """Whether the CPUs were told to stand still."""
        return self._paused

    @property
    def traffic(self) -> Callable[[], Sequence[DeviceTraffic]] | None:
        """Tells what each device queue moved so far; None if nobody looks."""
        return None if self.io is None else self.io.traffic

    def audit_io(self, policy: IoPolicy, watch: QueueWatch | None = None) -> IoAudit:
        """Return an audit for the notifications of this protected guest, which ends it where ``policy`` says so.

        ``watch`` is for an engine that lets plain notifications through itself.
        """
        if self._vmm is None:
            raise EngineError("the guest is not protected, so there is nothing to audit")
        vmm = self._vmm
        self.io = IoAudit(
            policy,
            read=self._engine.memory.read,
            pages=SharedPages(vmm.host_side),
            protected=lambda: vmm.protected,
            clock=self._events.seconds,
            on_violation=self._io_violation,
            watch=watch,
        )
        return self.io

    def _io_violation(self, finding: Finding) -> None:
        """End the guest in front of its request, or just tell; in the thread that found it."""
        if self.io is not None and self.io.policy is IoPolicy.ENFORCE:
            pages = finding.violation.about_pages
            before = "could touch what it does not share" if pages else "was told what cannot be checked"
            text = f"the guest was stopped before a device {before}: {finding}"
            self.kill(Result(Outcome.IO_VIOLATION, text))
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._add, IoViolation(finding.seconds, str(finding)))

    def start(self, loop: asyncio.AbstractEventLoop, timeout: float | None, hooks: EngineHooks = NO_HOOKS) -> None:
        """Start the engine; after ``timeout`` s the guest is ended. Raises ZsealError if it does not start."""
        self._loop = loop
        self._add(Started(self._events.seconds()))
        try:
            self._engine.start(loop, self, hooks)
        except BaseException:
            self._engine.end()
            if self.result is None:  # it never began, so nothing else will ever be heard of it
                self.stopped(Stop(StopKind.CLOSED))
            raise
        if timeout is not None:
            late = Result(Outcome.TIMEOUT, f"the guest did not end within {timeout:g} s")
            loop.call_later(timeout, self.end, late)

    def end(self, result: Result) -> None:
        """End the run with ``result``, in an orderly way; no effect where it has ended."""
        if self.result is None:
            self._wanted = self._wanted or result
            self._engine.end()

    def kill(self, result: Result) -> None:
        """End the run with ``result`` at once, its disks as they are."""
        if self.result is None:
            self._wanted = self._wanted or result
            self._engine.kill()

    def pause(self) -> None:
        """Stop the CPUs; raises EngineError if the guest has ended."""
        self._check_alive()
        self._engine.pause()
        self._check_alive()
        self._paused = True

    def unpause(self) -> None:
        """Let the CPUs run, whatever is out; no effect where the guest has ended."""
        if self.result is None:
            self._paused = False
            self._engine.resume()

    def resume_steps(self) -> Steps:
        """Bring back the pages that are out and let the CPUs run; raises as ``Paging.page_in`` does."""
        self._check_alive()
        if self.paging is not None:
            yield from self.paging.page_in_all()
        self.unpause()

    def resume(self) -> None:
        """Do all of :meth:`resume_steps`."""
        finish(self.resume_steps())

    def _check_alive(self) -> None:
        if self.result is not None:
            raise EngineError(f"the guest has ended: {self.result.message}")

    def _add(self, event: Event) -> None:
        self._report.add(event)
        self._events.add(event)

    # --- EngineListener ---

    def trap(self, trap: Trap) -> Action:
        """Let the firmware complete the instruction."""
        if self._firmware is None or self._vmm is None:
            return Action.EXECUTE
        if trap.kind is TrapKind.UVC:
            return self._firmware.trap(trap)
        before, refusal = self._vmm.protected, self._vmm.refusal
        answer = self._firmware.trap(trap)
        if self._vmm.protected != before:
            self._ever_protected = True
            self._add(Protected(self._events.seconds()))
        if self._vmm.refusal is not None and self._vmm.refusal is not refusal:
            self._add(StartRefused(self._events.seconds(), self._vmm.refusal))
        return answer

    def series(self, trap: Trap) -> Series | None:
        """Tell what calls like this one have in common."""
        return None if self._firmware is None else self._firmware.series(trap)

    def milestone(self, milestone: Milestone) -> None:
        """Note where the boot is."""
        self._add(Reached(self._events.seconds(), milestone))

    def console(self, console: Console, data: bytes) -> None:
        """Pass on what the guest wrote."""
        self._watch.feed(data, console.value)
        self._events.add(ConsoleOutput(self._events.seconds(), console, data))

    def reset(self) -> None:
        """End protection before the machine is reset."""
        if self.io is not None:
            self.io.reset()  # first, for it reads rings in pages that are gone afterwards
        if self._vmm is not None and self._firmware is not None:
            self._vmm.destroy()
            if self.paging is not None:
                self.paging.forget()
            self._vmm.refusal = None
            self._firmware.reset()
        self._add(Reset(self._events.seconds()))

    def restarted(self, cpu: int) -> None:
        """Do for protection what the guest's own reset would have done."""
        if self._vmm is not None and self._vmm.protected:
            self._vmm.reset_guest(cpu=cpu, clear=False)

    def failed(self, error: BaseException) -> None:
        """Keep what went wrong on our side."""
        self._failure = error

    def stopped(self, stop: Stop) -> None:
        """Sum up and close the run."""
        self.result = self._judge(stop)
        try:
            for step in self.at_end:
                step()
        except (ZsealError, ProgramInterruption) as error:
            self.result = Result(Outcome.FAILED, str(error))
        self._watch.finish()
        self._about_run = [*self._judge_run(self.result.outcome, stop), *self._unused_devices(stop)]
        self.report = self._report.finish(
            self.result, self._events.seconds(), self._engine, self._vmm, diagnoses=self.diagnoses
        )
        self.report["io"] = None if self.io is None else self.io.report()
        self._events.add(Ended(self._events.seconds(), self.result))

    def _judge(self, stop: Stop) -> Result:
        if self._failure is not None:
            error = self._failure
            text = str(error) if isinstance(error, ZsealError) else f"{type(error).__name__}: {error}"
            return Result(Outcome.FAILED, f"zseal could not go on with the guest: {text}")
        if self._wanted is not None:
            return self._wanted
        if stop.kind is StopKind.PANIC:
            return self._panic(stop)
        outcome, message = _OUTCOMES[stop.kind]
        return Result(outcome, f"{message}: {stop.detail}" if stop.detail else message, stop.cpu, stop.psw)

    def _panic(self, stop: Stop) -> Result:
        refusal = self._vmm.refusal if self._vmm is not None else None
        place = f"disabled wait at {stop.psw.address:#x}" if stop.psw is not None else stop.detail or "no reason given"
        if self._vmm is not None and not self._vmm.protected:
            if refusal is not None:
                return Result(Outcome.REFUSED, refusal.message, stop.cpu, stop.psw, refusal)
            if stop.psw is not None and stop.psw.address in _FIRMWARE_WAIT_CODES:
                reason = self._firmware.complaint if self._firmware is not None else ""
                text = f"the image's bootloader gave up before it could be opened ({place})"
                return Result(Outcome.REFUSED, f"{text}: {reason}" if reason else text, stop.cpu, stop.psw)
        return Result(Outcome.PANIC, f"the guest stopped for good: {place}", stop.cpu, stop.psw)
