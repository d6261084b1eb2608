"""Collects the data of an HTML report: phases, samples of page states and calls, device traffic, console."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from zseal.arch.storage import MIB
from zseal.guest.events import Event, Protected, Reached, Reset, Started, StartRefused
from zseal.guest.records import RunRecord, Sample
from zseal.guest.watch.monitor import Monitor
from zseal.ultravisor.pagemap import PageMap

SAMPLE_LIMIT = 240
"""The most samples to keep; if there are more, every second one goes, and from then on half as many are taken."""
RUN_LIMIT = 3072
"""Runs of pages in a sample's map: as many as a picture has cells. A map with more is reduced to the cells."""
_FIRST_INTERVAL = 0.5


class Recorder:
    """Records the run that ``monitor`` follows; for the thread of its loop."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._samples: list[Sample] = []
        self._interval = _FIRST_INTERVAL
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        monitor.session.events.follow(self._follow)
        monitor.session.at_end.append(self._at_end)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take samples every half second from now on, less often the longer the run takes."""
        self._loop = loop
        self._arm()

    def _arm(self) -> None:
        if self._loop is not None and self._monitor.session.result is None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def _tick(self) -> None:
        self._sample()
        self._arm()

    def _follow(self, event: Event) -> None:
        if isinstance(event, Started | Reached | Protected | StartRefused | Reset):
            self._sample()

    def _at_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sample()

    def _sample(self) -> None:
        session = self._monitor.session
        pages = self._monitor.page_map()
        calls = session.protection.calls.made
        self._samples.append(Sample(session.events.seconds(), pages.counts(), calls, bounded_runs(pages)))
        if len(self._samples) > SAMPLE_LIMIT:
            del self._samples[1:-1:2]
            self._interval *= 2

    def record(self) -> RunRecord:
        """Return the record of the run so far."""
        session, subject = self._monitor.session, self._monitor.session.subject
        result = session.result
        memory = subject.get("memory")
        facts = {
            "Image": subject.get("image", subject.get("kernel")),
            "Machine": subject.get("machine"),
            "Memory": f"{memory // MIB:,} MiB" if isinstance(memory, int) else None,
            "CPUs": subject.get("cpus"),
            "Boots": self._monitor.boots,
            "Outcome": result.outcome.value if result is not None else None,
            "Engine": " ".join(
                filter(None, [session.engine.name, str(session.engine.statistics().get("version", ""))])
            ),
        }
        image = Path(str(facts["Image"])).name
        return RunRecord(
            title=f"{image} on machine {facts['Machine']}" if facts["Machine"] else image,
            outcome=f"{result.message[:1].upper()}{result.message[1:]}." if result is not None else "The guest runs.",
            facts={name: str(value) for name, value in facts.items() if value is not None},
            phases=self._monitor.phases(),
            samples=list(self._samples),
            devices=list(session.traffic()) if session.traffic is not None else [],
            console=self._monitor.console.text(),
            notes=[str(each) for each in session.diagnoses],
        )


def bounded_runs(pages: PageMap) -> list[tuple[str, int]]:
    """Return the map's runs as (state, pages), or those of its cells if there are too many."""
    if np.count_nonzero(np.diff(pages.states)) < RUN_LIMIT:
        return [(name, count) for _, count, name in pages.runs()]
    cells, bucket = pages.cells(RUN_LIMIT)
    runs = [(name, count * bucket) for _, count, name in PageMap(pages.title, cells, pages.kinds).runs()]
    surplus = cells.size * bucket - pages.states.size  # the last cell has fewer pages
    name, count = runs[-1]
    return [*runs[:-1], (name, count - surplus)]
