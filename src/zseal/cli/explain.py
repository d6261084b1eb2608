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


def _read_stdin() -> str:
    import sys

    from zseal.errors import InputError
    from zseal.explanations.questions import MAX_LINES, MAX_TEXT

    limit = MAX_LINES * MAX_TEXT // 8
    text = sys.stdin.buffer.read(limit + 1)
    if len(text) > limit:
        raise InputError(f"more than {limit} bytes", where="stdin", hint="give only the lines in question")
    return text.decode("utf-8", "replace")


def command(
    codes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE",
            help="A number (0x0108, or 0x0108 0x0005 for rc and rrc), 'pgm 3d', 'exit 4', or a message; - reads them "
            "from stdin.",
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
    arguments = [_read_stdin()] if codes == ["-"] else codes
    explanations = explaining.explain(arguments, command=narrow)
    known = any(explanation.readings for explanation in explanations)
    if form is Format.JSON:
        typer.echo(explaining.to_json(explanations))
    elif known:
        width = max(40, min(shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns, _TEXT_WIDTH))
        typer.echo(explaining.to_text(explanations, width=width))
    if not known:
        shown = explanations[0].question[:80] if explanations else " ".join(arguments)[:80]
        more = f" and {len(explanations) - 1} more lines" if len(explanations) > 1 else ""
        suffix = f" for {narrow}" if narrow else ""
        raise InputError(
            f"nothing is known about {shown!r}{more}{suffix}", hint="zseal explain --list shows what is known"
        )
