"""Signals that end a command are one line and an exit code, whenever they come and how many."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from zseal.cli.program import run_program
from zseal.cli.signals import Signalled, ignore_signals_from_now, signals_as_exceptions, signals_deferred

ENDINGS = [
    (signal.SIGINT, "error: interrupted\n"),
    (signal.SIGTERM, "error: terminated\n"),
    (signal.SIGHUP, "error: hung up\n"),
    (signal.SIGQUIT, "error: quit\n"),
]
NUMBERS = [number for number, _ in ENDINGS]

# A command that sends itself a signal while it runs, and others while it cleans up and at the end of Python.
PROGRAM = """
import atexit, os, signal, sys, typer
from zseal.cli.program import run_program

def send():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(os.getpid(), number)

def command():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        print("it went on")
    finally:
        send()
        print("cleaned up")

def build():
    app = typer.Typer()
    app.command()(command)
    return app

atexit.register(send)
run_program(build, [], "program")
"""

# A command during whose loading the signal comes.
LOADING = """
import os, sys
from zseal.cli.main import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Finder())
main(["guest", "list"])
"""


@pytest.fixture
def actions() -> Iterator[None]:
    """Put the signals' actions back: once one came they are ignored, for the program is at its end."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("number", "message"), ENDINGS)
def test_the_first_signal_ends_a_command_and_others_disturb_nothing(number: int, message: str) -> None:
    done = python(PROGRAM, str(int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned up\n", message)


@pytest.mark.parametrize(("number", "message"), ENDINGS)
@pytest.mark.parametrize("module", ["typer", "zseal.cli.guest.app"])
def test_a_signal_while_a_command_is_loaded_is_one_line(module: str, number: int, message: str) -> None:
    done = python(LOADING, str(int(number)), module)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", message)


def test_what_was_ignored_at_the_start_stays_so() -> None:
    program = f"import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n{PROGRAM}"
    done = python(program, str(int(signal.SIGHUP)))
    assert done.stdout == "it went on\n"
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")  # that is the next one


def test_a_line_that_nobody_can_read_does_not_change_the_exit_code() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no file
        program = PROGRAM.replace('print("cleaned up")', "")
        done = subprocess.run([sys.executable, "-c", program, str(int(signal.SIGHUP))], stderr=full, check=False)
    assert done.returncode == 129


def test_actions_are_put_back_where_no_signal_came() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]

    def build() -> typer.Typer:
        app = typer.Typer()
        app.command()(lambda: None)
        assert [signal.getsignal(number) for number in NUMBERS] != before
        return app

    with pytest.raises(SystemExit) as ended:
        run_program(build, [], "program")
    assert ended.value.code == 0
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.usefixtures("actions")
def test_a_held_signal_comes_behind_the_block() -> None:
    done = []
    with pytest.raises(Signalled, match="terminated") as caught, signals_as_exceptions():
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inside")
        done.append("behind")
    assert done == ["inside"]
    assert caught.value.exit_code == 143


@pytest.mark.usefixtures("actions")
@pytest.mark.parametrize("deferred", [False, True])
def test_a_signal_that_another_error_took_the_place_of_is_still_the_reason(deferred: bool) -> None:
    """C code into which the signal comes does so: an import ended with a TypeError."""
    with pytest.raises(Signalled, match="terminated"), signals_as_exceptions():
        with contextlib.suppress(Signalled), signals_deferred() if deferred else contextlib.nullcontext():
            os.kill(os.getpid(), signal.SIGTERM)
        raise TypeError("expected a message argument")


def test_other_errors_stay_what_they_are_if_no_signal_came() -> None:
    with pytest.raises(TypeError, match="of our own"), signals_as_exceptions():
        raise TypeError("of our own")


@pytest.mark.usefixtures("actions")
def test_a_signal_can_be_too_late() -> None:
    with signals_as_exceptions():
        ignore_signals_from_now()
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("actions")
def test_an_end_that_takes_too_long_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("zseal.cli.signals.time.monotonic", lambda: now)
    with signals_as_exceptions():
        with pytest.raises(Signalled):
            os.kill(os.getpid(), signal.SIGINT)
        now += 5  # QEMU's
        os.kill(os.getpid(), signal.SIGINT)
        now += 60
        with pytest.raises(Signalled):
            os.kill(os.getpid(), signal.SIGINT)
