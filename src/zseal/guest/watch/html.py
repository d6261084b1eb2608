"""A self-contained HTML report of a run: no scripts, no network, readable on a phone and in dark mode.

Every picture is inline SVG with an equivalent text; every value from outside is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from zseal.guest.records import DeviceTraffic, Phase, RunRecord, Sample
from zseal.ultravisor.pagemap import GUEST_KINDS, Kind

_KINDS: Mapping[str, Kind] = {kind.name: kind for kind in sorted(GUEST_KINDS.values(), key=lambda kind: kind.rank)}
STATE_COLOURS: Mapping[str, str] = {name: "#{:02x}{:02x}{:02x}".format(*kind.colour) for name, kind in _KINDS.items()}
"""The colours of page states in every picture; unused pages first, lost ones last."""
_OTHER_COLOUR = "#cc79a7"
_TOLD_FIRST = max(kind.rank for kind in _KINDS.values()) + 1
_SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#9aa0a6")
_WIDTH = 720
_CHART_HEIGHT = 160
_MAP_COLUMNS = 128
_MAP_ROWS = 24
_MAPS = 6
_COLUMNS_ON_A_PHONE = 3
_MAX_PHASES = 60
"""A guest that reboots all the time has hundreds of phases."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --ground: #fff; --soft: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --ground: #16181c; --soft: #aaa; --line: #3a3d44; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--ground); }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
svg { display: block; width: 100%; height: auto; }
.chart svg { height: 10rem; border-bottom: 1px solid var(--line); }
.chart figcaption { display: flex; justify-content: space-between; gap: 1rem; margin: .25rem 0 .75rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
td:first-child, th:first-child { min-width: 7rem; }
tr > :last-child { padding-right: 0; }
.phases td { border: 0; padding-top: .1rem; padding-bottom: .1rem; }
.phases td:first-child { width: 1%; white-space: nowrap; }
.phases td.n { width: 1%; white-space: nowrap; padding: .1rem 0 .1rem .6rem; }
.track b { display: block; height: 1rem; border-radius: 2px; min-width: 2px; }
.facts th { width: 1%; white-space: nowrap; padding-right: 1.5rem; }
.scroll { overflow-x: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .5rem 0; }
.legend i, td i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; border: 1px solid var(--line);
  vertical-align: -.1em; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption, .soft { color: var(--soft); font-size: .9rem; }
pre { overflow: auto; max-height: 24rem; padding: .75rem; border: 1px solid var(--line); font-size: .8rem; }
.chart figcaption span:last-child, .chart figcaption span:first-child { white-space: nowrap; }
@media (max-width: 36rem) {
  .many thead { display: none; } .many tr { display: block; border-bottom: 1px solid var(--line); padding: .3rem 0; }
  .many td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; }
  .many td::before { content: attr(data-head); color: var(--soft); } .many td:first-child::before { content: none; }
}
.bad { color: #d00000; font-weight: 600; }
@media (prefers-color-scheme: dark) { .bad { color: #ff7b72; } }
"""


def render_html(record: RunRecord) -> str:
    """Return the page as HTML text."""
    sections = [
        "".join(f'<p class="bad">{_text(note)}</p>' for note in record.notes),
        _facts(record),
        _section("Phases", _phases(record)) if record.phases else "",
        _section("Pages by state", _pages(record)) if record.samples else "",
        _section("Page-state map over time", _maps(record)) if any(s.runs for s in record.samples) else "",
        _section("Ultravisor calls", _calls(record)) if record.samples else "",
        _section("Device traffic", _devices(record.devices)),
        _section("Console", f"<pre>{_text(record.console)}</pre>") if record.console else "",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # even if something were not escaped, the browser would neither run nor load it
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(record.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{_text(record.title)}</h1><p>{_text(record.outcome)}</p>"
        + "".join(sections)
        + '<p class="soft">Made by zseal. The software ultravisor is an emulation and not a security boundary.</p>'
        "</main></body></html>\n"
    )


def _text(value: object) -> str:
    cleaned = "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return html.escape(cleaned)


def _section(title: str, body: str) -> str:
    return f'<section><h2 id="{title.lower().replace(" ", "-")}">{title}</h2>{body}</section>'


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: int,
    colours: Mapping[str, str] | None = None,
) -> str:
    """Return a table whose columns from ``numbers`` on are numbers; ``colours`` are those of the first column.

    A table with many columns shows a line for each value on a narrow screen.
    """

    def cells(tag: str, row: Sequence[object]) -> str:
        colour = (colours or {}).get(str(row[0]))
        swatch = f'<i style="background:{colour}"></i>' if colour else ""
        out = ""
        for i, (name, value) in enumerate(zip(head, row, strict=True)):
            attributes = " class=n" if i >= numbers else ""
            if tag == "td":
                attributes += f' data-head="{_text(name)}"'
            out += f"<{tag}{attributes}>{swatch if i == 0 else ''}{_text(value)}</{tag}>"
        return out

    kind = ' class="many"' if len(head) > _COLUMNS_ON_A_PHONE else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{cells("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _legend(colours: Mapping[str, str]) -> str:
    items = "".join(f'<li><i style="background:{colour}"></i>{_text(name)}</li>' for name, colour in colours.items())
    return f'<ul class="legend">{items}</ul>'


def _facts(record: RunRecord) -> str:
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in record.facts.items())
    return f'<div class="scroll"><table class="facts">{rows}</table></div>' if rows else ""


def _phases(record: RunRecord) -> str:
    total = record.duration or 1.0
    rows = []
    for i, phase in enumerate(record.phases[:_MAX_PHASES]):
        left = 100 * phase.start / total
        width = max(0.4, 100 * (phase.end - phase.start) / total)
        colour = _SERIES[i % len(_SERIES)]
        rows.append(
            f"<tr><td>{_text(phase.name)}</td><td class=track><b style="
            f'"margin-left:{min(left, 99.6):.2f}%;width:{min(width, 100 - min(left, 99.6)):.2f}%;background:{colour}">'
            f"</b></td><td class=n>{_seconds(phase)}</td></tr>"
        )
    left_out = len(record.phases) - len(rows)
    more = f'<p class="soft">and {left_out:,} more</p>' if left_out else ""
    return f'<table class="phases"><tbody>{"".join(rows)}</tbody></table>{more}'


def _seconds(phase: Phase) -> str:
    return f"{phase.end - phase.start:.3f} s"


def _pages(record: RunRecord) -> str:
    states = _ordered({state for sample in record.samples for state in sample.pages})
    colours = {state: STATE_COLOURS.get(state, _OTHER_COLOUR) for state in states}
    chart = _areas(record, states, colours, lambda sample, state: sample.pages.get(state, 0), "Pages by state")
    last = record.samples[-1]
    rows = [(state, f"{last.pages.get(state, 0):,}") for state in states]
    return chart + _table(("State", "Pages at the end"), rows, numbers=1, colours=colours)


def _calls(record: RunRecord) -> str:
    last = record.samples[-1].calls
    names = sorted(last, key=lambda name: -last[name])
    if not names:
        return '<p class="soft">No call was made.</p>'
    colours = {name: _SERIES[min(i, len(_SERIES) - 1)] for i, name in enumerate(names)}
    chart = _areas(record, names, colours, lambda sample, name: sample.calls.get(name, 0), "Calls since the start")
    rows = [(name, f"{last[name]:,}") for name in names]
    return chart + _table(("Call", "Times"), rows, numbers=1, colours=colours)


def _areas(
    record: RunRecord,
    names: Sequence[str],
    colours: Mapping[str, str],
    value: Callable[[Sample, str], int],
    title: str,
) -> str:
    """Return stacked areas of ``value`` over time, the first name at the bottom."""
    total = record.duration or 1.0
    top = max((sum(value(sample, name) for name in names) for sample in record.samples), default=0) or 1
    # a single sample is drawn as if it applied from the start
    samples = list(record.samples) if len(record.samples) > 1 else list(record.samples) * 2
    times = [0.0, total] if len(record.samples) == 1 else [sample.time for sample in samples]
    below = [0.0] * len(samples)
    shapes = []
    for name in names:
        above = [low + value(sample, name) for low, sample in zip(below, samples, strict=True)]
        points = [
            f"{time / total * _WIDTH:.1f},{_CHART_HEIGHT - level / top * _CHART_HEIGHT:.1f}"
            for time, level in [
                *zip(times, above, strict=True),
                *reversed(list(zip(times, below, strict=True))),
            ]
        ]
        shapes.append(
            f'<polygon points="{" ".join(points)}" fill="{colours[name]}"><title>{_text(name)}</title></polygon>'
        )
        below = above
    told = _text(f"{title} over time, up to {top:,} in {total:.1f} s")
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH} {_CHART_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{told}"><title>{told}</title>{"".join(shapes)}</svg>'
        f"<figcaption><span>0 s</span><span>{_text(title)}, up to {top:,}</span><span>{total:.1f} s</span></figcaption>"
        "</figure>"
    )


def _maps(record: RunRecord) -> str:
    with_map = [sample for sample in record.samples if sample.runs]
    step = max(1, (len(with_map) - 1) / (_MAPS - 1)) if len(with_map) > 1 else 1
    picked = [with_map[min(len(with_map) - 1, round(i * step))] for i in range(min(_MAPS, len(with_map)))]
    figures = "".join(
        f"<figure>{page_map(s.runs)}<figcaption>after {s.time:.2f} s</figcaption></figure>" for s in picked
    )
    states = _ordered({state for sample in picked for state, _ in sample.runs})
    return (
        f'<div class="maps">{figures}</div>'
        + _legend({state: STATE_COLOURS.get(state, _OTHER_COLOUR) for state in states})
        + f'<p class="soft">Left to right, top to bottom in address order; {_MAP_COLUMNS * _MAP_ROWS:,} cells a '
        "picture. A cell of many pages shows the most important state, so that a single shared page is visible.</p>"
    )


def _ordered(states: set[str]) -> list[str]:
    known = list(STATE_COLOURS)
    return sorted(states, key=lambda state: (known.index(state) if state in known else len(known), state))


def page_map(runs: Sequence[tuple[str, int]]) -> str:
    """Return the map of ``runs`` as one SVG picture, cells merged along each row."""
    total = sum(count for _, count in runs)
    cells = _MAP_COLUMNS * _MAP_ROWS
    states = [""] * cells
    position = 0
    for state, count in runs:
        for cell in range(position * cells // total, ((position + count) * cells - 1) // total + 1):
            if not states[cell] or _rank(state) > _rank(states[cell]):
                states[cell] = state
        position += count
    shapes = []
    for row in range(_MAP_ROWS):
        column = 0
        while column < _MAP_COLUMNS:
            start, state = column, states[row * _MAP_COLUMNS + column]
            while column < _MAP_COLUMNS and states[row * _MAP_COLUMNS + column] == state:
                column += 1
            colour = STATE_COLOURS.get(state, _OTHER_COLOUR)
            shapes.append(f'<rect x="{start}" y="{row}" width="{column - start}" height="1" fill="{colour}"/>')
    summary = _text(", ".join(f"{count:,} {state}" for state, count in _totals(runs).items()))
    return (
        f'<svg viewBox="0 0 {_MAP_COLUMNS} {_MAP_ROWS}" role="img" shape-rendering="crispEdges" '
        f'aria-label="{summary}"><title>{summary}</title>{"".join(shapes)}</svg>'
    )


def _rank(state: str) -> int:
    """Return how much a state matters: a cell of many pages shows the one that matters most."""
    return _KINDS[state].rank if state in _KINDS else _TOLD_FIRST


def _totals(runs: Sequence[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for state, count in runs:
        totals[state] = totals.get(state, 0) + count
    return totals


def _devices(devices: Sequence[DeviceTraffic]) -> str:
    if not devices:
        return '<p class="soft">No device moved data.</p>'
    rows = [
        (
            f"{d.device}, queue {d.queue}",
            f"{d.requests:,}",
            f"{d.bytes_to_device:,}",
            f"{d.bytes_from_device:,}",
            f"{d.shared_pages:,}",
            f"{d.violations:,}",
        )
        for d in devices
    ]
    head = ("Device", "Requests", "Bytes to device", "Bytes from device", "Shared pages used", "Violations")
    return _table(head, rows, numbers=1)
