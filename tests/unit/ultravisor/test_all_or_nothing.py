"""A call is done completely or not at all: refused, or out of memory at whatever point, it changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.unit.ultravisor.frozen import frozen
from tests.unit.ultravisor.invariants import tables_agree
from tests.unit.ultravisor.scenes import BLOCK, RUNS, SCENES, SMALL, RunScene, Scene, create_configuration, guest_of
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.model.machine import ModelMachine
from zseal.ultravisor import PageState
from zseal.ultravisor.refusal import OutOfMemoryError
from zseal.ultravisor.tables import States, blank_states
from zseal.ultravisor.undo import Undo

CONTENT = 2 * MIB  # all that hosts and guests of these tests use
TOP = 9 * MIB >> PAGE_SHIFT


class Shortage:
    """While it lasts, the ``turn``-th call of a function, in zseal's code or from it, ends in MemoryError."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self.struck = False

    def __enter__(self) -> Shortage:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call") and str(frame.f_globals.get("__name__")).startswith("zseal."):
            self._turn -= 1
            if not self._turn:
                sys.setprofile(None)
                self.struck = True
                raise MemoryError


@pytest.fixture
def machine(machine_keys: MachineKeys) -> Iterator[ModelMachine]:
    machine = ModelMachine(memory=8 * MIB, keys=machine_keys, settings=SMALL)
    yield machine
    machine.close()


@pytest.fixture
def completions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever changes become final."""
    found: list[int] = []
    keep = Undo.keep

    def counted(self: Undo) -> None:
        changes = len(self._steps)
        try:
            keep(self)
        finally:
            if changes and not self._steps:
                found.append(changes)

    monkeypatch.setattr(Undo, "keep", counted)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # generators that are dropped
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_call_that_runs_out_of_memory_changes_nothing(
    machine: ModelMachine, completions: list[int], scene: Scene
) -> None:
    """Out of memory at the first call of a function in it, then at the second …, until the call is complete."""
    action, ultravisor, turn = scene(machine), machine.ultravisor, 0
    completions.clear()
    before = frozen(ultravisor._machine, content=CONTENT, top=TOP)
    while not completions:
        turn += 1
        with Shortage(turn) as shortage:
            try:
                action()
            except (OutOfMemoryError, MemoryError):  # the latter: before the ultravisor had begun
                assert shortage.struck
        tables_agree(ultravisor, TOP)
        assert not ultravisor._machine.undo._steps
        after = frozen(ultravisor._machine, content=CONTENT, top=TOP)
        assert (without_control_block(after) == without_control_block(before)) is (not completions)
    assert len(completions) == 1, "it is complete at one moment"
    assert turn > 20


def without_control_block(state: dict[str, object]) -> dict[str, object]:
    storage = state["storage"]
    assert isinstance(storage, bytes)
    return {**state, "storage": storage[:BLOCK] + storage[BLOCK + PAGE_SIZE :]}


# ---------------------------------------------------------------- runs: each piece for itself


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_a_run_that_runs_out_of_memory_loses_nothing(machine_keys: MachineKeys, run: RunScene) -> None:
    """Its pages lie in frames all over the place, so that some may be done when others cannot be."""
    turn, struck = 0, True
    while struck:
        turn += 1
        machine = ModelMachine(memory=8 * MIB, keys=machine_keys, settings=SMALL)
        guest, action = run(machine)
        with Shortage(turn) as shortage:
            try:
                action()
            except (OutOfMemoryError, MemoryError):  # the latter: before the ultravisor had begun
                assert shortage.struck
        struck = shortage.struck
        tables_agree(machine.ultravisor, TOP)
        for page in range(0x40, 0x48):
            assert guest.read(page << PAGE_SHIFT, 30) == (b"content of page %d" % page).ljust(30, b"\0")
        machine.close()
    assert turn > 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_machine_reset_that_runs_out_of_memory_shows_nothing(machine: ModelMachine) -> None:
    """What it has cleared is lost to the guest, which then knows; the rest is as it was. Repeated, it is completed."""
    guest = guest_of(machine, pages=8)
    space, ultravisor, turn, struck = guest.configuration.space, machine.ultravisor, 0, True
    frames = {page: space.resolve(page) << PAGE_SHIFT for page in range(0x40, 0x48)}
    while struck:
        turn += 1
        with Shortage(turn) as shortage:
            try:
                ultravisor.machine_reset()
            except (OutOfMemoryError, MemoryError):
                assert shortage.struck
        struck = shortage.struck
        tables_agree(ultravisor, TOP)
        for page, frame in frames.items():
            wanted = b"content of page %d" % page
            assert wanted not in ultravisor.host.view(frame, PAGE_SIZE, live=True)
            if guest.handle in ultravisor._machine.configurations:
                state = ultravisor.host.page_states(guest.handle)[page]
                assert state == PageState.LOST or machine.storage.read(frame, len(wanted)) == wanted
    assert turn > 50
    assert ultravisor.host.frame_map().counts() == {"non-secure": machine.storage.size >> PAGE_SHIFT}


def test_a_guest_too_large_for_this_computer_costs_its_host_nothing(machine_keys: MachineKeys) -> None:
    """Its tables do not fit: the host has its storage again, and creates a smaller guest with it."""
    sizes: list[int] = []

    def blank(pages: int) -> States:
        sizes.append(pages)
        if len(sizes) == 1:
            raise MemoryError
        return blank_states(pages)

    machine = ModelMachine(memory=8 * MIB, keys=machine_keys, settings=SMALL)
    machine.ultravisor._machine.blank_states = blank
    action = create_configuration(machine)
    before = frozen(machine.ultravisor._machine, top=TOP)
    with pytest.raises(OutOfMemoryError, match=r"too little memory left .*; give guests less memory"):
        action()
    assert frozen(machine.ultravisor._machine, top=TOP) == before
    assert not [event for event in machine.ultravisor.log.events() if event.name == "configuration created"]
    action()
    assert machine.ultravisor.snapshot().configurations[0].state == "created"
    machine.close()
