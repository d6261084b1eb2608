"""What ``make test`` promises: every test runs once, and what fails has failed."""

from __future__ import annotations

import re

from tests.paths import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()


def test_nothing_is_run_again_until_it_passes() -> None:
    commands = re.findall(r"^\t.*pytest.*|^PYTEST := .*", MAKEFILE, re.MULTILINE | re.IGNORECASE)
    assert len(commands) >= 3
    for command in commands:
        assert "||" not in command, command
        assert not re.search(r"--(last-failed|lf|failed-first|ff|reruns)\b|flaky", command), command


def test_no_test_is_marked_as_one_that_may_fail() -> None:
    marks = re.compile(r"mark\.(x" + r"fail|flaky|skip|skipif)\b|pytest\.(skip|xfail|importorskip)\(")
    found = [str(path) for path in (REPOSITORY / "tests").rglob("*.py") if marks.search(path.read_text())]
    assert not found
