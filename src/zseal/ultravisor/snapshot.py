"""A picture of the ultravisor's state at one moment, without secrets, for people and as JSON."""

from __future__ import annotations

import dataclasses

import numpy as np

from zseal.arch.storage import PAGE_SHIFT
from zseal.formats.uv_codes import Command
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.state import MachineState
from zseal.ultravisor.tables import FrameState, PageState, count_states


@dataclasses.dataclass(frozen=True)
class CpuSnapshot:
    """One secure CPU."""

    number: int
    state: str


@dataclasses.dataclass(frozen=True)
class ConfigurationSnapshot:
    """One protected guest; ``pages`` counts its pages by state, pinned ones apart from the other shared ones."""

    serial: int
    state: str
    uid: str
    storage_bytes: int
    donated_bytes: int
    exports: int
    """Exports of all pages so far."""
    pages: dict[str, int]
    cpus: tuple[CpuSnapshot, ...]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The whole machine; ``frames`` counts host frames by state, ``calls`` and ``refused`` UVCs by command."""

    initialised: bool
    storage_bytes: int
    donated_bytes: int
    frames: dict[str, int]
    calls: dict[str, int]
    refused: dict[str, int]
    configurations: tuple[ConfigurationSnapshot, ...]

    def to_json(self) -> dict[str, object]:
        """Return the same as dicts, lists, numbers and strings."""
        return dataclasses.asdict(self)


def page_counts(machine: MachineState, configuration: Configuration) -> dict[str, int]:
    """Return how many pages of the guest are in each state, by lower-case name, and how many are pinned."""
    table = configuration.guest.pages
    found = count_states(table.state, len(PageState))
    counts = {state.name.lower(): found[state] for state in PageState}
    shared = table.frame[table.state == PageState.SHARED]
    pinned = int(np.count_nonzero(machine.secure.frames.state[shared] == FrameState.PINNED))
    counts["shared"] -= pinned
    counts["pinned"] = pinned
    return counts


def take_snapshot(machine: MachineState) -> Snapshot:
    """Return the present state."""
    found = count_states(machine.secure.frames.state, len(FrameState))
    return Snapshot(
        initialised=machine.initialised,
        storage_bytes=machine.storage.size,
        donated_bytes=machine.ledger.total,
        frames={state.name.lower(): found[state] for state in FrameState},
        calls={Command(code).name: count for code, count in sorted(machine.calls.items())},
        refused={Command(code).name: count for code, count in sorted(machine.refused.items())},
        configurations=tuple(
            ConfigurationSnapshot(
                serial=each.guest.serial,
                state=each.state.value,
                uid=each.uid.hex(),
                storage_bytes=each.guest.pages.count << PAGE_SHIFT,
                donated_bytes=each.donation.size + sum(cpu.donation.size for cpu in each.cpus.values()),
                exports=int(each.guest.pages.counter.sum()),
                pages=page_counts(machine, each),
                cpus=tuple(CpuSnapshot(number, cpu.state.name) for number, cpu in sorted(each.cpus.items())),
            )
            for each in machine.configurations.values()
        ),
    )
