"""``zseal inspect``: what a file is, and which command to use next."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from zseal.cli.wording import for_command_line

COMMAND_SETTINGS = {"no_args_is_help": True}


class Format(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files and directories to inspect.")],
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
) -> None:
    """Recognise files and directories around protected guests. Exit code 1: one is unknown or not readable."""
    from zseal.errors import InputError
    from zseal.inspection import UNKNOWN, inspect, to_json, to_text

    found = []
    complete = True
    for path in files:
        try:
            description = inspect(path)
        except InputError as error:
            typer.echo(f"error: {for_command_line(str(error))}", err=True)
            complete = False
            continue
        complete = complete and description.kind != UNKNOWN
        found.append((path, description))
        if form is Format.TEXT:
            typer.echo(to_text(path, description))
    if form is Format.JSON:
        typer.echo(to_json(found))
    if not complete:
        raise typer.Exit(1)
