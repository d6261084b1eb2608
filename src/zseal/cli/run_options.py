"""The options that ``zseal run`` and ``zseal domain run`` share, and the exit codes that both list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zseal.errors import UsageError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.outcome import SIGNAL_EXIT_CODES, USAGE_EXIT_CODE, Outcome

if TYPE_CHECKING:
    from zseal.guest.console_server import ConsoleServer
    from zseal.guest.guest import Guest

MachineOption: TypeAlias = Annotated[
    Path, typer.Option("--machine", metavar="DIR", help="Software machine to run on; see zseal machine create.")
]
IoPolicyOption: TypeAlias = Annotated[
    IoPolicy,
    typer.Option(
        "--io-policy",
        help="What to do if a device request names an unshared page: stop the guest, only count it, or do not check.",
    ),
]
ReportOption: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a report of the run as JSON.")
]
HostDumpOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--host-dump", metavar="FILE", help="Write what the host sees of guest memory at the end."),
]
HtmlOption: TypeAlias = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained HTML report of the run.")
]
OverwriteOption: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
WatchOption: TypeAlias = Annotated[
    bool, typer.Option("--watch", help="Show phases, pages, calls, devices and console live on stderr.")
]
TimeoutOption: TypeAlias = Annotated[
    float | None, typer.Option("--timeout", metavar="S", min=0.1, help="Stop the guest after this many seconds.")
]


def exit_codes(**other: str) -> str:
    """Return the sentence that lists the exit codes; ``other`` words an outcome differently, by its lower-case name."""
    codes = {outcome.exit_code: other.get(outcome.name.lower(), outcome.summary) for outcome in Outcome}
    codes[USAGE_EXIT_CODE] = "wrong usage"
    listed = [f"{code} {summary}" for code, summary in sorted(codes.items())]
    signals = sorted(SIGNAL_EXIT_CODES)
    names = ", ".join(SIGNAL_EXIT_CODES[code] for code in signals)
    return f"Exit codes: {', '.join(listed)}, {', '.join(map(str, signals))} ended by {names}."


def console_server(
    console: str | None, *, watch: bool, elsewhere: str | None = None
) -> Callable[[Guest], ConsoleServer] | None:
    """Return the server of the guest's console for --console; None if the console is here, or at ``elsewhere``.

    Raises UsageError if console and view need the same terminal.
    """
    if console == "stdio" and watch:
        raise UsageError("--console stdio and --watch need the same terminal", hint="use --console pty")
    if console in (None, "stdio", elsewhere):
        return None
    from zseal.guest.console_server import parse_console

    return parse_console(console)
