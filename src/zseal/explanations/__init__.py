"""What codes and messages of the ultravisor, KVM, QEMU, libvirt, kernels and bootloaders mean, and what to do.

Example::

    from zseal.explanations import explain

    for explanation in explain(["0x0108", "0x0005"], command="SSCP"):
        for reading in explanation.readings:
            print(reading.meaning, reading.remedy)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

from zseal.explanations.families import ALL_FAMILIES, Family, Number, Reading, Scope
from zseal.explanations.logs import MOST_PIECES, is_cause, joined
from zseal.explanations.questions import parse_number, resolve_command, split_arguments, split_log

__all__ = [
    "Explanation",
    "Reading",
    "all_readings",
    "explain",
    "explain_log",
    "first_cause",
    "list_to_json",
    "list_to_text",
    "to_json",
    "to_text",
]

# grows when a field changes its meaning; new fields do not change it
JSON_VERSION = 1
# lines that people paste; more are a log
_FEW = 100


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One question with all its readings, the likeliest first; no readings if it is not known.

    ``line`` is its number in the log it comes from, counted from 1.
    """

    question: str
    readings: tuple[Reading, ...]
    line: int | None = None

    @property
    def is_cause(self) -> bool:
        """Whether it shows why something failed, not only that it did."""
        return is_cause(self.readings)


def explain(arguments: Sequence[str], *, command: str | None = None) -> tuple[Explanation, ...]:
    """Explain codes and messages.

    ``arguments`` are as on the command line: numbers ("0x0108", "a02"), an rc with its rrc ("0x0108", "0x0005"),
    numbers with a word ("pgm 3d", "exit 4"), or messages, also of many lines. Lines that a terminal or a journal broke
    are read as one. ``command`` narrows codes that have a different meaning for each command. Raises UsageError for an
    unknown ``command``.
    """
    scope = resolve_command(command)
    return tuple(found for _, found in _explain_lines(split_arguments(arguments), scope))


def explain_log(text: str, *, command: str | None = None) -> tuple[Explanation, ...]:
    """Explain the known lines of a whole log in their order, each with its number.

    Look first at the first one with :attr:`Explanation.is_cause`. Raises UsageError for an unknown ``command``. Here a
    line with only a number is not a code.
    """
    scope = resolve_command(command)
    numbered = [(number, line) for number, line in split_log(text) if parse_number(line) is None]
    found = _explain_lines([line for _, line in numbered], scope)
    return tuple(dataclasses.replace(each, line=numbered[position][0]) for position, each in found if each.readings)


def _explain_lines(lines: Sequence[str], scope: Scope) -> Iterator[tuple[int, Explanation]]:
    """Yield the explanation of each line, or of several that are one, with the position of the first."""
    asked = functools.cache(lambda line: _ask(line, scope))
    position = 0
    while position < len(lines):
        together = joined(lines[position : position + MOST_PIECES], asked, few=len(lines) <= _FEW)
        count, question, readings = together or (1, lines[position], asked(lines[position]))
        yield position, Explanation(question, tuple(readings))
        position += count


def _ask(question: str, scope: Scope) -> Sequence[Reading]:
    number = parse_number(question)
    return _text(question, scope) if number is None else _numbers(number, scope)


def _read(ask: Callable[[Family], Sequence[Reading]]) -> list[Reading]:
    found: dict[tuple[str, str, tuple[str, ...]], Reading] = {}
    for family in ALL_FAMILIES:
        for reading in ask(family):
            # two families may know the same thing; the first one knows more about it
            found.setdefault((reading.code, reading.name, reading.commands), reading)
    return list(found.values())


def _text(line: str, scope: Scope) -> list[Reading]:
    return _read(lambda family: family.text(line, scope))


def _numbers(number: Number, scope: Scope) -> list[Reading]:
    readings = _read(lambda family: family.number(number, scope))
    if not readings and number.reason is not None:
        # two numbers that are not an rc with its rrc: each by itself
        return [*_numbers(Number(number.value), scope), *_numbers(Number(number.reason), scope)]
    return readings


def all_readings() -> Iterable[Reading]:
    """Return everything that can be explained, family by family."""
    return (reading for family in ALL_FAMILIES for reading in family.all())


def first_cause(explanations: Sequence[Explanation]) -> Explanation | None:
    """Return the first explanation of why something failed, not only that it did; None if there is none."""
    return next((explanation for explanation in explanations if explanation.is_cause), None)


def _is_log(explanations: Sequence[Explanation]) -> bool:
    return any(explanation.line is not None for explanation in explanations)


def to_json(explanations: Sequence[Explanation]) -> str:
    """Return the explanations as one JSON object; see docs/explain.md for its fields."""
    content: dict[str, object] = {
        "version": JSON_VERSION,
        "explanations": [dataclasses.asdict(explanation) for explanation in explanations],
    }
    if _is_log(explanations):
        cause = first_cause(explanations)
        content["first_cause"] = None if cause is None else {"line": cause.line, "question": cause.question}
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
        rows.append(("note", "IBM publishes no number for this: it is zseal's own, hardware may answer differently"))
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


def _heading(explanation: Explanation, repeats: int) -> str:
    where = "" if explanation.line is None else f"line {explanation.line}: "
    count = len(explanation.readings)
    several = count > 2 and parse_number(explanation.question) is not None
    note = f" ({count} readings; --command narrows them)" if several else ""
    more = f" (and {repeats} more like it)" if repeats else ""
    return f"{where}{explanation.question}{note}{more}"


def to_text(explanations: Sequence[Explanation], *, width: int) -> str:
    """Return the explanations for people, in lines of about ``width`` characters.

    Of a log, each meaning is printed once, and at the end the first line that names a cause.
    """
    log = _is_log(explanations)
    groups: dict[object, list[Explanation]] = {}
    for position, explanation in enumerate(explanations):
        if explanation.readings:
            groups.setdefault(explanation.readings if log else position, []).append(explanation)
    lines: list[str] = []
    for first, *repeats in groups.values():
        lines.append(_heading(first, len(repeats)))
        for reading in first.readings:
            lines += [*_reading_lines(reading, width), ""]
    if log:
        cause = first_cause(explanations)
        lines.append("No line names a cause." if cause is None else f"First cause: {_heading(cause, 0)}")
    return "\n".join(lines).rstrip()


def list_to_text(readings: Iterable[Reading]) -> str:
    """Return ``readings``, one a line."""
    return "\n".join(f"{reading.code}  {reading.name}: {reading.meaning}" for reading in readings)
