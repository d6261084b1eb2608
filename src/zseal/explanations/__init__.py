"""What codes and messages of the ultravisor, KVM, QEMU, libvirt, kernels and bootloaders mean, and what to do.

Example::

    from zseal.explanations import explain

    for explanation in explain(["0x0108", "0x0005"], command="SSCP"):
        for reading in explanation.readings:
            print(reading.meaning, reading.remedy)
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterable, Sequence

from zseal.explanations.families import ALL_FAMILIES, Family, Number, Reading, Scope
from zseal.explanations.questions import parse_number, resolve_command, split_arguments

__all__ = ["Explanation", "Reading", "all_readings", "explain", "list_to_json", "list_to_text", "to_json", "to_text"]

# grows when a field changes its meaning; new fields do not change it
JSON_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One question with all its readings, the likeliest first; none where nobody knows it."""

    question: str
    readings: tuple[Reading, ...]


def explain(arguments: Sequence[str], *, command: str | None = None) -> tuple[Explanation, ...]:
    """Explain codes and messages.

    ``arguments`` are as on the command line: numbers ("0x0108", "a02"), an rc with its rrc ("0x0108", "0x0005"),
    numbers with a word ("pgm 3d", "exit 4"), or messages, also many lines at once. ``command`` narrows codes that mean
    something else for each command. Raises UsageError for an unknown ``command``.
    """
    scope = resolve_command(command)
    explanations = []
    for question in split_arguments(arguments):
        number = parse_number(question)
        readings = _text(question, scope) if number is None else _numbers(number, scope)
        explanations.append(Explanation(question, tuple(readings)))
    return tuple(explanations)


def _read(ask: Callable[[Family], Sequence[Reading]]) -> list[Reading]:
    found: dict[tuple[str, str, tuple[str, ...]], Reading] = {}
    for family in ALL_FAMILIES:
        for reading in ask(family):
            # two families may know one thing: the first one knows more about it
            found.setdefault((reading.code, reading.name, reading.commands), reading)
    return list(found.values())


def _text(line: str, scope: Scope) -> list[Reading]:
    return _read(lambda family: family.text(line, scope))


def _numbers(number: Number, scope: Scope) -> list[Reading]:
    readings = _read(lambda family: family.number(number, scope))
    if not readings and number.reason is not None:
        # two numbers that are no rc with its rrc: each for itself
        return [*_numbers(Number(number.value), scope), *_numbers(Number(number.reason), scope)]
    return readings


def all_readings() -> Iterable[Reading]:
    """Return everything that can be explained, family by family."""
    return (reading for family in ALL_FAMILIES for reading in family.all())


def to_json(explanations: Sequence[Explanation]) -> str:
    """Return the explanations as one JSON object; see docs/explain.md for its fields."""
    content = {
        "version": JSON_VERSION,
        "explanations": [dataclasses.asdict(explanation) for explanation in explanations],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def list_to_json(readings: Iterable[Reading]) -> str:
    """Return ``readings`` as one JSON object."""
    return json.dumps(
        {"version": JSON_VERSION, "readings": [dataclasses.asdict(reading) for reading in readings]},
        indent=2,
        ensure_ascii=False,
    )


def _reading_lines(reading: Reading, width: int) -> list[str]:
    lines = [f"  {reading.code}  {reading.name}"]
    rows = [("from", reading.source)]
    if reading.commands:
        rows.append(("call", ", ".join(reading.commands)))
    rows.append(("means", reading.meaning))
    if reading.cause:
        rows.append(("cause", reading.cause))
    rows.append(("to do", reading.remedy))
    if not reading.published:
        rows.append(("note", "IBM publishes no number for this: it is zseal's own, hardware may answer otherwise"))
    for label, text in rows:
        lines += textwrap.wrap(
            text,
            width,
            initial_indent=f"    {label + ':':<7}",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def to_text(explanations: Sequence[Explanation], *, width: int) -> str:
    """Return the explanations for a person, lines about ``width`` characters long."""
    lines: list[str] = []
    for explanation in explanations:
        count = len(explanation.readings)
        if not count:
            continue
        several = count > 2 and parse_number(explanation.question) is not None
        note = f" ({count} readings; --command narrows them)" if several else ""
        lines += [f"{explanation.question}{note}"]
        for reading in explanation.readings:
            lines += [*_reading_lines(reading, width), ""]
    return "\n".join(lines).rstrip()


def list_to_text(readings: Iterable[Reading]) -> str:
    """Return ``readings``, one a line."""
    return "\n".join(f"{reading.code}  {reading.name}: {reading.meaning}" for reading in readings)
