"""The report of a run: what happened when, which calls were made, who owns which pages.

docs/run-results.md describes the keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from zseal.engine.interface import Engine, Milestone
from zseal.guest.diagnosis import Diagnosis
from zseal.guest.events import Event, Protected, Reached, Reset, Started, StartRefused
from zseal.guest.outcome import Result
from zseal.guest.protection import Protection
from zseal.hypervisor.vmm import Refusal, Vmm
from zseal.jsonvalue import Json
from zseal.version import __version__

FORMAT = 1


def _refusal(refusal: Refusal | None) -> Json:
    if refusal is None:
        return None
    return {
        "step": refusal.step.name.lower(),
        "command": refusal.command.name,
        "rc": refusal.rc,
        "rrc": refusal.rrc,
        "message": refusal.message,
    }


def _result(result: Result) -> Json:
    psw = None if result.psw is None else f"{result.psw.mask:#018x} {result.psw.address:#018x}"
    return {
        "outcome": result.outcome.value,
        "exit_code": result.exit_code,
        "message": result.message,
        "cpu": result.cpu,
        "psw": psw,
        "refusal": _refusal(result.refusal),
    }


class Report:
    """Collects events of one run; ``finish`` returns the report once it is over."""

    def __init__(self, subject: dict[str, Json]) -> None:
        self._subject = subject
        self._timeline: list[Json] = []
        self._boots = 0
        self.protected = False
        """Whether the guest ever ran protected."""
        self.kernel_began = False
        """Whether a kernel ever left its decompressor."""
        self._seconds: dict[str, float] = {}

    def add(self, event: Event) -> None:
        """Take note of ``event``."""
        name = None
        if isinstance(event, Started):
            name = "started"
        elif isinstance(event, Reached):
            name = event.milestone.value
            self._boots += event.milestone is Milestone.IMAGE_ENTRY
            self.kernel_began |= event.milestone is Milestone.KERNEL_PROPER
        elif isinstance(event, Protected):
            name = "protected"
            self.protected = True
        elif isinstance(event, StartRefused):
            name = "refused"
        elif isinstance(event, Reset):
            name = "reset"
        if name is not None:
            self._seconds.setdefault(name, event.seconds)
            if len(self._timeline) < 1000:
                self._timeline.append({"event": name, "seconds": round(event.seconds, 6)})

    def finish(
        self,
        result: Result,
        seconds: float,
        engine: Engine,
        protection: Protection,
        *,
        diagnoses: Sequence[Diagnosis] = (),
    ) -> dict[str, Json]:
        """Return the report; call it while the guest's pages still exist."""
        vmm, audit = protection.vmm, protection.audit
        return {
            "format": FORMAT,
            "zseal": __version__,
            **self._subject,
            "engine": {"name": engine.name, **engine.statistics()},
            "result": _result(result),
            "diagnoses": [dataclasses.asdict(diagnosis) for diagnosis in diagnoses],
            "protected": self.protected,
            "boots": self._boots,
            "seconds": {
                "total": round(seconds, 6),
                **{name.replace("-", "_"): round(value, 6) for name, value in self._seconds.items()},
            },
            "timeline": self._timeline,
            "ultravisor": None if vmm is None else ultravisor_part(vmm),
            "io": None if audit is None else audit.report(),
        }


def ultravisor_part(vmm: Vmm) -> Json:
    """Return the ultravisor's part: calls by command, pages by state, seconds by step."""
    state = vmm.ultravisor.snapshot()
    return {
        "calls": dict(state.calls),
        "refused_calls": dict(state.refused),
        "pages": dict(vmm.page_counts()),
        "seconds": {name.replace("-", "_"): round(value, 6) for name, value in vmm.seconds.items()},
    }
