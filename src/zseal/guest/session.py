"""One run of a guest, in the thread of its event loop: listens to the engine and reports events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from zseal.arch.interruption import ProgramInterruption
from zseal.engine.errors import EngineError
from zseal.engine.interface import Action, Console, Engine, Milestone, Series, Stop, StopKind, Trap
from zseal.errors import ZsealError
from zseal.guest.diagnosis import WITHOUT_IOMMU, ConsoleWatch, Diagnosis, refused_function
from zseal.guest.events import ConsoleOutput, Ended, EventStream, Reached, Reset, Started
from zseal.guest.judgement import judge
from zseal.guest.outcome import Outcome, Result
from zseal.guest.paging.paging import Steps, finish
from zseal.guest.protection import Protect, Protection, used_devices
from zseal.guest.records import DeviceTraffic
from zseal.guest.report import Report
from zseal.guest.run_diagnoses import RunFacts, diagnose_run, diagnose_unused
from zseal.jsonvalue import Json
from zseal.linux import kernel_file
from zseal.logs import logger

_LOG = logger(__name__)

STOPPED = Result(Outcome.STOPPED, "the guest was stopped")


class Session:
    """Listens to ``engine`` (``zseal.engine.interface.EngineListener``) and reports in ``events``.

    ``protect`` makes the protection. ``loop`` belongs to the thread that calls all methods but ``kill`` and ``post``.
    ``result`` and ``report`` are set at the end.
    """

    def __init__(
        self,
        engine: Engine,
        events: EventStream,
        subject: dict[str, Json],
        *,
        loop: asyncio.AbstractEventLoop,
        protect: Protect = Protection,
    ) -> None:
        self.engine = engine
        self.events = events
        self.subject = subject
        """The beginning of the report: image, machine, memory, CPUs."""
        self.protection = protect(self)
        self._loop = loop
        self._report = Report(subject)
        events.follow(self._report.add)
        self._watch = ConsoleWatch()
        self._wanted: Result | None = None
        self._failure: BaseException | None = None
        self._paused = self._linux = False
        self._about_run: Sequence[Diagnosis] = ()
        self.result: Result | None = None
        self.report: dict[str, Json] = {}
        self.at_end: list[Callable[[], None]] = []
        """Called when the guest has stopped, while its memory and pages are still unchanged."""

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """Known failures that the guest's console, its requests and, at the end, its whole run have shown."""
        refused = self.protection.refused_functions.items()
        return (*self._watch.diagnoses, *(refused_function(*item) for item in refused), *self._about_run)

    @property
    def paused(self) -> bool:
        """Whether the guest is paused."""
        return self._paused

    @property
    def traffic(self) -> Callable[[], Sequence[DeviceTraffic]] | None:
        """Returns the traffic of each device queue so far; None without an audit."""
        return None if self.protection.audit is None else self.protection.audit.traffic

    # --- life ---

    def start(self, timeout: float | None = None) -> None:
        """Start the engine; after ``timeout`` s the guest is ended. Raises ZsealError if it does not start."""
        _LOG.info("starting a guest: %s", self.subject)
        self.events.add(Started(self.events.seconds()))
        try:
            self.engine.start(self._loop, self, self.protection.hooks)
        except BaseException:
            self.end(STOPPED)
            if self.result is None:  # it never began, so no other event will ever come from it
                self.stopped(Stop(StopKind.CLOSED))
            raise
        if timeout is not None:
            late = Result(Outcome.TIMEOUT, f"the guest did not end within {timeout:g} s")
            self._loop.call_later(timeout, self.end, late)

    def end(self, result: Result) -> None:
        """End the run with ``result``, in an orderly way; no effect if it has ended."""
        if self.result is None:
            self._wanted = self._wanted or result
            self.engine.end()

    def kill(self, result: Result) -> None:
        """End the run with ``result`` immediately, its disks as they are; from any thread."""
        if self.result is None:
            self._wanted = self._wanted or result
            self.engine.kill()

    def post(self, step: Callable[[], None]) -> None:
        """Call ``step`` in the loop's thread, if the loop still runs; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(step)

    def pause(self) -> None:
        """Stop the CPUs; raises EngineError if the guest has ended."""
        self._check_alive()
        self.engine.pause()
        self._check_alive()
        _LOG.info("paused")
        self._paused = True

    def unpause(self) -> None:
        """Let the CPUs run, even with pages out; it has no effect if the guest has ended."""
        if self.result is None:
            self._paused = False
            self.engine.resume()
            _LOG.info("the guest runs on")

    def resume_steps(self) -> Steps:
        """Bring back the pages that are out and let the CPUs run; raises as ``Paging.page_in`` does."""
        self._check_alive()
        if self.protection.paging is not None:
            yield from self.protection.paging.page_in_all()
        self.unpause()

    def resume(self) -> None:
        """Do all of :meth:`resume_steps`."""
        finish(self.resume_steps())

    def _check_alive(self) -> None:
        if self.result is not None:
            raise EngineError(f"the guest has ended: {self.result.message}")

    # --- EngineListener ---

    def trap(self, trap: Trap) -> Action:
        """Let the firmware complete the instruction."""
        return self.protection.trap(trap)

    def series(self, trap: Trap) -> Series | None:
        """Return what calls like this one have in common."""
        return self.protection.series(trap)

    def milestone(self, milestone: Milestone) -> None:
        """Note the boot's progress."""
        if milestone is Milestone.KERNEL_ENTRY:
            self._linux = self._is_linux()
        _LOG.info("the boot has reached: %s", milestone.value)
        self.events.add(Reached(self.events.seconds(), milestone))

    def _is_linux(self) -> bool:
        try:
            return kernel_file.release(self.engine.memory.read) is not None
        except ProgramInterruption:
            return False  # what looks like Linux would lie outside of storage

    def console(self, console: Console, data: bytes) -> None:
        """Pass on the guest's output."""
        self._watch.feed(data, console.value)
        self.events.add(ConsoleOutput(self.events.seconds(), console, data))

    def reset(self) -> None:
        """End protection before the machine is reset."""
        _LOG.info("the machine is reset")
        self.protection.reset()
        self.events.add(Reset(self.events.seconds()))

    def restarted(self, cpu: int) -> None:
        """Do for protection what the guest's own reset would have done."""
        self.protection.restarted(cpu)

    def failed(self, error: BaseException) -> None:
        """Keep a failure on our side."""
        _LOG.debug("failed: %r", error)
        self._failure = error

    def stopped(self, stop: Stop) -> None:
        """Sum up and close the run."""
        self.result = judge(stop, failure=self._failure, wanted=self._wanted, start=self.protection.start)
        _LOG.debug("the engine has stopped: %s", stop)
        _LOG.info("the guest has ended (%s): %s", self.result.outcome.value, self.result.message)
        try:
            for step in self.at_end:
                step()
        except (ZsealError, ProgramInterruption) as error:
            self.result = Result(Outcome.FAILED, str(error))
        self._watch.finish()
        self._about_run = self._diagnose(self.result.outcome, stop)
        self.report = self._report.finish(
            self.result, self.events.seconds(), self.engine, self.protection, diagnoses=self.diagnoses
        )
        self.events.add(Ended(self.events.seconds(), self.result))

    def _diagnose(self, outcome: Outcome, stop: Stop) -> Sequence[Diagnosis]:
        if self.protection.start is None:
            return ()  # it has no protection
        ever = self._report.protected
        facts = RunFacts(
            outcome=outcome,
            stop=stop,
            ever_protected=ever,
            linux=self._linux,
            kernel_began=self._report.kernel_began,
            calls=self.protection.calls.made,
            known={found.id for found in self.diagnoses},
        )
        found = diagnose_run(facts)
        if not ever or stop.kind is StopKind.LOST or any(each.id == WITHOUT_IOMMU for each in self._watch.diagnoses):
            return found
        idle = [str(device) for device in self.engine.unused_without_iommu()]
        return (*found, *diagnose_unused(idle, used=used_devices(self.protection)))
