"""The report, its keys and the exit codes are those that docs/run-results.md describes, all of them and no other."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.paths import DOCS
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome

pytestmark = pytest.mark.qemu

PAGE = (DOCS / "run-results.md").read_text()
SECTION = PAGE.split("## The report")[1].split("\n## ")[0]


def rows() -> dict[str, str]:
    """The table's rows: every key of the first column with what is said about it."""
    found = {}
    for line in SECTION.splitlines():
        cells = line.split("|")
        if len(cells) == 4 and cells[1].strip().startswith("`"):
            found.update(dict.fromkeys(re.findall(r"`(\w+)`", cells[1]), cells[2]))
    return found


def test_every_end_and_its_exit_code_is_documented() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    ends = [outcome for outcome in Outcome if outcome is not Outcome.STOPPED]
    assert codes == {0, 1, 2, 129, 130, 131, 143} | {outcome.exit_code for outcome in ends}
    assert {outcome.value for outcome in Outcome} <= set(re.findall(r"`([\w-]+)`", rows()["result"]))


def test_documented_keys_are_the_real_ones(start: Callable[..., Guest]) -> None:
    with start("hello share=2") as guest:
        guest.wait()
        report = guest.report
    documented = rows()
    assert set(report) == set(documented)
    for key in ("engine", "result", "ultravisor", "seconds", "io"):
        part = report[key]
        assert isinstance(part, dict)
        missing = {name for name in part if f"`{name}`" not in documented[key]}
        # the test guest has no kernel proper, and the timeline has the starts
        assert missing <= ({"started"} if key == "seconds" else set()), f"{key}: undocumented {missing}"
