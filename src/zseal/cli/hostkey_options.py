"""The options by which every command takes host-key documents and what to verify them against."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.errors import UsageError

if TYPE_CHECKING:
    from zseal.hostkeys.document import HostKeyDocument
    from zseal.hostkeys.results import DocumentReport
    from zseal.hostkeys.trust import TrustMaterial

HostKeyDocuments = Annotated[
    list[str] | None,
    typer.Option(
        "-k", "--host-key-document", metavar="FILE", help="Host-key document (repeatable, or separated by commas)."
    ),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Take the host-key documents without verifying them.")]
Certificates = Annotated[
    list[str] | None,
    typer.Option(
        "-C",
        "--cert",
        "--crt",
        metavar="FILE",
        help="Certificates to verify with: the IBM Z signing key and intermediate CAs (repeatable).",
    ),
]
Crls = Annotated[
    list[str] | None, typer.Option("--crl", metavar="FILE", help="Certificate revocation list (repeatable).")
]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch no revocation lists.")]
RootCa = Annotated[
    list[Path] | None,
    typer.Option("--root-ca", metavar="FILE", help="Trust this root CA instead of the system's."),
]
BundleDirectory = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="Certificates and CRLs kept with zseal hostkey bundle, or a software machine."),
]


def split_files(values: Iterable[str] | None) -> list[Path]:
    """Return the file names in ``values``, each of which may be several separated by commas.

    A file whose own name has commas is taken as it is.
    """
    names: list[str] = []
    for value in values or ():
        names += [value] if "," not in value or Path(value).exists() else [part for part in value.split(",") if part]
    return [Path(name) for name in names]


def load_trust(
    *,
    cert: Iterable[str] | None,
    crl: Iterable[str] | None,
    root_ca: list[Path] | None,
    bundle: Path | None,
    no_verify: bool,
) -> TrustMaterial | None:
    """Return what to verify with, None with ``no_verify``; raises UsageError for options that don't fit together."""
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


def load_documents(
    host_key_document: Iterable[str] | None,
    *,
    cert: Iterable[str] | None,
    crl: Iterable[str] | None,
    root_ca: list[Path] | None,
    bundle: Path | None,
    offline: bool,
    no_verify: bool,
) -> list[HostKeyDocument]:
    """Return the host-key documents of a command line, verified as its options say; warnings go to stderr.

    Raises UsageError for options that don't fit together, InputError for files that can't be used,
    HostKeyVerificationError for a document that is refused.
    """
    paths = split_files(host_key_document)
    if not paths:
        raise UsageError("give at least one host-key document with -k")
    trust = load_trust(cert=cert, crl=crl, root_ca=root_ca, bundle=bundle, no_verify=no_verify)
    from zseal.hostkeys.document import load_host_key_documents

    documents = load_host_key_documents(paths)
    if trust is None:
        typer.echo("warning: the host-key documents are not verified", err=True)
        for document in documents:
            _ = document.public_key  # refuses other kinds of keys
            warn_unused(document)
    else:
        for report in trust.verify(documents, offline=offline).documents:
            print_warnings(report)
    return documents


def warn_unused(document: HostKeyDocument) -> None:
    """Say on stderr that further certificates in the file of ``document`` take no part."""
    if document.unused:
        typer.echo(
            f"warning: {document.source}: only the first of {document.unused + 1} certificates is used", err=True
        )


def print_warnings(report: DocumentReport) -> None:
    """Say on stderr what is odd about a document, and that one of a software machine is no hardware."""
    source = report.document.source
    for warning in report.warnings:
        typer.echo(f"warning: {source}: {warning}", err=True)
    if report.software:
        typer.echo(f"warning: {source}: this is the key of a software machine, not of hardware", err=True)
