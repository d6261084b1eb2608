"""Command lines that Python's standard library parses, for programs that also run inside guests.

Options, messages and exit codes are like those of all other commands. Only the parser differs, so that a guest needs
only Python.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from zseal.cli.log_stream import Level, level_of, log_on_stderr
from zseal.errors import UsageError

_T = TypeVar("_T")
Run = Callable[[argparse.Namespace], "int | None"]


class _Formatter(argparse.HelpFormatter):
    """Help that begins like that of all other commands."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        """Begin with a capital."""
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, add_help=False, formatter_class=_Formatter)
        self.add_argument("-h", "--help", action="help", help="Show this message and exit.")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing several lines."""
        raise UsageError(message, hint=f"see {self.prog} --help")


class PlainProgram:
    """A group of subcommands (:class:`zseal.cli.program.Program`).

    ``usage_code`` is the exit code for wrong usage: some tools keep 2 for an answer.
    """

    def __init__(self, summary: str, *, usage_code: int = 2) -> None:
        self._summary = summary
        self._usage_code = usage_code
        self._commands: list[tuple[str, Sequence[str], str, Callable[[argparse.ArgumentParser], None], Run]] = []

    def command(
        self,
        name: str,
        summary: str,
        options: Callable[[argparse.ArgumentParser], None],
        run: Run,
        *,
        aliases: Sequence[str] = (),
    ) -> None:
        """Add a subcommand: ``options`` declares what it takes, ``run`` does it and may return an exit code."""
        self._commands.append((name, aliases, summary, options, run))

    def parser(self, prog: str) -> argparse.ArgumentParser:
        """Return the parser of the whole program."""
        parser = _Parser(prog=prog, description=self._summary)
        self._common(parser)
        group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
        for name, aliases, summary, options, run in self._commands:
            child = group.add_parser(name, aliases=list(aliases), help=summary, description=summary)
            self._common(child)
            options(child)
            child.set_defaults(run=run)
        return parser

    @staticmethod
    def _common(parser: argparse.ArgumentParser) -> None:
        quiet, verbose = "Print errors only.", "Log the steps on stderr; -vv logs details."
        parser.add_argument("-v", "--verbose", action="count", default=argparse.SUPPRESS, help=verbose)
        parser.add_argument(
            "--log-level",
            type=Level,
            choices=tuple(Level),
            metavar="|".join(Level),
            default=argparse.SUPPRESS,
            help="Log on stderr what has at least this level.",
        )
        parser.add_argument("-q", "--quiet", action="count", default=argparse.SUPPRESS, help=quiet)

    def __call__(self, arguments: list[str], /, *, prog_name: str, standalone_mode: bool) -> object:
        """Parse ``arguments`` and run the subcommand."""
        try:
            chosen, late = self.parser(prog_name).parse_known_args(arguments)
            # argparse takes all that goes by its position from one place; what comes after an option is left over
            if late and (not hasattr(chosen, "positional") or any(each.startswith("-") for each in late)):
                raise UsageError(f"unrecognised: {' '.join(late)}", hint=f"see {prog_name} --help")
            if late:
                chosen.positional += late
            chosen.quiet = getattr(chosen, "quiet", 0)
            level = level_of(getattr(chosen, "verbose", 0), getattr(chosen, "log_level", None))
            with contextlib.ExitStack() as at_end:
                if level is not None:
                    at_end.enter_context(log_on_stderr()).setLevel(level.name)
                return chosen.run(chosen)
        except UsageError as error:
            error.exit_code = self._usage_code
            raise


def one_of(option: _T | None, positional: _T | None, name: str) -> _T:
    """Return the value given as an option or by its position; raises UsageError for both and for neither."""
    if option is not None and positional is not None:
        raise UsageError(f"{name} is given twice, as an option and by its position")
    value = option if option is not None else positional
    if value is None:
        raise UsageError(f"{name} is missing")
    return value
