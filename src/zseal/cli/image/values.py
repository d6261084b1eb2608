"""``zseal image reference-values``: what a policy for attestation compares a guest's evidence with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zseal.cli.hostkey import options
from zseal.errors import UsageError


def reference_values(
    image: Annotated[Path, typer.Argument(metavar="INPUT", help="Image or SE header.")],
    host_key_document: options.HostKeyDocuments = None,
) -> None:
    """Print the reference values of an image for an attestation policy, as JSON with Trustee's names.

    They are printed as one object, or as a list of objects if there are several host-key documents.
    """
    documents = options.split_files(host_key_document)
    if not documents:
        raise UsageError("give the host-key document of the machine with -k")
    from zseal.hostkeys.document import load_host_key_documents
    from zseal.image.read import read_image
    from zseal.image.reference_values import reference_values as values_of

    header = read_image(image).header
    values = [values_of(header, document.key_hash, document.source) for document in load_host_key_documents(documents)]
    typer.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))
