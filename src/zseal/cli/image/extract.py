"""``zseal image extract-header``: write the SE header of an image to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="Boot image.")]


def extract_header(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File for the SE header.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Write the bare SE header of an image to a file, as attestation and add-secret requests need it."""
    _extract(image, output, overwrite=overwrite)


def extract_header_as_pvextract_hdr(
    image: ImageArgument,
    output: Annotated[
        Path, typer.Option("-o", metavar="FILE", help="File for the SE header; it is replaced if it exists.")
    ] = Path("sehdr.bin"),
    skip: Annotated[str, typer.Option("-s", hidden=True)] = "",
    length: Annotated[str, typer.Option("-l", hidden=True)] = "",
) -> None:
    """Write the bare SE header of an image to a file. The header is found wherever it is."""
    del skip, length  # where pvextract-hdr searches: zseal searches the whole file
    _extract(image, output, overwrite=True)


def _extract(image: Path, output: Path, *, overwrite: bool) -> None:
    from zseal.files import write_atomic
    from zseal.image.read import read_image

    # nothing in a header is secret without its key
    write_atomic(output, read_image(image).header.pack(), overwrite=overwrite, mode=0o644)
