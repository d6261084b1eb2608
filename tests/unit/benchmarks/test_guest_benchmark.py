"""The benchmark of guests takes its options, and its table says honestly what is met. Nothing is timed here."""

from __future__ import annotations

import sys

import pytest

from tests.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import Pair, Row, Target, middle, pairs, quickest, table
from benchmarks.guest import parse


def test_all_is_measured_unless_told_otherwise() -> None:
    options = parse([])
    assert options.only is None
    assert options.rounds > 0
    assert parse(["--rounds", "7", "--only", "boot", "disk"]).only == ["boot", "disk"]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--rounds", "0"], ["--rounds", "x"], ["--only"]])
def test_bad_options_end_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_pairs_take_turns() -> None:
    order: list[str] = []

    def measured(name: str, value: float) -> float:
        order.append(name)
        return value

    found = pairs(2, lambda: measured("protected", 2.0), lambda: measured("plain", 4.0))
    assert found == [Pair(2.0, 4.0)] * 2
    assert order == ["plain", "protected", "protected", "plain"]


def test_the_quickest_of_either_guest_makes_a_round() -> None:
    found = [Pair(1.0, 5.0), Pair(3.0, 2.0), Pair(7.0, 8.0), Pair(6.0, 9.0)]
    assert quickest(found, 2) == [Pair(1.0, 2.0), Pair(6.0, 8.0)]


def test_the_pair_with_the_median_ratio_makes_a_round() -> None:
    assert middle([Pair(8.0, 2.0), Pair(1.0, 2.0), Pair(9.0, 3.0)]) == Pair(9.0, 3.0)


@pytest.mark.parametrize(
    ("target", "protected", "met"),
    [
        (Target(1.15, at_most=True), 1.15, True),
        (Target(1.15, at_most=True), 1.16, False),
        (Target(0.85, at_most=False), 0.85, True),
        (Target(0.85, at_most=False), 0.84, False),
    ],
)
def test_a_ratio_is_held_against_its_target(target: Target, protected: float, met: bool) -> None:
    row = Row.paired("boot", "s", target, [Pair(protected, 1.0)])
    assert row.met is met
    assert row.cells()[-1] == ("yes" if met else "NO")


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    row = Row.paired("boot", "s", Target(2, at_most=True), [Pair(1, 1), Pair(30, 10), Pair(8, 4)])
    assert (row.protected, row.plain, row.ratio, row.spread) == (8, 4, 2.0, (1.0, 3.0))


def test_a_figure_without_a_plain_one_is_held_against_its_target_itself() -> None:
    row = Row.alone("share call", "µs", Target(20, at_most=True), [18.0, 25.0, 19.0])
    assert row.met
    assert row.cells() == ("share call", "19.00 µs", "-", "-", "18.0–25.0", "≤ 20", "yes")


def test_columns_are_aligned() -> None:
    rows = [
        Row.paired("boot", "s", Target(1.15, at_most=True), [Pair(11.0, 10.0)]),
        Row.alone("a longer name", "%", Target(0.05, at_most=True), [0.25]),
    ]
    assert table(rows).splitlines() == [
        "               protected    plain  ratio       spread  target  met",
        "boot             11.00 s  10.00 s  1.100  1.100–1.100  ≤ 1.15  yes",
        "a longer name     0.25 %        -      -      0.2–0.2  ≤ 0.05   NO",
    ]


def test_a_figure_without_a_target_is_neither_met_nor_missed() -> None:
    row = Row.paired("work", "MiB/s", None, [Pair(1.0, 2.0)])
    assert row.met
    assert row.cells()[-2:] == ("-", "-")
