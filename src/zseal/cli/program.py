"""Runs a command line and ends the process: every failure becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from zseal.cli.signals import Signalled, signals_as_exceptions
from zseal.cli.wording import for_command_line
from zseal.coredumps import forbid_core_dumps
from zseal.errors import ZsealError


class Program(Protocol):
    """A command line's command, as typer makes it: takes the arguments and returns the exit code, if any."""

    def __call__(self, arguments: list[str], /, *, prog_name: str, standalone_mode: bool) -> object:
        """Run the command with ``arguments``."""


def run_program(build: Callable[[], Program], arguments: Sequence[str], name: str) -> NoReturn:
    """Run what ``build`` returns as the program ``name`` and exit with its code.

    0 is success, 1 a failure, 2 wrong usage, 128 plus a signal's number the end by that signal. Some commands document
    more.
    """
    try:
        with signals_as_exceptions():
            code = _run(build, arguments, name)
    except Signalled as signalled:
        tell(f"error: {signalled}")
        code = signalled.exit_code
    sys.exit(code)


def tell(text: str) -> None:
    """Print a line on stderr. If the terminal was closed, the line is dropped."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # Python writes the rest at exit


def one_line(text: str) -> str:
    """Escape characters that are not printable: file names may contain newlines."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _run(build: Callable[[], Program], arguments: Sequence[str], name: str) -> int:
    """Run it, report what went wrong, and return the exit code."""
    wrong_usage, aborted = _errors_of_typer()
    _open_standard_descriptors()
    _write_what_can_be_written()
    try:
        forbid_core_dumps()
        code = build()(list(arguments), prog_name=name, standalone_mode=False)
        sys.stdout.flush()  # the last moment to notice that its reader is gone
    except SystemExit as ended:
        # typer ends the program with 1 when a reader is gone
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return _broken_pipe()
    except wrong_usage as error:
        tell(_wrong_usage(error))
        return 2
    except ZsealError as error:
        tell(f"error: {one_line(for_command_line(str(error)))}")
        return error.exit_code
    except aborted:
        tell("error: interrupted")
        return 130
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        # only the code that opened the file knows what it is; here its name has to suffice
        where = f"{error.filename}: " if error.filename else ""
        tell(f"error: {one_line(where)}{error.strerror or type(error).__name__}")
        return 1
    return code if isinstance(code, int) else 0


def _broken_pipe() -> int:
    """Return the exit code when the reader of the output is gone: as for other signals, because 1 is a verdict."""
    # nothing more can be printed, and Python's own flush at exit must not fail either
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _errors_of_typer() -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """Return what typer raises for wrong usage and for an interruption; nothing where a guest has only Python."""
    try:
        import typer  # which takes long enough for a signal to arrive meanwhile
    except ImportError:
        return (), ()
    # typer parses with a library of its own and exports only this error of it, which derives from that for wrong usage
    return (typer.BadParameter.__mro__[1],), (typer.Abort,)


def _open_standard_descriptors() -> None:
    """Open /dev/null in place of a standard stream that a daemon or cron closed.

    Otherwise the next file to be opened gets its number, and a program that is started takes that file for its stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    # Python has no objects for streams that were closed when it started
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _write_what_can_be_written() -> None:
    """Print question marks for characters that the terminal's encoding lacks, instead of raising an exception."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _wrong_usage(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    if message.startswith("Usage:"):
        return message  # the help of a group that was called without a command
    message = " ".join(message.split()).rstrip(".").replace(": Value error, ", ": ")  # typer's prefix
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    return f"error: {message[:1].lower()}{message[1:]}{hint}"
