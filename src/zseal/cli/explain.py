"""``zseal explain``: what a code or message means, where it comes from, what usually causes it, and what to do."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

COMMAND_SETTINGS = {"no_args_is_help": True}

_TEXT_WIDTH = 110


class Format(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


_LONGEST_LOG = 16 << 20


def _read_log(arguments: list[str]) -> str | None:
    """Return the text of the file or of stdin that ``arguments`` name; None if they are codes or a message."""
    import sys
    from pathlib import Path

    from zseal.errors import InputError
    from zseal.explanations.questions import parse_number
    from zseal.files import read_limited

    if arguments == ["-"]:
        text = sys.stdin.buffer.read(_LONGEST_LOG + 1)
        if len(text) > _LONGEST_LOG:
            raise InputError(f"more than {_LONGEST_LOG >> 20} MiB", where="stdin", hint="give the part in question")
        return text.decode("utf-8", "replace")
    if len(arguments) != 1 or parse_number(arguments[0]) is not None or "\0" in arguments[0]:
        return None
    path = Path(arguments[0])
    if path.suffix not in (".log", ".txt") and not path.is_file():
        return None
    return read_limited(path, _LONGEST_LOG, "log").decode("utf-8", "replace")


def command(
    codes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE",
            help="A number (0x0108, or 0x0108 0x0005 for rc and rrc), 'pgm 3d', 'exit 4', a message, or the file of a "
            "log; - reads lines from stdin.",
        ),
    ] = None,
    narrow: Annotated[
        str | None,
        typer.Option(
            "--command", metavar="NAME", help="The call that returned the code: SSCP, VERIFY, DIAG308, KVM_PV_UNPACK…"
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    everything: Annotated[bool, typer.Option("--list", help="List everything that zseal can explain.")] = False,
) -> None:
    """Explain codes and messages of the ultravisor, KVM, QEMU, libvirt, kernels and bootloaders."""
    import shutil

    from zseal import explanations as explaining
    from zseal.errors import InputError, UsageError

    if everything:
        if codes or narrow:
            raise UsageError("--list takes no codes and no --command")
        readings = explaining.all_readings()
        typer.echo(explaining.list_to_json(readings) if form is Format.JSON else explaining.list_to_text(readings))
        return
    if not codes:
        raise UsageError("nothing to explain", hint="give a code, a message, or --list")
    log = _read_log(codes)
    if log is None:
        explanations = explaining.explain(codes, command=narrow)
    elif len(log.strip().splitlines()) == 1:
        explanations = explaining.explain([log], command=narrow)
    else:
        explanations = explaining.explain_log(log, command=narrow)
    known = any(explanation.readings for explanation in explanations)
    if form is Format.JSON:
        typer.echo(explaining.to_json(explanations))
    elif known:
        width = max(40, min(shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns, _TEXT_WIDTH))
        typer.echo(explaining.to_text(explanations, width=width))
    if not known:
        shown = explanations[0].question[:80] if explanations else " ".join(codes)[:80]
        more = f" and {len(explanations) - 1} more lines" if len(explanations) > 1 else ""
        suffix = f" for {narrow}" if narrow else ""
        raise InputError(
            f"nothing is known about {shown!r}{more}{suffix}", hint="zseal explain --list shows what is known"
        )
