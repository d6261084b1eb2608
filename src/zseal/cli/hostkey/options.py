"""The options with which commands take host-key documents and the material to verify them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.errors import UsageError

if TYPE_CHECKING:
    from zseal.hostkeys.results import DocumentReport
    from zseal.hostkeys.trust import TrustMaterial

HostKeyDocuments = Annotated[
    list[str] | None,
    typer.Option(
        "-k",
        "--host-key-document",
        metavar="FILE",
        help="Host-key document, or a directory of them (repeatable, or separated by commas).",
    ),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not verify the host-key documents.")]
Certificates = Annotated[
    list[str] | None,
    typer.Option(
        "-C",
        "--cert",
        "--crt",
        metavar="FILE",
        help="Certificates for verification: the IBM Z signing key and intermediate CAs; a file or a directory "
        "(repeatable).",
    ),
]
Crls = Annotated[
    list[str] | None,
    typer.Option("--crl", metavar="FILE", help="Certificate revocation list, or a directory of them (repeatable)."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Do not fetch revocation lists.")]
RootCa = Annotated[
    list[Path] | None,
    typer.Option("--root-ca", metavar="FILE", help="Trust this root CA instead of the system's."),
]
BundleDirectory = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="DIR",
        help="Directory of certificates and CRLs made by zseal hostkey bundle, or of a software machine.",
    ),
]


def split_files(values: Iterable[str] | None) -> list[Path]:
    """Return the file names in ``values``, each of which may be several separated by commas.

    The name of an existing file may contain commas.
    """
    names: list[str] = []
    for value in values or ():
        if not value:
            raise UsageError("a file name is empty")
        # os.path.exists(), because many names together may be too long for a file name, for which Path.exists() raises
        single = "," not in value or os.path.exists(value)  # noqa: PTH110
        names += [value] if single else [part for part in value.split(",") if part]
    return [Path(name) for name in names]


def load_trust(
    *,
    cert: Iterable[str] | None,
    crl: Iterable[str] | None,
    root_ca: list[Path] | None,
    bundle: Path | None,
    no_verify: bool,
) -> TrustMaterial | None:
    """Return what to verify with, None with ``no_verify``; raises UsageError for options that exclude each other."""
    certificates, crls = split_files(cert), split_files(crl)
    if no_verify and (certificates or bundle):
        raise UsageError("--no-verify excludes --cert and --bundle")
    if not no_verify and not (certificates or bundle):
        raise UsageError("give --cert or --bundle to verify host-key documents with, or --no-verify")
    if root_ca is not None and len(root_ca) > 1:
        raise UsageError("--root-ca can be given only once", hint="a PEM file may hold several roots")
    if no_verify:
        return None
    from zseal.hostkeys.trust import TrustMaterial

    return TrustMaterial.load(
        certificates=certificates, crls=crls, root_ca=root_ca[0] if root_ca else None, bundle=bundle
    )


def print_warnings(report: DocumentReport) -> None:
    """Print the warnings about a document on stderr, and one if it is of a software machine."""
    source = report.document.source
    for warning in report.warnings:
        typer.echo(f"warning: {source}: {warning}", err=True)
    if report.software:
        typer.echo(f"warning: {source}: this is the key of a software machine, not of hardware", err=True)
