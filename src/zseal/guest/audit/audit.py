"""The I/O audit of one guest: all its virtio devices, their traffic, and the reaction to violations.

An engine calls :meth:`IoAudit.notified` whenever a CPU is about to notify a device; docs/io-audit.md has the rules and
the keys of the report.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from zseal.engine.errors import EngineError
from zseal.engine.qemu.plugin_queues import QUEUES, QueueWatch, RecordKind
from zseal.engine.virtio import FindQueues, Notification, VirtioQueue
from zseal.formats.virtqueue import Read
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.audit.queue import Pages, QueueAudit, TouchedPages, Violation
from zseal.guest.records import DeviceTraffic
from zseal.jsonvalue import Json

VIOLATION_LIMIT = 64
"""The most distinct violations to report and keep; all are counted."""

_Key = tuple[str, int]

_UNBOUNCED = "give the device iommu_platform=on, so that the guest's kernel puts its requests into shared pages"
_BOUNCED = "the guest's driver must put what it gives to devices into pages that it shares"
_PACKED = "start the device without packed=on, or choose the I/O policy off"


@dataclasses.dataclass(frozen=True)
class IoFinding:
    """A violation, the time when it was found (seconds since the start), and what to do about it."""

    seconds: float
    violation: Violation
    advice: str

    def __str__(self) -> str:
        return f"{self.violation}; {self.advice}"


class IoAudit:
    """Audits the devices of a guest whose storage ``read`` reads and whose page states ``pages`` knows.

    ``protected`` returns whether the guest runs protected; otherwise there is nothing to check. ``clock`` returns the
    seconds since the start. ``on_violation`` is called with each finding, at most VIOLATION_LIMIT times, in the thread
    of the notification; with ``IoPolicy.ENFORCE`` it must end the guest, whose CPU then never gets past its
    notification. ``watch`` gets the queues each time, for an engine that lets plain notifications through itself.
    """

    def __init__(
        self,
        policy: IoPolicy,
        *,
        read: Read,
        pages: Pages,
        protected: Callable[[], bool],
        clock: Callable[[], float],
        on_violation: Callable[[IoFinding], None],
        watch: QueueWatch | None = None,
    ) -> None:
        self.policy = policy
        self._read = read
        self._pages = pages
        self._protected = protected
        self._clock = clock
        self._on_violation = on_violation
        self._watch = watch
        self._lock = threading.Lock()
        self._queues: dict[_Key, QueueAudit] = {}  # every queue that ever was
        self._current: dict[_Key, VirtioQueue] = {}
        self._setups: int | None = None
        self._findings: list[IoFinding] = []
        self._notifications = 0
        self._unchecked = 0

    def reset(self) -> None:
        """Forget all queues: the machine is about to be reset."""
        with self._lock:
            self._catch_up()
            if self._watch is not None:
                self._watch.revoke()
            self._current.clear()
            self._setups = None

    def notified(self, notification: Notification, find: FindQueues) -> bool:
        """Check all queues before a device is notified; returns whether the CPU may go on (``NotifyHook``)."""
        if not self._protected():
            return True
        with self._lock:
            self._notifications += 1
            self._take_records()
            if notification.setups != self._setups and not self._discover(find, anew=True):
                self._unchecked += 1
                return True
            self._setups = notification.setups
            found = [
                violation
                for key, queue in self._current.items()
                if not queue.packed
                for violation in self._queues[key].check()
            ]
            if found:
                # A driver on another CPU may have released the queue since it was last checked.
                self._discover(find, anew=False)
                found = [each for each in found if self._still(each)]
            packed = [self._queues[key].packed() for key, queue in self._current.items() if queue.packed]
            findings = [self._finding(violation) for violation in found + packed]
            told = {finding.violation for finding in self._findings}
            new = [finding for finding in findings if finding.violation not in told]
            new = new[: VIOLATION_LIMIT - len(self._findings)]
            self._findings += new
            self._give(notification.setups)
        for finding in new:
            self._on_violation(finding)
        return not findings or self.policy is not IoPolicy.ENFORCE

    # --- finding the queues ---

    def _discover(self, find: FindQueues, *, anew: bool) -> bool:
        """Find out which queues there are; ``anew`` if any of them may have been set up since the last time."""
        try:
            queues = find()
        except EngineError:
            return False  # the machine is about to stop, and cannot be asked before this CPU has
        self._current = {(queue.device.path, queue.number): queue for queue in queues}
        for key, queue in self._current.items():
            known = self._queues.get(key)
            if known is None:
                self._queues[key] = QueueAudit(
                    str(queue.device),
                    queue.number,
                    queue.layout,
                    self._read,
                    self._pages,
                    seen=queue.taken,
                    used=queue.used,
                    pages_used=self._pages_used(len(self._queues)),
                )
            elif known.layout != queue.layout or (anew and not known.follows(taken=queue.taken, used=queue.used)):
                known.catch_up()
                known.move(queue.layout, seen=queue.taken, used=queue.used)
        return True

    def _still(self, violation: Violation) -> bool:
        for key, queue in self._current.items():
            if str(queue.device) == violation.device and queue.number == violation.queue:
                return self._queues[key].persists(violation)
        return False

    def _finding(self, violation: Violation) -> IoFinding:
        bounced = True
        for queue in self._current.values():
            if str(queue.device) == violation.device:
                bounced = queue.bounced
        advice = _PACKED if "packed" in violation.reason else _BOUNCED if bounced else _UNBOUNCED
        return IoFinding(round(self._clock(), 6), violation, advice)

    # --- checks by the engine itself ---

    def _pages_used(self, position: int) -> TouchedPages | None:
        return TouchedPages(self._watch.used(position)) if self._watch is not None and position < QUEUES else None

    def _give(self, setups: int) -> None:
        """Let the engine check all queues, unless there is one that cannot be checked."""
        if self._watch is not None and not any(queue.packed for queue in self._current.values()):
            positions = [queue.position() if key in self._current else None for key, queue in self._queues.items()]
            self._watch.publish(setups, positions)

    def _take_records(self) -> None:
        """Count what the engine itself has checked since the last time."""
        if self._watch is None:
            return
        queues = list(self._queues.values())
        for record in self._watch.drain():
            if record.kind == RecordKind.FINISHED:
                queues[record.queue].note_finished(record.head, record.amount)
            else:
                queues[record.queue].note_request(
                    record.head, descriptors=record.amount, readable=record.readable, writable=record.writable
                )

    # --- the report ---

    @property
    def findings(self) -> list[IoFinding]:
        """The distinct violations that were reported."""
        return list(self._findings)

    @property
    def notifications(self) -> int:
        """How often a CPU of the protected guest notified a device."""
        return self._notifications + self._not_asked

    @property
    def _not_asked(self) -> int:
        return 0 if self._watch is None else self._watch.notifications

    def traffic(self) -> list[DeviceTraffic]:
        """Return the traffic of each queue so far."""
        with self._lock:
            self._catch_up()
            return [
                DeviceTraffic(
                    device=queue.device,
                    queue=queue.number,
                    requests=queue.activity.requests,
                    bytes_to_device=queue.activity.bytes_to_device,
                    bytes_from_device=queue.activity.bytes_from_device,
                    shared_pages=len(queue.pages_used),
                    violations=queue.activity.violations,
                )
                for queue in self._queues.values()
            ]

    def _catch_up(self) -> None:
        self._take_records()
        for key, queue in self._current.items():
            if not queue.packed:
                self._queues[key].catch_up()

    def report(self) -> dict[str, Json]:
        """Return the results as JSON values; docs/io-audit.md has the keys."""
        with self._lock:
            self._catch_up()
            return {
                "policy": self.policy.value,
                "notifications": self.notifications,
                "notifications_without_stop": self._not_asked,
                "unchecked_notifications": self._unchecked,
                "queues": [
                    {
                        "device": queue.device,
                        "queue": queue.number,
                        "size": queue.layout.size,
                        **dataclasses.asdict(queue.activity),
                        "shared_pages": len(queue.pages_used),
                    }
                    for queue in self._queues.values()
                ],
                "violations": [
                    {
                        "seconds": finding.seconds,
                        "device": finding.violation.device,
                        "queue": finding.violation.queue,
                        "part": finding.violation.part,
                        "address": f"{finding.violation.address:#x}",
                        "reason": finding.violation.reason,
                        "advice": finding.advice,
                    }
                    for finding in self._findings
                ],
            }
