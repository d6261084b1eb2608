"""Signals in the parts of ``zseal run`` in which no guest runs yet, or no longer; the rest needs a guest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self, cast

import pytest
import typer

from zseal.cli.following import Outputs, follow
from zseal.cli.program import run_program
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
WORDS = dict(zip(NUMBERS, ["interrupted", "terminated", "hung up", "quit"], strict=True))


@pytest.fixture(autouse=True)
def actions() -> Iterator[None]:
    """Put the signals' actions back, which a program that ends leaves ignored."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def run(guest: object, outputs: Outputs) -> int:
    """Follow the guest as ``zseal run`` does and return the exit code."""

    def command() -> None:
        raise typer.Exit(follow(cast("Guest", guest), outputs, watch=False))

    def build() -> typer.Typer:
        app = typer.Typer()
        app.command()(command)
        return app

    with pytest.raises(SystemExit) as ended:
        run_program(build, [], "zseal")
    assert isinstance(ended.value.code, int)
    return ended.value.code


class Starting:
    """A guest whose start takes long."""

    closed = False

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> Self:
        try:
            os.kill(os.getpid(), self._number)
            time.sleep(10)
        finally:
            self.closed = True
        return self

    def __exit__(self, *_: object) -> None:
        raise AssertionError("it was never started")


class Over:
    """A guest that has ended by itself, and whose memory takes long to write."""

    diagnoses = ("it was old",)
    notices = ()
    record = None

    def __init__(self, result: Result) -> None:
        self._result = result
        self.host = self
        self.report = {"exit_code": result.exit_code}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # too late to change anything

    def events(self) -> Iterator[object]:
        return iter(())

    def wait(self) -> Result:
        return self._result

    def dump(self, path: Path, *, overwrite: bool) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_the_guest_is_being_started_is_one_line(
    capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    starting = Starting(number)
    assert run(starting, Outputs(report=None, host_dump=None, html=None, overwrite=False)) == 128 + number
    assert starting.closed
    assert capfd.readouterr().err == f"error: {WORDS[number]}\n"


@pytest.mark.parametrize(("outcome", "line", "code"), [(Outcome.POWEROFF, "", 130), (Outcome.PANIC, "error: ", 3)])
def test_a_signal_behind_the_end_of_the_guest_ends_only_what_is_being_written(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    outcome: Outcome,
    line: str,
    code: int,
) -> None:
    monkeypatch.setattr("zseal.guest.watch.html.render_html", lambda record: "page")
    outputs = Outputs(tmp_path / "report", tmp_path / "dump", tmp_path / "page", overwrite=False)
    assert run(Over(Result(outcome, "it is over")), outputs) == code
    assert capfd.readouterr().err == f"diagnosis: it was old\n{line}it is over\nerror: interrupted\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "report"]


def test_a_guest_that_is_over_when_a_signal_comes_keeps_its_own_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs(report=None, host_dump=None, html=None, overwrite=False)
    assert run(Over(Result(Outcome.REFUSED, "it was refused")), outputs) == 4
    assert capfd.readouterr().err == "diagnosis: it was old\nerror: it was refused\n"
