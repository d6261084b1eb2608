"""``genprotimg``: ``zseal image create`` under the name of the tool it replaces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zseal import __version__
from zseal.cli.program import run_program

if TYPE_CHECKING:
    import typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: this process's) and exit with its code: 0, 1, or 2 for usage."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["--version"]:
        print(f"genprotimg version {__version__} (zseal)")
        return
    run_program(_build_app, args, "genprotimg")


def _build_app() -> typer.Typer:
    import typer

    from zseal.cli.image.create import COMMAND_SETTINGS, create

    app = typer.Typer(name="genprotimg", rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.command(**COMMAND_SETTINGS)(create)
    return app
