"""``zseal image diff``: show how two images differ."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zseal.image.diff import Comparison


class Format(enum.StrEnum):
    """How differences are printed."""

    TEXT = "text"
    JSON = "json"


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="Image or SE header.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Second image or SE header.")],
    machine: Annotated[
        list[Path] | None,
        typer.Option("--machine", metavar="DIR", help="Software machine that can open the images (repeatable)."),
    ] = None,
    hdr_key: Annotated[
        list[Path] | None,
        typer.Option("--hdr-key", metavar="FILE", help="Header protection key of one or both images (repeatable)."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if the images differ.")] = False,
) -> None:
    """Show how two images differ. With keys that open both images, their contents are compared too; no key is shown."""
    from zseal.formats.se_header import HEADER_KEY_SIZE
    from zseal.hostkeys.machine import Machine
    from zseal.image.diff import compare_images, key_opener, machine_opener
    from zseal.image.keys import load_key

    openers = [machine_opener(Machine.load(path).keys) for path in machine or ()]
    openers += [key_opener(load_key(path, HEADER_KEY_SIZE, "header key")) for path in hdr_key or ()]
    comparison = compare_images(first, second, openers=openers)
    if form is Format.JSON:
        typer.echo(json.dumps(comparison.json(), indent=2))
    else:
        _print(comparison, first, second, keys=bool(openers))
    if exit_code and comparison.differences:
        raise typer.Exit(1)


def _print(comparison: Comparison, first: Path, second: Path, *, keys: bool) -> None:
    for difference in comparison.differences:
        if difference.every_build:
            continue
        if difference.first == difference.second:
            typer.echo(f"{difference.what}: {difference.first}")
        else:
            typer.echo(f"{difference.what}\n  A  {difference.first}\n  B  {difference.second}")
    if drawn := [difference.what for difference in comparison.differences if difference.every_build]:
        typer.echo(f"as in any two builds: {', '.join(drawn)}")
    if comparison.rebuilt and comparison.differences:
        typer.echo("same inputs, sealed again")
    if not comparison.differences:
        typer.echo("no difference" + ("" if all(comparison.opened) else " that can be seen without keys"))
    for path, opened in zip((first, second), comparison.opened, strict=True):
        if keys and not opened:
            typer.echo(f"note: none of the keys opens {path}", err=True)
    if not keys:
        typer.echo("note: to compare the contents, give --machine or --hdr-key", err=True)
