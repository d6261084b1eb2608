"""The exit codes of guests: whatever lists them lists those of ``zseal.guest.outcome``, and no others."""

from __future__ import annotations

import re

import pytest

from tests.paths import REPOSITORY
from zseal.cli.main import main
from zseal.explanations.families.exits import OUTCOMES, _readings
from zseal.guest.outcome import SIGNAL_EXIT_CODES, USAGE_EXIT_CODE, Outcome

CODES = sorted({outcome.exit_code for outcome in Outcome} | {USAGE_EXIT_CODE} | SIGNAL_EXIT_CODES.keys())


def test_no_two_ends_share_a_code() -> None:
    assert len(CODES) == len(Outcome) + 1 + len(SIGNAL_EXIT_CODES)


def test_only_a_power_off_counts_as_success() -> None:
    assert [outcome for outcome in Outcome if outcome.exit_code == 0] == [Outcome.POWEROFF]


@pytest.mark.parametrize("command", [["run"], ["domain", "run"]], ids=" ".join)
def test_the_help_lists_each_code_once(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    text = re.sub(r"\s+", " ", shown[shown.index("Exit codes: ") :])
    sentence = text[: text.index("SIGTERM.")]
    assert sorted(map(int, re.findall(r"\b\d+\b", sentence))) == CODES
    for outcome in Outcome:
        assert f"{outcome.exit_code} {outcome.summary}" in sentence


def test_the_page_on_results_has_a_row_for_each_code() -> None:
    page = (REPOSITORY / "docs" / "run-results.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)] == CODES


def test_each_code_is_explained() -> None:
    assert list(_readings()) == CODES
    assert OUTCOMES.keys() == {outcome.value for outcome in Outcome}
