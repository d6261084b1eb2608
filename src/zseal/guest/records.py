"""A run over time: phases, page states, calls and device traffic, for the live view and the HTML report.

A record contains only counts and states; only the console's text in it comes from the guest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a run; times are seconds since its start."""

    name: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Sample:
    """The state at one moment.

    ``pages`` counts pages by state and ``calls`` the calls made since the start, by name. ``runs`` is the map of all
    pages as (state, number of pages) in address order.
    """

    time: float
    pages: Mapping[str, int]
    calls: Mapping[str, int]
    runs: Sequence[tuple[str, int]] = ()


@dataclasses.dataclass(frozen=True)
class DeviceTraffic:
    """The traffic of one queue of a device; ``shared_pages`` are the distinct shared pages that it used."""

    device: str
    queue: int
    requests: int
    bytes_to_device: int
    bytes_from_device: int
    shared_pages: int
    violations: int


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One finished run."""

    title: str
    outcome: str
    facts: Mapping[str, str]
    phases: Sequence[Phase]
    samples: Sequence[Sample]
    devices: Sequence[DeviceTraffic] = ()
    console: str = ""
    notes: Sequence[str] = ()
    """Remarks of the run's report, such as a fault of a device."""

    @property
    def duration(self) -> float:
        """Seconds from the start to the last event."""
        ends = [phase.end for phase in self.phases] + [sample.time for sample in self.samples]
        return max(ends, default=0.0)
