"""What every command line is spared: closed streams, names that break a line, encodings that miss a character."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LOOK = """
import os, sys
from zseal.cli.program import run_program
def look(*arguments, **options):
    print("said", sys.stdin.read())
    print("warned", file=sys.stderr)
    first = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    os.write(first, b"%d" % first)
run_program(lambda: look, [], "look")
"""


def closer(numbers: tuple[int, ...]) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_program_without_standard_streams_works(closed: tuple[int, ...], tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=closer(closed),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(file.read_text()) > 2, "a file that is opened gets no standard stream's number"
    assert done.stdout == (b"" if 1 in closed else b"said \n")
    assert done.stderr == (b"" if 2 in closed else b"warned\n")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "zseal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


def test_a_name_with_a_newline_does_not_break_the_line(tmp_path: Path) -> None:
    done = run("image", "info", tmp_path / "two\nlines")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"two\\nlines" in done.stderr


def test_what_an_encoding_does_not_have_is_replaced(tmp_path: Path) -> None:
    done = run("inspect", tmp_path / "stra\N{LATIN SMALL LETTER SHARP S}e", PYTHONIOENCODING="ascii")
    assert b"Traceback" not in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", LOOK.replace('"said"', '"\\u2026"'), str(tmp_path / "file")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"? \n")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["image", "create", "-i", "", "-k", "x", "--no-verify", "-o", "out"], "--kernel"),
        (["image", "create", "-i", "k", "-r", "", "-k", "x", "--no-verify", "-o", "out"], "--ramdisk"),
        (["image", "create", "-i", "k", "-k", "x", "--no-verify", "-o", ""], "--output"),
        (["image", "info", ""], "INPUT"),
        (["image", "verify", "", "--machine", "m"], "IMAGE"),
        (["image", "verify", "x", "--machine", ""], "--machine"),
        (["run", "", "--machine", "m"], "IMAGE"),
        (["run", "x", "--machine", "m", "--report", ""], "--report"),
        (["machine", "create", ""], "DIR"),
        (["inspect", "x", ""], "FILE"),
        (["host", "check", "--root", ""], "--root"),
    ],
)
def test_an_empty_file_name_is_wrong_usage(arguments: list[str], name: str) -> None:
    """The name that a shell variable has that is not set; Python takes it for the current directory."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"error: {name}: the file name is empty\n"


@pytest.mark.parametrize("option", [["-k", ""], ["-k", "a,,b", "-C", ""], ["-k", "a", "--crl", ""]])
def test_an_empty_file_name_among_many_is_wrong_usage(option: list[str]) -> None:
    done = run("hostkey", "verify", *option, "-C", "x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: a file name is empty\n"


@pytest.mark.parametrize(
    "arguments", [["explain", "--list"], ["domain", "rules"], ["image", "create", "--help"], ["inspect", *["."] * 2000]]
)
def test_a_reader_that_is_gone_gives_no_verdict(arguments: list[str]) -> None:
    """Not 1, which would mean that an image was refused: 141, as a program that SIGPIPE ends."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "zseal", *arguments], stdout=output, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")
