"""What a command prints on stderr, as much of it as the user wants, and progress bars on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from zseal.cli.wording import for_command_line
from zseal.errors import UsageError, ZsealError

Verbose = Annotated[
    int,
    typer.Option("-v", "--verbose", count=True, show_default=False, help="Print details, and the causes of an error."),
]
Quiet = Annotated[int, typer.Option("-q", "--quiet", count=True, show_default=False, help="Print errors only.")]


class Messages:
    """Notes go to stderr unless ``quiet``; ``verbose`` adds details and an error's causes."""

    def __init__(self, *, verbose: int = 0, quiet: int = 0) -> None:
        """Raise UsageError if both are given."""
        if verbose and quiet:
            raise UsageError("--verbose and --quiet exclude each other")
        self._verbose, self._quiet = bool(verbose), bool(quiet)

    def note(self, text: str) -> None:
        """Print what was done."""
        if not self._quiet:
            typer.echo(text, err=True)

    def warning(self, text: str) -> None:
        """Print what the user may not have wanted."""
        self.note(f"warning: {text}")

    def detail(self, text: str) -> None:
        """Print a detail, if the user asked for details."""
        if self._verbose:
            typer.echo(text, err=True)

    @contextlib.contextmanager
    def causes(self) -> Iterator[None]:
        """Print an error that ends the block, together with its causes if the user asked for details."""
        try:
            yield
        except ZsealError as error:
            if not self._verbose or error.__cause__ is None:
                raise
            typer.echo(f"error: {for_command_line(str(error))}", err=True)
            cause: BaseException | None = error.__cause__
            while cause is not None:
                typer.echo(f"caused by: {for_command_line(str(cause)) or type(cause).__name__}", err=True)
                cause = cause.__cause__
            raise typer.Exit(error.exit_code) from error

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int | None], None] | None]:
        """Yield a function to call with the bytes done and the total, or None if stderr is not a terminal."""
        if self._quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
