"""``zseal image``: create, describe, test, verify and compare Secure Execution boot images."""

from __future__ import annotations

import typer

from zseal.cli.image_create import COMMAND_SETTINGS, create

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.command("create", **COMMAND_SETTINGS)(create)
