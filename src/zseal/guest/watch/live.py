"""The live view of a guest: successive observations, as pictures for a terminal or as lines of text."""

from __future__ import annotations

import dataclasses

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from zseal.arch.storage import MIB
from zseal.guest.observation import Observation, page_text, uptime
from zseal.ultravisor.pagemap import GUEST_KINDS, Kind
from zseal.ultravisor.tables import PageState

CONSOLE_LINES = 12
_BAR = 44
_CALLS = 6
_PHASES = 8
_KINDS: dict[str, Kind] = {
    **{state.name.lower(): GUEST_KINDS[state] for state in PageState},
    **{kind.name: kind for kind in GUEST_KINDS.values() if kind.name in ("pinned", "unprotected")},
}


@dataclasses.dataclass(frozen=True)
class Look:
    """An observation and the changes since the previous one: ``rates`` are calls per second, by command."""

    now: Observation
    rates: dict[str, float]
    bytes_per_second: float

    @property
    def calls_per_second(self) -> float:
        """All calls together."""
        return sum(self.rates.values())


class Watcher:
    """Turns observations into looks."""

    def __init__(self) -> None:
        self._before: Observation | None = None

    def look(self, now: Observation) -> Look:
        """Return ``now`` with the rates since the last observation; 0 for the first."""
        before, self._before = self._before, now
        seconds = now.seconds - before.seconds if before is not None else 0.0
        if before is None or seconds <= 0:
            return Look(now, {}, 0.0)
        rates = {name: max(0, count - before.calls.get(name, 0)) / seconds for name, count in now.calls.items()}
        moved = _moved(now) - _moved(before)
        return Look(now, {name: rate for name, rate in rates.items() if rate}, max(0, moved) / seconds)


def _moved(observation: Observation) -> int:
    return sum(device.bytes_to_device + device.bytes_from_device for device in observation.devices)


def _name(state: str) -> str:
    return _KINDS[state].name if state in _KINDS else state


def line(look: Look) -> str:
    """Return a look as one line of text."""
    now = look.now
    parts = [f"{now.seconds:9.1f} s", f"{now.state:<9}", f"{now.phase:<20}", page_text(dict(now.pages))]
    parts.append(f"{sum(now.calls.values()):,} calls, {look.calls_per_second:,.0f}/s")
    if now.devices:
        parts.append(f"{look.bytes_per_second / MIB:.1f} MiB/s")
    return "  ".join(parts)


def view(look: Look) -> RenderableType:
    """Return a look as a picture for a terminal."""
    parts: list[RenderableType] = [_header(look.now), _phases(look.now), _side_by_side(look)]
    if look.now.devices:
        parts.append(_devices(look))
    if look.now.console:
        # Text, so that nothing the guest writes is taken for markup; the monitor removed control sequences
        console = Text("\n".join(look.now.console), no_wrap=True, overflow="ellipsis")
        parts.append(Panel(console, title="Console", title_align="left"))
    return Group(*parts)


def _header(now: Observation) -> Text:
    state = {"running": "bold green", "ended": "bold red"}.get(now.state, "bold yellow")
    text = Text.assemble((now.name or now.image, "bold"), "  ", (now.state, state))
    text.append(f"  {now.phase}  up {uptime(now.seconds)}  {now.memory // MIB:,} MiB  {now.cpus} CPU")
    if now.boots > 1:
        text.append(f"  boot {now.boots}")
    text.append("  protected" if now.protected else "  not protected", "blue" if now.protected else "yellow")
    for absent in now.absent:
        text.append(f"\n{absent.pages:,} pages wait in {absent.path}: the guest is paused", "yellow")
    for note in now.notes:
        text.append(f"\n{note}", "red")
    return text


def _phases(now: Observation) -> Text:
    text = Text()
    for phase in now.phases[-_PHASES:]:
        text.append(f"{phase.name} ", "bold" if phase is now.phases[-1] else "")
        text.append(f"{phase.end - phase.start:.2f} s  ", "dim")
    return text


def _side_by_side(look: Look) -> Columns:
    """Pages and calls, one below the other on a narrow terminal."""
    return Columns([_pages(look.now), _calls(look)])


def _pages(now: Observation) -> Panel:
    total = sum(now.pages.values()) or 1
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    bar, filled, before = Text(), 0, 0
    for state, count in now.pages.items():
        if not count:
            continue
        kind = _KINDS.get(state)
        colour = f"on rgb({','.join(map(str, kind.colour))})" if kind is not None else "reverse"
        before += count
        # every state that occurs is visible, even for a single page
        width = max(1, round(before * _BAR / total) - filled)
        filled += width
        bar.append(" " * width, colour)
        table.add_row(Text.assemble(("  ", colour), f" {_name(state)}"), f"{count:,}")
    return Panel.fit(Group(bar, table), title="Pages", title_align="left")


def _calls(look: Look) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    now = look.now
    table.add_row("all calls", f"{sum(now.calls.values()):,}", f"{look.calls_per_second:,.0f}/s")
    ranked = sorted(now.calls, key=lambda name: (-look.rates.get(name, 0.0), -now.calls[name]))
    for name in ranked[:_CALLS]:
        table.add_row(Text(name, "dim"), f"{now.calls[name]:,}", f"{look.rates.get(name, 0.0):,.0f}/s")
    if refused := sum(now.refused.values()):
        table.add_row(Text("refused", "red"), f"{refused:,}", "")
    return Panel.fit(table, title="Ultravisor calls", title_align="left")


def _devices(look: Look) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    for _ in range(5):
        table.add_column(justify="right")
    table.add_row("", "requests", "to device", "from device", "shared pages", "violations")
    for device in look.now.devices:
        table.add_row(
            f"{device.device}, queue {device.queue}",
            f"{device.requests:,}",
            f"{device.bytes_to_device:,}",
            f"{device.bytes_from_device:,}",
            f"{device.shared_pages:,}",
            Text(f"{device.violations:,}", "bold red" if device.violations else ""),
        )
    return Panel(table, title=f"Devices, {look.bytes_per_second / MIB:.1f} MiB/s", title_align="left")
