"""The fixtures for other projects' tests: how guests end with a test."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_TEST = """
import pytest

from zseal.engine.interface import Console
from zseal.guest.events import ConsoleOutput


class FakeGuest:
    def __init__(self, number, error=None):
        self.number, self.error = number, error

    def close(self):
        print(f"closing {self.number}")
        if self.error is not None:
            raise self.error

    def events(self, timeout):
        yield ConsoleOutput(0.0, Console.TERMINAL, b"words of guest %d" % self.number)


@pytest.fixture(scope="session")
def zseal_machine():
    return None


def test_it(protected_guest):
    protected_guest.guests += [
        FakeGuest(0),
        FakeGuest(1, RuntimeError("first error")),
        FakeGuest(2, RuntimeError("second error")),
        FakeGuest(3),
    ]
"""


def test_all_guests_are_ended_and_shown_where_one_cannot_be_ended(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_TEST)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    text = result.stdout.str()
    for number in range(4):
        assert f"closing {number}" in text
        assert f"words of guest {number}" in text
    result.stdout.fnmatch_lines(["E *RuntimeError: first error"])
