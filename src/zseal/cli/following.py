"""Follows a run on the command line: its console, its outputs and its result."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zseal.cli.program import one_line, tell
from zseal.cli.signals import Signalled, ignore_signals_from_now, signals_deferred
from zseal.cli.wording import for_command_line
from zseal.errors import UsageError, ZsealError

if TYPE_CHECKING:
    from zseal.guest.console_server import ConsoleServer
    from zseal.guest.guest import Guest
    from zseal.guest.outcome import Result


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The files to write about a run once it is over."""

    report: Path | None
    host_dump: Path | None
    html: Path | None
    overwrite: bool

    def check(self) -> None:
        """Raise ZsealError if two outputs are one file or one cannot be written, before anything starts."""
        from zseal.files import check_output

        wanted = {"--report": self.report, "--host-dump": self.host_dump, "--html": self.html}
        given = {option: path for option, path in wanted.items() if path is not None}
        for (one, path), (other, same) in itertools.combinations(given.items(), 2):
            if os.path.realpath(path) == os.path.realpath(same):
                raise UsageError(f"{one} and {other} name the same file", where=str(same))
        for path in given.values():
            check_output(path, overwrite=self.overwrite)

    def write(self, guest: Guest) -> list[ZsealError | Signalled]:
        """Write each of them even if others fail; ``guest`` has ended and is not closed yet.

        Returns the failures. A signal ends the output that is being written.
        """
        failures: list[ZsealError | Signalled] = []
        for path, write in (
            (self.report, self._write_report),
            (self.host_dump, self._write_host_dump),
            (self.html, self._write_html),
        ):
            if path is not None:
                try:
                    write(guest, path)
                except (ZsealError, Signalled) as error:
                    failures.append(error)
        return failures

    def _write_report(self, guest: Guest, path: Path) -> None:
        self._write_text(path, json.dumps(guest.report, indent=2) + "\n")

    def _write_host_dump(self, guest: Guest, path: Path) -> None:
        guest.host.dump(path, overwrite=self.overwrite)

    def _write_html(self, guest: Guest, path: Path) -> None:
        from zseal.guest.watch.html import render_html

        self._write_text(path, render_html(guest.record))

    def _write_text(self, path: Path, text: str) -> None:
        from zseal.files import write_atomic

        write_atomic(path, text.encode(), overwrite=self.overwrite, mode=0o644)


def follow(
    guest: Guest,
    outputs: Outputs,
    *,
    watch: bool,
    keyboard: bool = False,
    serve: Callable[[Guest], ConsoleServer] | None = None,
) -> int:
    """Run ``guest``, write the outputs, report its result and diagnoses, and return the exit code.

    Its console goes to stdout unless ``serve`` opens another place for it; ``keyboard`` passes stdin to it. The exit
    code is the guest's own, unless that is 0 and an output cannot be written.
    """
    stream = _stream if serve is None else _wait
    show = functools.partial(_stream_and_show, stream=stream) if watch else stream
    with guest, contextlib.ExitStack() as consoles:

        def connect_and_show() -> None:
            with signals_deferred():  # a half connected console would not be disconnected
                consoles.enter_context(_console(guest, keyboard=keyboard, serve=serve))
            show(guest)

        result = _until_end(guest, connect_and_show)
        failures = outputs.write(guest)
        ignore_signals_from_now()
    for notice in guest.notices:
        tell(f"note: {notice}")
    for diagnosis in guest.diagnoses:
        tell(f"diagnosis: {diagnosis}")
    message = for_command_line(result.message)
    tell(message if result.exit_code == 0 else f"error: {message}")
    for failure in failures:
        tell(f"error: {one_line(for_command_line(str(failure)))}")
    return result.exit_code or next((failure.exit_code for failure in failures), 0)


@contextlib.contextmanager
def _console(guest: Guest, *, keyboard: bool, serve: Callable[[Guest], ConsoleServer] | None) -> Iterator[None]:
    """Connect the guest's console to the keyboard, or to a server."""
    from zseal.cli.keyboard import Keyboard, RawTerminal
    from zseal.guest.outcome import Outcome, Result

    if keyboard:
        stdin = sys.stdin.fileno()
        if os.isatty(stdin):
            print("Console of the guest; Ctrl-] ends it.", file=sys.stderr)
        leave = functools.partial(guest.stop, Result(Outcome.STOPPED, "ended at its console"))
        with RawTerminal(stdin), Keyboard(stdin, guest.write_console, leave):
            yield
    elif serve is not None:
        with serve(guest) as server:
            print(f"Console of the guest: {server.address}", file=sys.stderr)
            yield
    else:
        yield


def _until_end(guest: Guest, follow: Callable[[], None]) -> Result:
    """Follow the guest until it ends, end it if a signal arrives or its console cannot be shown; return its result."""
    from zseal.guest.outcome import Outcome, Result

    try:
        try:
            follow()
        except OSError as error:
            guest.stop(Result(Outcome.STOPPED, _why_not_shown(error), code=1))
        result = guest.wait()
    except Signalled as signalled:
        guest.stop(Result(Outcome.STOPPED, str(signalled), code=signalled.exit_code))
        result = guest.wait()
    if result is None:
        raise AssertionError("waiting without a limit ended without a result")
    return result


def _why_not_shown(error: OSError) -> str:
    if error.errno in (errno.EPIPE, errno.EIO):  # EIO: the terminal was closed
        return "the reader of the guest's console is gone, so the guest was ended"
    return f"the guest's console cannot be shown, so the guest was ended: {error.strerror or type(error).__name__}"


def _stream(guest: Guest) -> None:
    from zseal.guest.events import ConsoleOutput

    stdout = sys.stdout.fileno()
    for event in guest.events():
        if isinstance(event, ConsoleOutput):
            data = memoryview(event.data)
            while data:
                data = data[os.write(stdout, data) :]


def _wait(guest: Guest) -> None:
    """Wait for the guest to end; its console is elsewhere."""
    guest.wait()


def _stream_and_show(guest: Guest, stream: Callable[[Guest], None]) -> None:
    """Show the guest live; if stdout is not a terminal, ``stream`` also gets its console."""
    from zseal.cli.guest.watch import watch
    from zseal.guest.watch.live import CONSOLE_LINES

    failed: list[OSError] = []

    def pass_on() -> None:
        try:
            stream(guest)
        except OSError as error:  # the reader is gone: that ends the run, as it does without the view
            failed.append(error)

    console = None
    if not sys.stdout.isatty():
        console = threading.Thread(target=pass_on, daemon=True)
        console.start()
    watch(
        lambda: guest.observe(lines=CONSOLE_LINES),
        lambda seconds: guest.wait(seconds) is None and not failed,
        stream=sys.stderr,
    )
    if failed:
        raise failed[0]
    if console is not None:
        console.join()
