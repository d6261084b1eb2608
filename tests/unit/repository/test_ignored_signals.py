"""The tests pass where signals are ignored: under nohup, and as a script's background job."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import REPOSITORY

TESTS = REPOSITORY / "tests"
IGNORING = ["sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh", sys.executable]

# Prints the signals that a program started by a test ignores, and goes on after being hung up itself.
PROGRAM = """
import os, runpy, signal, subprocess, sys
runpy.run_path(sys.argv[1])
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    os.kill(os.getpid(), number)
subprocess.run(["grep", "SigIgn", "/proc/self/status"], check=True)
"""


def test_programs_that_tests_start_ignore_no_signal_and_the_tests_go_on_after_one() -> None:
    command = [*IGNORING, "-c", PROGRAM, str(TESTS / "conftest.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ignored = int(done.stdout.split()[1], 16)
    assert ignored & 0b111 == 0  # SIGHUP, SIGINT, SIGQUIT are 1, 2, 3


def test_tests_that_send_signals_pass_where_these_are_ignored() -> None:
    chosen = [TESTS / "unit/cli/test_signals.py", TESTS / "unit/cli/test_run_terminated.py"]
    command = [*IGNORING, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, chosen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout
