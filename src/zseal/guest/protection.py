"""The protection of a guest from its host: none, or everything that Secure Execution takes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from zseal.arch.storage import PAGE_SHIFT, Storage
from zseal.crypto.keyexchange import MachineKeys
from zseal.engine.interface import NO_HOOKS, Action, Engine, EngineHooks, Series, Trap
from zseal.engine.qemu.plugin_queues import QueueWatch
from zseal.guest.audit.audit import IoAudit, IoFinding
from zseal.guest.audit.pages import SHARED_STATES, SharedPages
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.events import EventStream, IoViolation, Protected, StartRefused
from zseal.guest.image import BootImage
from zseal.guest.judgement import ProtectedStart
from zseal.guest.observation import PagedOut
from zseal.guest.outcome import Outcome, Result
from zseal.guest.paging.paging import Paging, Running
from zseal.hypervisor.diag308 import Firmware
from zseal.hypervisor.host_side import HostSide
from zseal.hypervisor.vmm import Refusal, Vmm
from zseal.logs import logger
from zseal.ultravisor.pagemap import GUEST_KINDS, UNPROTECTED_CODE, PageMap
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.tables import blank_states

_LOG = logger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallCounts:
    """Ultravisor calls by name: all of them, and those that were refused."""

    made: Mapping[str, int] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Run(Running, Protocol):
    """The run of the guest to protect."""

    @property
    def engine(self) -> Engine:
        """The engine that executes the guest."""

    @property
    def events(self) -> EventStream:
        """The events of the run."""

    def kill(self, result: Result) -> None:
        """End the run with ``result`` immediately, its disks as they are; from any thread."""

    def post(self, step: Callable[[], None]) -> None:
        """Call ``step`` in the thread of the run's loop; from any thread."""


