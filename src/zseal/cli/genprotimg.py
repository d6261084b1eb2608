"""``genprotimg``: ``zseal image create`` under the name of the tool it replaces."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zseal.cli.program import Program, run_program
from zseal.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: this process's) and exit with its code: 0, 1, or 2 for usage."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["--version"]:
        print(f"genprotimg version {__version__} (zseal)")
        return
    run_program(_build, args, "genprotimg")


def _build() -> Program:
    import typer

    from zseal.cli.help import command_of
    from zseal.cli.image.create import create

    app = typer.Typer(name="genprotimg", rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.command()(create)
    return command_of(app)
