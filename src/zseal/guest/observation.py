"""A guest at one moment: what its monitor sees, the control socket transfers and a view shows.

It is small on purpose: a command that shows the state of a guest needs nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from zseal.errors import FormatError
from zseal.guest.records import DeviceTraffic, Phase
from zseal.jsonvalue import Json


@dataclasses.dataclass(frozen=True)
class PagedOut:
    """Pages that are out: their number and their file."""

    path: Path
    pages: int


@dataclasses.dataclass(frozen=True)
class Observation:
    """A guest at one moment.

    ``state`` is running, paused, paged-out or ended; ``phase`` the name of the last of ``phases``. ``seconds`` count
    from the start, ``memory`` is in bytes. ``pages`` counts pages by state, ``calls`` and ``refused`` the ultravisor
    calls by command. ``absent`` are the pages that are out, ``console`` its last lines, ``notes`` the known failures
    that its console showed.
    """

    name: str
    state: str
    phase: str
    seconds: float
    boots: int
    protected: bool
    memory: int
    cpus: int
    image: str
    machine: str
    phases: tuple[Phase, ...]
    pages: Mapping[str, int]
    calls: Mapping[str, int]
    refused: Mapping[str, int]
    engine: Mapping[str, int | float | str]
    devices: tuple[DeviceTraffic, ...]
    absent: tuple[PagedOut, ...]
    console: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the same as dicts, lists, numbers and text."""
        plain: dict[str, Json] = {
            "name": self.name,
            "state": self.state,
            "phase": self.phase,
            "seconds": self.seconds,
            "boots": self.boots,
            "protected": self.protected,
            "memory": self.memory,
            "cpus": self.cpus,
            "image": self.image,
            "machine": self.machine,
            "phases": [
                {"name": phase.name, "start": round(phase.start, 6), "end": round(phase.end, 6)}
                for phase in self.phases
            ],
            "pages": {**self.pages},
            "calls": {**self.calls},
            "refused_calls": {**self.refused},
            "engine": {**self.engine},
            "devices": [dataclasses.asdict(device) for device in self.devices],
            "paged_out": [{"path": str(each.path), "pages": each.pages} for each in self.absent],
            "console": [*self.console],
            "diagnoses": [*self.notes],
        }
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Json]) -> Observation:
        """Return the observation that :meth:`to_json` wrote; raises FormatError for anything else."""
        try:
            return cls(
                name=str(plain["name"]),
                state=str(plain["state"]),
                phase=str(plain["phase"]),
                seconds=_number(plain["seconds"]),
                boots=_count(plain["boots"]),
                protected=plain["protected"] is True,
                memory=_count(plain["memory"]),
                cpus=_count(plain["cpus"]),
                image=str(plain["image"]),
                machine=str(plain["machine"]),
                phases=tuple(
                    Phase(str(each["name"]), _number(each["start"]), _number(each["end"]))
                    for each in _objects(plain["phases"])
                ),
                pages=_counts(plain["pages"]),
                calls=_counts(plain["calls"]),
                refused=_counts(plain["refused_calls"]),
                engine={
                    key: value if isinstance(value, int | float | str) else ""
                    for key, value in _object(plain["engine"]).items()
                },
                devices=tuple(
                    DeviceTraffic(str(each["device"]), *(_count(each[name]) for name in _TRAFFIC))
                    for each in _objects(plain["devices"])
                ),
                absent=tuple(
                    PagedOut(Path(str(each["path"])), _count(each["pages"])) for each in _objects(plain["paged_out"])
                ),
                console=tuple(str(line) for line in _list(plain["console"])),
                notes=tuple(str(note) for note in _list(plain["diagnoses"])),
            )
        except (KeyError, TypeError) as error:
            raise FormatError("the guest describes itself in a way that this zseal does not know") from error


_TRAFFIC = [field.name for field in dataclasses.fields(DeviceTraffic)][1:]


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _objects(value: Json) -> list[dict[str, Json]]:
    return [_object(each) for each in _list(value)]


def _number(value: Json) -> float:
    if not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)


def _count(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError("not a whole number")
    return value


def _counts(value: Json) -> dict[str, int]:
    return {key: _count(each) for key, each in _object(value).items()}


def uptime(seconds: float) -> str:
    """Return ``seconds`` as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def page_text(pages: dict[str, int]) -> str:
    """Return the counts of pages that are not zero, such as "private 16,380, shared 4"."""
    return ", ".join(f"{state.replace('_', ' ')} {count:,}" for state, count in pages.items() if count)
