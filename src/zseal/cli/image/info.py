"""``zseal image info``: describe a header or an image as ``pvimg info`` does, and more."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from zseal.cli.hostkey import options
from zseal.cli.messages import Messages, Quiet, Verbose
from zseal.errors import UsageError, ZsealError

_FORMATS = {
    "text": ("text", "default"),
    "text:default": ("text", "default"),
    "text:full": ("text", "full"),
    "json": ("json", "pretty"),
    "json:default": ("json", "pretty"),
    "json:pretty": ("json", "pretty"),
    "json:minify": ("json", "minify"),
    "json:full": ("json", "full"),
}


def _format(name: str | None) -> tuple[str, str]:
    if name is None:
        name = "text" if sys.stdout.isatty() else "json"
    if name.lower() not in _FORMATS:
        raise UsageError(f"there is no format {name!r}", hint="use one of " + ", ".join(_FORMATS))
    return _FORMATS[name.lower()]


def _print_schema(name: str) -> None:
    from zseal.image.schema import info_schema

    if name.lower() == "json":
        typer.echo(json.dumps(info_schema(), indent=2))
    elif name.lower() == "text":
        typer.echo("The text format has no schema: it may change at any time. Use --format json in programs.")
    else:
        raise UsageError(f"there is no schema for {name!r}", hint="use text or json")


def info(
    image: Annotated[
        Path | None, typer.Argument(metavar="INPUT", help="Image, SE header, or any file that contains an image.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="text, text:full, json (pretty), json:minify, or json:full, which adds what pvimg does not show. "
            "Default: text on a terminal, json elsewhere.",
        ),
    ] = None,
    hdr_key: Annotated[
        Path | None, typer.Option("--hdr-key", metavar="FILE", help="Header protection key, to verify the header with.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", hidden=True)] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Also show the keys in the header (needs --hdr-key).")
    ] = False,
    host_key_document: Annotated[
        list[str] | None,
        typer.Option(
            "-k", "--host-key-document", metavar="FILE", help="Show whether this host key can open it (repeatable)."
        ),
    ] = None,
    check_digests: Annotated[
        bool, typer.Option("--check-digests", help="Compare all components with the header's digests.")
    ] = False,
    print_schema: Annotated[
        str | None,
        typer.Option("--print-schema", metavar="text|json", help="Print the schema of this format and exit."),
    ] = None,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
) -> None:
    """Describe an image or SE header. Without --hdr-key the description is not authenticated."""
    messages = Messages(verbose=verbose, quiet=quiet)
    if print_schema is not None:
        if image or form or hdr_key or key or show_secrets or host_key_document or check_digests:
            raise UsageError("--print-schema excludes all other options")
        _print_schema(print_schema)
        return
    if image is None:
        raise UsageError("give an image or --print-schema")
    if hdr_key and key:
        raise UsageError("--hdr-key and --key are the same option")
    key_file = hdr_key or key
    if show_secrets and not key_file:
        raise UsageError("--show-secrets needs --hdr-key")
    language, variant = _format(form)
    if language == "json" and variant != "full" and (host_key_document or check_digests):
        raise UsageError(
            "pvimg's JSON has no place for host keys and digests", hint="give --format json:full or --format text"
        )
    with messages.causes():
        _describe(
            image,
            language,
            variant,
            HeaderKey(key_file, show_secrets),
            options.split_files(host_key_document),
            check_digests,
            messages,
        )


@dataclasses.dataclass(frozen=True)
class HeaderKey:
    """The file with the header key, and whether to show the secrets that it opens."""

    file: Path | None
    show_secrets: bool


def _describe(
    path: Path,
    language: str,
    variant: str,
    key: HeaderKey,
    documents: list[Path],
    check_digests: bool,
    messages: Messages,
) -> None:
    from zseal.formats.se_header import HEADER_KEY_SIZE
    from zseal.hostkeys.document import load_host_key_documents
    from zseal.image.describe import HeaderView, image_json, info_json, info_text, match_host_key
    from zseal.image.keys import load_key
    from zseal.image.locate import locate_others
    from zseal.image.pages import digests_match
    from zseal.image.read import open_image

    header_key = load_key(key.file, HEADER_KEY_SIZE, "header key") if key.file else None
    with open_image(path) as (image, stream):
        try:
            view = HeaderView.open(image.header, header_key, show_secrets=key.show_secrets)
        except ZsealError as error:
            error.where = str(path)
            raise
        matches = [
            match_host_key(image.header, document.key_hash, document.source)
            for document in load_host_key_documents(documents)
        ]
        match = None
        if check_digests:
            with messages.progress("reading") as progress:
                match = digests_match(image, stream, progress=progress)
        others = locate_others(stream, image.header_offset) if image.inside_another_file else ()
    if others:
        places = ", ".join(f"{offset:#x}" for offset in others)
        messages.warning(
            f"the file has {len(others) + 1} images; this is the one whose SE header is at {image.header_offset:#x}, "
            f"others are at {places}"
        )
    if not view.verified:
        messages.warning("the header is not verified: give its key with --hdr-key")
    if language == "text":
        typer.echo(info_text(view, image, matches, full=variant == "full", digests_match=match))
        return
    document = info_json(view)
    if variant == "full":
        document["image"] = image_json(image, matches, match)
    if variant == "minify":
        typer.echo(json.dumps(document, separators=(",", ":")))
    else:
        typer.echo(json.dumps(document, indent=2))
