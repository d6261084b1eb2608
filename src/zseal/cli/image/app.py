"""``zseal image``: create, describe, test, verify and compare Secure Execution boot images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zseal.cli.image.create import create
from zseal.cli.image.diff import diff
from zseal.cli.image.extract import ImageArgument, extract_header
from zseal.cli.image.info import info
from zseal.cli.image.test import TestCommand, test
from zseal.cli.image.values import reference_values
from zseal.cli.messages import Messages, Quiet, Verbose

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.command("create", short_help="Seal kernel, ramdisk and command line into an image.")(create)
app.command("info")(info)
app.command("test", cls=TestCommand, short_help="Show which host keys can open an image.")(test)
app.command("diff")(diff)
app.command("extract-header", short_help="Write the SE header of an image to a file.")(extract_header)
app.command("reference-values", short_help="Print what an attestation policy compares.")(reference_values)


@app.command("verify", short_help="Check everything that happens at boot; extract parts.")
def verify(
    image: ImageArgument,
    machine: Annotated[Path, typer.Option("--machine", metavar="DIR", help="Software machine to boot it.")],
    extract: Annotated[
        Path | None,
        typer.Option("--extract", metavar="OUTDIR", help="Write kernel, ramdisk and parmfile into this directory."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files in OUTDIR.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
) -> None:
    """Do everything that the machine's ultravisor would do at boot, without booting. Exit codes: 0 the image would
    start, 1 it is refused.
    """
    messages = Messages(verbose=verbose, quiet=quiet)
    from zseal.hostkeys.machine import Machine
    from zseal.image.verify import verify_image

    with messages.causes():
        opened = Machine.load(machine)
        with messages.progress("verifying") as progress:
            result = verify_image(
                image, opened.keys, model=opened.model, extract=extract, overwrite=overwrite, progress=progress
            )
    for warning in result.warnings:
        messages.warning(warning)
    if quiet:
        return
    accepted = result.accepted
    which = "backup host key" if result.backup_key else "host key"
    typer.echo(f"{image}: this machine would start it")
    typer.echo(f"  header      authentic; opened with the {which} {accepted.host_key_hash.hex()}")
    loader = result.image.stage3a or "not known: only a start shows whether it leads to these components"
    typer.echo(f"  bootloader  {loader} (plain, not covered by the header)")
    for part in result.components:
        size = part.size if part.original_size is None else part.original_size
        typer.echo(f"  {part.name:<11} {size:>12} bytes at {part.address:#x}")
    typer.echo(f"  digests     of addresses, tweaks and contents match for {accepted.digests.nep} pages")
    typer.echo(f"  start PSW   {accepted.psw.mask:016x} {accepted.psw.address:016x}")
    for path in result.extracted:
        typer.echo(f"  wrote       {path}")
