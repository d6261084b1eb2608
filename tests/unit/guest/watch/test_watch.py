"""The live view and the record of a run."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from zseal.engine.interface import Milestone, StopKind
from zseal.errors import FormatError
from zseal.guest.events import Reached, Reset
from zseal.guest.observation import Observation, PagedOut, uptime
from zseal.guest.records import DeviceTraffic, Phase
from zseal.guest.watch.live import Watcher, line, view
from zseal.guest.watch.monitor import PHASE_LIMIT, Monitor
from zseal.guest.watch.recorder import RUN_LIMIT, SAMPLE_LIMIT, Recorder, bounded_runs
from zseal.ultravisor.pagemap import GUEST_KINDS, PageMap
from zseal.ultravisor.tables import PageState

if TYPE_CHECKING:
    from tests.unit.guest.conftest import IdleGuest
else:
    IdleGuest = object

SEEN = Observation(
    name="demo",
    state="running",
    phase="kernel",
    seconds=10.0,
    boots=2,
    protected=True,
    memory=1 << 30,
    cpus=4,
    image="/images/debian.img",
    machine="m",
    phases=(Phase("bootloader", 0, 0.25), Phase("kernel", 0.25, 10.0)),
    pages={"private": 262_000, "shared": 143, "pinned": 1, "shared_out": 0, "unprotected": 0},
    calls={"SET_SHARED_ACCESS": 1000, "QUI": 1},
    refused={"SET_SHARED_ACCESS": 2},
    engine={"version": "7.2"},
    devices=(DeviceTraffic("virtio-blk 0.0.0001", 0, 10, 1 << 20, 2 << 20, 17, 3),),
    absent=(PagedOut(Path("/tmp/pages"), 12),),
    console=("[    0.1] Linux version", "[bold]not markup[/bold]"),
    notes=("the device is not shared",),
)
LATER = dataclasses.replace(
    SEEN,
    seconds=12.0,
    calls={"SET_SHARED_ACCESS": 1500, "QUI": 1, "REMOVE_SHARED_ACCESS": 4},
    devices=(DeviceTraffic("virtio-blk 0.0.0001", 0, 20, 3 << 20, 4 << 20, 17, 3),),
)


def test_observation_survives_json() -> None:
    assert Observation.from_json(json.loads(json.dumps(SEEN.to_json()))) == SEEN


@pytest.mark.parametrize("key", sorted(SEEN.to_json()))
def test_observation_with_something_missing_or_wrong_is_refused(key: str) -> None:
    plain = SEEN.to_json()
    del plain[key]
    with pytest.raises(FormatError):
        Observation.from_json(plain)
    if not isinstance(SEEN.to_json()[key], str | bool):
        with pytest.raises(FormatError):
            Observation.from_json({**plain, key: "text"})


def test_rates_are_those_between_two_looks() -> None:
    watcher = Watcher()
    assert watcher.look(SEEN).calls_per_second == 0
    look = watcher.look(LATER)
    assert look.rates == {"SET_SHARED_ACCESS": 250.0, "REMOVE_SHARED_ACCESS": 2.0}
    assert look.bytes_per_second == 2 << 20
    assert watcher.look(LATER).calls_per_second == 0  # no time has passed


def test_line_tells_the_essence() -> None:
    watcher = Watcher()
    watcher.look(SEEN)
    text = line(watcher.look(LATER))
    for part in ("12.0 s", "running", "kernel", "private 262,000", "shared 143", "1,505 calls, 252/s", "2.0 MiB/s"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("width", [50, 80, 160])
def test_view_shows_everything_at_any_width(width: int) -> None:
    watcher = Watcher()
    watcher.look(SEEN)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system="truecolor").print(view(watcher.look(LATER)))
    text = out.getvalue()
    for part in ("demo", "running", "262,000", "SET_SHARED", "252/s", "Linux version", "12 pages wait", "not shared"):
        assert part in text, part
    assert "[bold]not markup[/bold]" in text
    assert "48;2;230;159;0" in text  # the colour of shared pages
    assert "48;2;213;94;0" in text  # a single pinned page among many is seen


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1:01"), (3661.5, "1:01:01")])
def test_uptime(seconds: float, text: str) -> None:
    assert uptime(seconds) == text


# --- phases and samples ---


def test_phases_follow_each_other_without_gaps(guest: IdleGuest) -> None:
    monitor = Monitor(guest.session)
    milestones = (Milestone.IMAGE_ENTRY, Milestone.KERNEL_ENTRY, Milestone.KERNEL_PROPER)
    for number, milestone in enumerate(milestones):
        monitor.follow(Reached(number + 1.0, milestone))
    monitor.follow(Reset(4.5))
    monitor.follow(Reached(5.0, Milestone.IMAGE_ENTRY))
    names = ["starting", "bootloader", "decompressor", "kernel", "reset", "bootloader"]
    phases = monitor.phases()
    assert [phase.name for phase in phases] == names
    assert [phase.start for phase in phases] == [0, 1, 2, 3, 4.5, 5]
    assert [phase.end for phase in phases[:-1]] == [phase.start for phase in phases[1:]]
    assert monitor.boots == 2


def test_phases_of_a_guest_that_reboots_for_ever_are_bounded(guest: IdleGuest) -> None:
    monitor = Monitor(guest.session)
    for number in range(5000):
        monitor.follow(Reset(number + 0.5))
        monitor.follow(Reached(number + 1.0, Milestone.IMAGE_ENTRY))
    assert len(monitor.phases()) == PHASE_LIMIT
    assert monitor.boots == 5000


def test_samples_of_a_long_run_are_bounded_and_span_it(guest: IdleGuest) -> None:
    recorder = guest.do(lambda: Recorder(Monitor(guest.session)))
    for number in range(3 * SAMPLE_LIMIT):
        guest.do(lambda number=number: guest.session.events.add(Reset(float(number))))  # type: ignore[misc]
    guest.do(lambda: guest.engine.write("hello\r\n"))
    guest.do(lambda: guest.engine.stop(StopKind.POWEROFF))
    record = guest.do(recorder.record)
    times = [sample.time for sample in record.samples]
    assert SAMPLE_LIMIT // 2 <= len(times) <= SAMPLE_LIMIT + 1
    assert times == sorted(times)
    assert record.outcome == "The guest powered off."
    assert record.console == "hello"
    assert record.facts["Outcome"] == "poweroff"
    assert record.samples[-1].pages == {"unprotected": 1024}
    assert record.phases[-1].name == "reset"


def test_fragmented_map_is_reduced_and_keeps_its_size() -> None:
    states = np.full(100_001, PageState.PRIVATE, np.uint8)
    states[::2] = PageState.UNUSED
    states[50_000] = PageState.SHARED
    runs = bounded_runs(PageMap("", states, GUEST_KINDS))
    assert len(runs) <= RUN_LIMIT
    assert sum(count for _, count in runs) == 100_001
    assert [state for state, _ in runs] == ["private", "shared", "private"]  # what tells most, a single page included
    few = bounded_runs(PageMap("", states[:10], GUEST_KINDS))
    assert len(few) == 10
