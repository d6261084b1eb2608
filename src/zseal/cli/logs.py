"""``--verbose`` and ``--log-level`` of every command: zseal's log goes to stderr."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
import typer.main
from typer.core import TyperOption

from zseal.cli.log_stream import Level, level_of, log_on_stderr
from zseal.cli.program import Program

if TYPE_CHECKING:
    import logging  # it takes time, so import it only if the user asks for the log


class Command(Protocol):
    """A command or a group of commands, of which typer does not export the types."""

    params: list[Any]

    def __call__(self, arguments: list[str], /, *, prog_name: str, standalone_mode: bool) -> Any:
        """Run the command with ``arguments``."""


def with_log_options(command: Command) -> Program:
    """Return ``command`` so that it, and all commands below it, take the options; the log ends with the command."""

    def run(arguments: list[str], /, *, prog_name: str, standalone_mode: bool) -> object:
        with contextlib.ExitStack() as at_end:
            _add_options(command, _Verbosity(at_end))
            return command(arguments, prog_name=prog_name, standalone_mode=standalone_mode)

    return run


class _Verbosity:
    """The log options of one command line, which may be before the command and after it."""

    def __init__(self, at_end: contextlib.ExitStack) -> None:
        self._at_end = at_end
        self._logger: logging.Logger | None = None
        self._count = 0
        self._level: Level | None = None

    def add(self, _context: object, _option: object, count: int) -> int:
        """Take note of ``count`` times ``-v``."""
        self._count += count
        self._apply()
        return count

    def choose(self, _context: object, _option: object, level: str | None) -> str | None:
        """Take note of ``--log-level``, which counts more than any ``-v``."""
        self._level = Level(level) if level else self._level
        self._apply()
        return level

    def _apply(self) -> None:
        level = level_of(self._count, self._level)
        if level is not None:
            self._logger = self._logger or self._at_end.enter_context(log_on_stderr())
            self._logger.setLevel(level.name)


def _options(
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            show_default=False,
            expose_value=False,
            help="Log the steps on stderr; -vv logs details.",
        ),
    ] = 0,
    log_level: Annotated[
        Level | None,
        typer.Option("--log-level", expose_value=False, help="Log messages of at least this level on stderr."),
    ] = None,
) -> None:
    """Describe the options; a command's function does not see them."""


def _add_options(command: Command, verbosity: _Verbosity) -> None:
    app = typer.Typer(add_completion=False)
    app.command(add_help_option=False)(_options)
    own = {name for option in command.params if isinstance(option, TyperOption) for name in option.opts}
    command.params.extend(option for option in typer.main.get_command(app).params if own.isdisjoint(option.opts))
    for option in command.params:
        if isinstance(option, TyperOption):
            if "--verbose" in option.opts:
                option.callback = verbosity.add  # a command with an option of this name keeps its own
            elif "--log-level" in option.opts:
                option.callback = verbosity.choose
    for child in getattr(command, "commands", {}).values():
        _add_options(child, verbosity)
