"""How help looks in every program: ``-h`` works everywhere, and arguments show no Python types and no braces."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

import typer.main
from typer.core import TyperArgument, TyperOption

from zseal.cli.logs import with_log_options
from zseal.cli.parameters import Argument, Option
from zseal.cli.program import Program


class Command(Protocol):
    """A command or a group of commands, of which typer does not export the types."""

    @property
    def context_settings(self) -> MutableMapping[str, Any]:
        """Return the settings that the commands below it inherit."""

    @property
    def params(self) -> Sequence[object]:
        """Return the command's options and arguments."""


def command_of(app: typer.Typer) -> Program:
    """Return the command that ``app`` describes, with the help described above and the options for the log."""
    command = typer.main.get_command(app)
    improve_help(command)
    return with_log_options(command)


def improve_help(command: Command) -> None:
    """Give ``command`` and the commands below it the help described above."""
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = Argument
        elif isinstance(parameter, TyperOption):
            parameter.__class__ = Option
    for child in getattr(command, "commands", {}).values():
        improve_help(child)
