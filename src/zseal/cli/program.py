"""Runs a command line and ends the process: whatever goes wrong becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from zseal.cli.signals import Signalled, raised
from zseal.errors import ZsealError

if TYPE_CHECKING:
    import typer


def run_program(build: Callable[[], typer.Typer], arguments: Sequence[str], name: str) -> NoReturn:
    """Run what ``build`` returns as the program ``name`` and exit with its code.

    0 is success, 1 a failure, 2 wrong usage, 128 and a number the signal that ended it; some commands document more.
    """
    try:
        with raised():
            code = _run(build, arguments, name)
    except Signalled as signalled:
        tell(f"error: {signalled}")
        code = signalled.exit_code
    sys.exit(code)


def tell(text: str) -> None:
    """Print a line on stderr; where nobody can read it, for the terminal was closed, it goes nowhere."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # Python writes what is left at exit


def one_line(text: str) -> str:
    """Escape what would not show as it is: names of files may have newlines in them."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _run(build: Callable[[], typer.Typer], arguments: Sequence[str], name: str) -> int:
    """Run it, tell what went wrong, and return the exit code."""
    import typer  # which takes so long that a signal may come meanwhile

    # typer parses with a library of its own, of whose errors it exports this one; it derives from that for wrong usage
    wrong_usage: type[Exception] = typer.BadParameter.__mro__[1]
    _open_standard_descriptors()
    _write_what_can_be_written()
    try:
        code = build()(list(arguments), prog_name=name, standalone_mode=False)
    except wrong_usage as error:
        tell(_wrong_usage(error))
        return 2
    except ZsealError as error:
        tell(f"error: {one_line(str(error))}")
        return error.exit_code
    except typer.Abort:
        tell("error: interrupted")
        return 130
    except BrokenPipeError:
        # the reader is gone: nothing more can be said, and Python's own flush at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # whoever opened the file knows best what it is; here the file's name has to do
        where = f"{error.filename}: " if error.filename else ""
        tell(f"error: {one_line(where)}{error.strerror or type(error).__name__}")
        return 1
    return code if isinstance(code, int) else 0


def _open_standard_descriptors() -> None:
    """Put /dev/null where a daemon or cron closed a standard stream.

    Else the next file that is opened gets its number, and a program that is started loses that file to its own stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    # Python has no objects for streams that were closed when it started
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _write_what_can_be_written() -> None:
    """Let characters that the terminal's encoding does not have come out as question marks, not as an exception."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _wrong_usage(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    if message.startswith("Usage:"):
        return message  # the help of a group that was called without a command
    message = " ".join(message.split()).rstrip(".").replace(": Value error, ", ": ")  # as typer begins some
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    return f"error: {message[:1].lower()}{message[1:]}{hint}"
