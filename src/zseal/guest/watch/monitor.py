"""Observes a running guest, and keeps the few data that observations need.

Nothing is counted or copied without a viewer: an observation is made on demand, from what the ultravisor and the engine
know anyway. It contains only counts and states; only the console's text comes from the guest.
"""

from __future__ import annotations

from zseal.arch.storage import PAGE_SHIFT
from zseal.engine.interface import Milestone
from zseal.guest.events import ConsoleOutput, Ended, Event, Protected, Reached, Reset, Started, StartRefused
from zseal.guest.observation import Observation
from zseal.guest.records import Phase
from zseal.guest.session import Session
from zseal.guest.watch.console_tail import ConsoleTail
from zseal.ultravisor.pagemap import PageMap

PHASE_LIMIT = 600
"""The most phases to keep: those of more than a hundred boots. The first ones stay."""

_AFTER = {
    Milestone.IMAGE_ENTRY: "bootloader",
    Milestone.KERNEL_ENTRY: "decompressor",
    Milestone.KERNEL_PROPER: "kernel",
}


class Monitor:
    """Follows the events of ``session`` from its start; for the thread of its loop."""

    def __init__(self, session: Session, name: str = "") -> None:
        self.name = name
        self.session = session
        self.console = ConsoleTail()
        self.boots = 0
        self._phases: list[Phase] = []
        self._phase = "starting"
        self._since = 0.0
        self._unpacking = 0.0
        session.events.follow(self.follow)

    def follow(self, event: Event) -> None:
        """Take note of ``event``."""
        if isinstance(event, ConsoleOutput):
            self.console.feed(event.data)
        elif isinstance(event, Started):
            self._enter("running" if self.session.protection.start is None else "starting", event.seconds)
        elif isinstance(event, Reached):
            self.boots += event.milestone is Milestone.IMAGE_ENTRY
            self._enter(_AFTER[event.milestone], event.seconds)
        elif isinstance(event, Protected | StartRefused):
            self._unpacked(event)
        elif isinstance(event, Reset):
            self._enter("reset", event.seconds)
        elif isinstance(event, Ended):
            self._enter("ended", event.seconds)

    def _unpacked(self, event: Protected | StartRefused) -> None:
        """The hypervisor measured how long protecting the guest took: that is a phase between two events."""
        spent = self.session.protection.start_seconds
        self._enter("unpack", max(self._since, event.seconds - (spent - self._unpacking)))
        self._unpacking = spent
        self._enter("protected bootloader" if isinstance(event, Protected) else "refused", event.seconds)

    def _enter(self, phase: str, seconds: float) -> None:
        if phase == self._phase:
            return
        if seconds > self._since and len(self._phases) < PHASE_LIMIT:
            self._phases.append(Phase(self._phase, self._since, seconds))
        self._phase, self._since = phase, seconds

    @property
    def phase(self) -> str:
        """The phase that the guest is in."""
        return self._phase

    def phases(self) -> tuple[Phase, ...]:
        """Return all phases so far; the last one ends now."""
        if self._phase == "ended" or len(self._phases) >= PHASE_LIMIT:
            return tuple(self._phases)
        return (*self._phases, Phase(self._phase, self._since, self.session.events.seconds()))

    @property
    def state(self) -> str:
        """The state of the guest: running, paused, paged-out or ended."""
        if self.session.result is not None:
            return "ended"
        if self.session.protection.absent:
            return "paged-out"
        return "paused" if self.session.paused else "running"

    def observe(self, *, lines: int = 10) -> Observation:
        """Return an observation, with the last ``lines`` lines of the console."""
        session, subject = self.session, self.session.subject
        memory, cpus = subject.get("memory", 0), subject.get("cpus", 0)
        calls = session.protection.calls
        return Observation(
            name=self.name,
            state=self.state,
            phase=self.phase,
            seconds=round(session.events.seconds(), 6),
            boots=self.boots,
            protected=session.protection.protected,
            memory=memory if isinstance(memory, int) else 0,
            cpus=cpus if isinstance(cpus, int) else 0,
            image=str(subject.get("image", subject.get("kernel", ""))),
            machine=str(subject.get("machine", "")),
            phases=self.phases(),
            pages=self.page_counts(),
            calls=calls.made,
            refused=calls.refused,
            engine=session.engine.statistics(),
            devices=tuple(session.traffic()) if session.traffic is not None else (),
            absent=tuple(session.protection.absent),
            console=tuple(self.console.lines(lines)),
            notes=tuple(str(each) for each in session.diagnoses),
        )

    def page_counts(self) -> dict[str, int]:
        """Return how many pages are in each state; all are unprotected before the guest is protected."""
        found = self.session.protection.page_counts
        pages = self.session.engine.memory.size >> PAGE_SHIFT
        return {**found, "unprotected": 0} if found else {"unprotected": pages}

    def page_map(self) -> PageMap:
        """Return the picture of all pages."""
        return self.session.protection.page_map()
