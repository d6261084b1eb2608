"""``zseal hostkey``: verify and describe host-key documents, keep bundles, show what expires."""

from __future__ import annotations

import enum
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.hostkey import options
from zseal.cli.wording import for_command_line
from zseal.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zseal.hostkeys.bundle import Changes
    from zseal.hostkeys.describe import Validity
    from zseal.hostkeys.results import DocumentReport, HostKeyReport

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
bundle_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(bundle_app, name="bundle", help="Keep certificates and CRLs in one directory.")


class Format(enum.StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]
DaysOption = Annotated[
    float | None,
    typer.Option(
        "--days",
        metavar="N",
        min=0,
        help="Exit with 1 if anything expires within N days (default: 30; a CRL: the last quarter of its life).",
    ),
]


@app.command()
def verify(
    host_key_document: options.HostKeyDocuments = None,
    cert: options.Certificates = None,
    crl: options.Crls = None,
    offline: options.Offline = False,
    root_ca: options.RootCa = None,
    bundle: options.BundleDirectory = None,
    no_verify: options.NoVerify = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only refusals and warnings.")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Verify host-key documents, as pvverify does. Exit codes: 0 all are genuine, current and not revoked, 1 not all
    are.
    """
    paths = options.split_files(host_key_document)
    if not paths:
        raise UsageError("give at least one host-key document with -k")
    trust = options.load_trust(cert=cert, crl=crl, root_ca=root_ca, bundle=bundle, no_verify=no_verify)
    from zseal.hostkeys.document import load_host_key_documents

    documents = load_host_key_documents(paths)
    if trust is None:
        typer.echo("warning: the host-key documents are not verified", err=True)
        for item in documents:
            _ = item.public_key  # refuses other kinds of keys
        return
    report = trust.check(documents, offline=offline)
    if form is Format.JSON:
        typer.echo(json.dumps(_report_json(report), indent=2))
    elif not quiet:
        for document in report.documents:
            _print_document(document)
    for document in report.documents:
        options.print_warnings(document)
    for document in report.documents:
        if document.refusal is not None:
            typer.echo(f"error: {for_command_line(str(document.refusal))}", err=True)
    if not report.accepted:
        raise typer.Exit(1)


def _print_document(report: DocumentReport) -> None:
    verdict = "accepted" if report.accepted else "REFUSED"
    typer.echo(f"{report.document.source}: {verdict}")
    for check in report.checks:
        typer.echo(f"  {'ok' if check.passed else 'FAILED':<7}{check.rule.value:<14} {check.detail}")


def _report_json(report: HostKeyReport) -> dict[str, object]:
    return {"accepted": report.accepted, "documents": [_document_json(document) for document in report.documents]}


def _document_json(report: DocumentReport) -> dict[str, object]:
    from zseal.hostkeys.describe import host_key_hash

    failure = report.failure
    return {
        "source": report.document.source,
        "accepted": report.accepted,
        "software": report.software,
        "host_key_hash": host_key_hash(report.document.certificate),
        "checks": [
            {"rule": check.rule.value, "passed": check.passed, "detail": check.detail} for check in report.checks
        ],
        "failure": None
        if failure is None
        else {
            "rule": failure.rule.value,
            "reason": failure.reason.value,
            "message": failure.message,
            "hint": for_command_line(failure.hint),
            "openssl_code": failure.code,
            "level": failure.level,
        },
        "chain": [certificate.subject_text for certificate in report.chain],
        "warnings": list(report.warnings),
    }


@app.command()
def show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Certificates or CRLs, PEM or DER.")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Describe host-key documents, certificates and CRLs."""
    from zseal.hostkeys.describe import describe
    from zseal.hostkeys.loading import load_objects

    items = [describe(item) for path in files for item in load_objects(path).all]
    if form is Format.JSON:
        typer.echo(json.dumps(items, indent=2))
        return
    for item in items:
        typer.echo(f"{item['source']}: {item['kind']}" + (" of a software machine" if item["software"] else ""))
        for key, value in item.items():
            if value is None or key in ("source", "kind", "software"):
                continue
            for line in value if isinstance(value, list) else [value]:
                typer.echo(f"  {key.replace('_', ' ') + ':':<26}{line}")


@app.command()
def status(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Certificates or CRLs, PEM or DER.")
    ] = None,
    bundle: options.BundleDirectory = None,
    days: DaysOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show when host-key documents, certificates and CRLs expire. Exit code 1: something expires soon or is missing."""
    if not files and bundle is None:
        raise UsageError("give files, or a bundle with --bundle")
    from zseal.hostkeys.bundle import Bundle
    from zseal.hostkeys.describe import validity_of
    from zseal.hostkeys.loading import load_objects

    now = datetime.now(UTC)
    items = Bundle.load(bundle).inventory(days=days, now=now) if bundle is not None else []
    for path in files or ():
        items += [validity_of(item, days=days, now=now) for item in load_objects(path).all]
    if form is Format.JSON:
        typer.echo(json.dumps([_validity_json(item, now) for item in items], indent=2))
    else:
        _print_validities(items, now)
    if not all(item.state.is_fine for item in items):
        raise typer.Exit(1)


def _days_left(item: Validity, now: datetime) -> float | None:
    return None if item.ends is None else round((item.ends - now).total_seconds() / 86400, 1)


def _validity_json(item: Validity, now: datetime) -> dict[str, object]:
    return {
        "kind": item.role.value,
        "subject": item.subject,
        "source": item.source,
        "begins": item.begins.isoformat() if item.begins else None,
        "ends": item.ends.isoformat() if item.ends else None,
        "days_left": _days_left(item, now),
        "state": item.state.value,
    }


def _print_validities(items: Sequence[Validity], now: datetime) -> None:
    for item in sorted(items, key=lambda item: (item.ends is not None, item.ends or now)):
        ends = f"{item.ends:%Y-%m-%d}" if item.ends else "-"
        left = _days_left(item, now)
        days = f"{left:.0f} days" if left is not None else ""
        typer.echo(f"{item.state.value:<14}{ends:<12}{days:>11}  {item.role.value:<18} {item.source}: {item.subject}")


@bundle_app.command("create")
def bundle_create(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create; it must not exist.")],
    cert: options.Certificates = None,
    crl: options.Crls = None,
    host_key_document: options.HostKeyDocuments = None,
    root_ca: options.RootCa = None,
    offline: options.Offline = False,
) -> None:
    """Create a bundle of certificates, CRLs and host-key documents. The CRLs are also fetched, unless --offline is
    given.
    """
    if not cert:
        raise UsageError("give the signing key and the intermediate CAs with --cert")
    from zseal.hostkeys.bundle import Bundle

    _, changes = Bundle.create(
        directory,
        certificates=options.split_files(cert),
        crls=options.split_files(crl),
        host_key_documents=options.split_files(host_key_document),
        root_ca=_single(root_ca),
        offline=offline,
    )
    _print_changes(changes)


@bundle_app.command("update")
def bundle_update(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the bundle.")],
    cert: options.Certificates = None,
    crl: options.Crls = None,
    host_key_document: options.HostKeyDocuments = None,
    root_ca: options.RootCa = None,
    offline: options.Offline = False,
) -> None:
    """Fetch the CRLs of a bundle again and add files to it. With --offline it only adds files. Exit code 1: not all
    CRLs could be renewed.
    """
    from zseal.hostkeys.bundle import Bundle

    _, changes = Bundle.load(directory).update(
        certificates=options.split_files(cert),
        crls=options.split_files(crl),
        host_key_documents=options.split_files(host_key_document),
        root_ca=_single(root_ca),
        offline=offline,
    )
    _print_changes(changes)
    if changes.problems:
        raise typer.Exit(1)


def _single(root_ca: list[Path] | None) -> Path | None:
    if root_ca is not None and len(root_ca) > 1:
        raise UsageError("--root-ca can be given only once", hint="a PEM file may hold several roots")
    return root_ca[0] if root_ca else None


def _print_changes(changes: Changes) -> None:
    for name in changes.written:
        typer.echo(f"written: {name}")
    for problem in changes.problems:
        typer.echo(f"warning: {problem}", err=True)


@bundle_app.command("show")
def bundle_show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the bundle.")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Show what is in a bundle, when it expires, and what is missing."""
    from zseal.hostkeys.bundle import Bundle

    now = datetime.now(UTC)
    bundle = Bundle.load(directory)
    items = bundle.inventory(days=0, now=now)
    if form is Format.JSON:
        description = {
            "directory": str(directory),
            "root_ca": [root.subject_text for root in bundle.root_ca] or None,
            "items": [_validity_json(item, now) for item in items],
        }
        typer.echo(json.dumps(description, indent=2))
        return
    typer.echo(f"trusted roots: {'root-ca.crt of the bundle' if bundle.root_ca else 'those of the system'}")
    _print_validities(items, now)