class Protection:
    """No protection: an ordinary guest, whose host sees all its memory. The base class of protection."""

    vmm: Vmm | None = None
    """The hypervisor that protects the guest."""
    paging: Paging | None = None
    """Moves its private pages out and back."""
    audit: IoAudit | None = None
    """Checks the requests to its devices."""
    hooks: EngineHooks = NO_HOOKS
    """The questions of the engine while the guest runs."""

    def __init__(self, run: Run) -> None:
        self.host_memory: Storage | HostSide = run.engine.memory
        """The guest's memory as its host sees it."""
        self._pages = run.engine.memory.size >> PAGE_SHIFT

    def expect(self, image: BootImage) -> None:
        """Take note that the machine will load ``image`` when it starts."""

    def trap(self, trap: Trap) -> Action:
        """Complete the instruction of ``trap``."""
        return Action.EXECUTE

    def series(self, trap: Trap) -> Series | None:
        """Return what calls like ``trap`` have in common."""
        return None

    def reset(self) -> None:
        """End protection: the machine is about to be reset."""

    def restarted(self, cpu: int) -> None:
        """Take note that a new kernel began on ``cpu``, and that the guest's own reset before that was not seen."""

    @property
    def start(self) -> ProtectedStart | None:
        """The progress of the guest's protected start."""
        return None

    @property
    def refused_functions(self) -> Mapping[int, int]:
        """How often the guest asked for functions of DIAGNOSE 0x308 that it does not have, by subcode."""
        return {}

    # --- observations ---

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected."""
        return False

    @property
    def start_seconds(self) -> float:
        """The total time of the attempts to protect the guest."""
        return 0.0

    @property
    def calls(self) -> CallCounts:
        """The ultravisor calls so far."""
        return CallCounts()

    @property
    def page_counts(self) -> Mapping[str, int]:
        """How many pages are in each state; empty while the guest is not protected."""
        return {}

    @property
    def absent(self) -> Sequence[PagedOut]:
        """The pages that are out."""
        return ()

    @property
    def pages_in(self) -> int:
        """How many pages came back so far."""
        return 0

    def page_map(self) -> PageMap:
        """Return the picture of all pages."""
        return PageMap("guest", np.full(self._pages, UNPROTECTED_CODE, np.uint8), GUEST_KINDS)

    def close(self) -> None:
        """Release the resources of the protection; the engine is closed afterwards."""


Protect: TypeAlias = Callable[[Run], Protection]


class SecureExecution(Protection):
    """Protection by a machine with ``keys``; ``policy`` is that of the I/O audit."""

    vmm: Vmm
    paging: Paging

    def __init__(
        self,
        run: Run,
        *,
        keys: MachineKeys,
        settings: Settings | None = None,
        cpus: int = 1,
        policy: IoPolicy = IoPolicy.OFF,
    ) -> None:
        super().__init__(run)
        engine, events = run.engine, run.events
        with contextlib.ExitStack() as undo:
            watch = None
            if policy is not IoPolicy.OFF and engine.capabilities.notifications:
                watch = QueueWatch(engine.memory.size >> PAGE_SHIFT, SHARED_STATES)
                undo.callback(watch.close)
            place = blank_states if watch is None else watch.blank_states
            self.vmm = Vmm(
                engine.memory, cpus, keys, settings=settings, blank_states=place, listener=_Announcer(events)
            )
            undo.callback(self.vmm.close)
            self.host_memory = self.vmm.host_side
            self.paging = Paging(self.vmm.host_side, run)
            self._firmware = Firmware(engine, self.vmm)
            if watch is not None:
                self.audit = self._audit(run, policy, watch)
            self.hooks = EngineHooks(
                notification=None if self.audit is None else self.audit.notified,
                queues=None if watch is None else watch.descriptor,
                first_touch=self.vmm.touch if engine.capabilities.first_touch else None,
            )
            self._owned = undo.pop_all()

    def _audit(self, run: Run, policy: IoPolicy, watch: QueueWatch) -> IoAudit:
        """Return an audit for the notifications of the guest, which ends the guest if ``policy`` requires it."""

        def violation(finding: IoFinding) -> None:
            if policy is IoPolicy.ENFORCE:
                about = finding.violation.about_pages
                before = "could touch what it does not share" if about else "received a request that cannot be checked"
                text = f"the guest was stopped before a device {before}: {finding}"
                run.kill(Result(Outcome.IO_VIOLATION, text))
            _LOG.info("I/O violation: %s", finding)
            run.post(lambda: run.events.add(IoViolation(finding.seconds, str(finding))))

        return IoAudit(
            policy,
            read=run.engine.memory.read,
            pages=SharedPages(self.vmm.host_side),
            protected=lambda: self.vmm.protected,
            clock=run.events.seconds,
            on_violation=violation,
            watch=watch,
        )

    def expect(self, image: BootImage) -> None:
        """Let the ultravisor begin with it."""
        image.announce(self.vmm)

    def trap(self, trap: Trap) -> Action:
        """Let the firmware complete the instruction."""
        return self._firmware.trap(trap)

    def series(self, trap: Trap) -> Series | None:
        """Return what calls like this one have in common."""
        return self._firmware.series(trap)

    def reset(self) -> None:
        """End protection; everything learnt about the guest is then obsolete."""
        if self.audit is not None:
            self.audit.reset()  # first, because it reads rings in pages that are gone afterwards
        self.vmm.destroy()
        self.vmm.refusal = None
        self.paging.forget()
        self._firmware.reset()

    def restarted(self, cpu: int) -> None:
        """Do for protection what the guest's own reset would have done."""
        if self.vmm.protected:
            self.vmm.reset_guest(cpu=cpu, clear=False)

    @property
    def start(self) -> ProtectedStart:
        """The progress of the guest's protected start."""
        vmm = self.vmm
        return ProtectedStart(protected=vmm.protected, refusal=vmm.refusal, complaint=self._firmware.complaint)

    @property
    def refused_functions(self) -> Mapping[int, int]:
        """How often the guest asked for functions of DIAGNOSE 0x308 that it does not have, by subcode."""
        return self._firmware.refused.copy()

    # --- observations ---

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected."""
        return self.vmm.protected

    @property
    def start_seconds(self) -> float:
        """The total time of the attempts to protect the guest."""
        return sum(self.vmm.seconds.values())

    @property
    def calls(self) -> CallCounts:
        """The ultravisor calls so far."""
        state = self.vmm.ultravisor.snapshot()
        return CallCounts(made=state.calls, refused=state.refused)

    @property
    def page_counts(self) -> Mapping[str, int]:
        """How many pages are in each state; empty while the guest is not protected."""
        return self.vmm.page_counts()

    @property
    def absent(self) -> Sequence[PagedOut]:
        """The pages that are out."""
        return self.paging.absent

    @property
    def pages_in(self) -> int:
        """How many pages came back so far."""
        return self.paging.pages_in

    def page_map(self) -> PageMap:
        """Return the picture of all pages."""
        handle = self.vmm.configuration
        return super().page_map() if handle is None else self.vmm.uv.guest_map(handle)

    def close(self) -> None:
        """Forget the guest and release the hypervisor's memory."""
        self._owned.close()


class _Announcer:
    """Reports the results of attempts to protect the guest in ``events``."""

    def __init__(self, events: EventStream) -> None:
        self._events = events

    def protected(self) -> None:
        _LOG.info("the image was verified: the guest runs protected")
        self._events.add(Protected(self._events.seconds()))

    def refused(self, refusal: Refusal) -> None:
        _LOG.info("the ultravisor refused to protect the guest: %s", refusal.message)
        self._events.add(StartRefused(self._events.seconds(), refusal))


def used_devices(protection: Protection) -> Sequence[str]:
    """Return the devices whose requests the audit has seen, by name."""
    return [] if protection.audit is None else [each.device for each in protection.audit.traffic()]
