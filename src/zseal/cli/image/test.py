"""``zseal image test``: show for which host keys an image is sealed, as ``pvimg test`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from zseal.cli.hostkey import options
from zseal.cli.messages import Messages, Quiet, Verbose
from zseal.errors import UsageError
from zseal.formats.key_hashes import KEY_HASHES


class TestCommand(TyperCommand):
    """Lets ``--key-hashes`` stand alone: a value follows only after an equals sign."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # typer's own Context
        """Give ``--key-hashes`` its default value."""
        end = args.index("--") if "--" in args else len(args)
        filled = [f"--key-hashes={KEY_HASHES}" if arg == "--key-hashes" else arg for arg in args[:end]]
        return super().parse_args(ctx, filled + args[end:])


def test(
    image: Annotated[Path, typer.Argument(metavar="INPUT", help="Image or SE header.")],
    host_key_document: Annotated[
        list[str] | None,
        typer.Option("-k", "--host-key-document", metavar="FILE", help="Host-key document (repeatable); not verified."),
    ] = None,
    key_hashes: Annotated[
        list[Path] | None,
        typer.Option(
            "--key-hashes",
            metavar="[=FILE]",
            help=f"A machine's host key hashes, as Linux lists them (default: {KEY_HASHES}).",
        ),
    ] = None,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
) -> None:
    """Show which of the given host keys can open an image. Exit codes: 0 at least one can, 1 none can."""
    messages = Messages(verbose=verbose, quiet=quiet)
    documents = options.split_files(host_key_document)
    if bool(documents) == bool(key_hashes):
        raise UsageError("give either host-key documents with -k or --key-hashes")
    if key_hashes and len(key_hashes) > 1:
        raise UsageError("--key-hashes can be given only once")
    from zseal.hostkeys.document import load_host_key_documents
    from zseal.image.describe import match_host_key
    from zseal.image.keytest import load_key_hashes
    from zseal.image.read import read_image

    with messages.causes():
        header = read_image(image).header
        if key_hashes:
            hashes = load_key_hashes(key_hashes[0])
            matches = [match_host_key(header, listed.phkh, f"{key_hashes[0]}: {listed.name}") for listed in hashes]
        else:
            matches = [
                match_host_key(header, item.key_hash, item.source) for item in load_host_key_documents(documents)
            ]
    for match in matches:
        verdict = "no key slot" if match.slot is None else f"key slot {match.slot}"
        if not quiet:
            typer.echo(f"{match.source}: {verdict} ({match.phkh.hex()})")
    if all(match.slot is None for match in matches):
        messages.note(f"{image}: none of these host keys can open it")
        raise typer.Exit(1)
