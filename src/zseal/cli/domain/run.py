"""``zseal domain run``: start a domain as a protected guest through libvirt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.following import Outputs, follow
from zseal.cli.run_options import (
    HostDumpOption,
    HtmlOption,
    IoPolicyOption,
    MachineOption,
    OverwriteOption,
    ReportOption,
    TimeoutOption,
    WatchOption,
    console_server,
    exit_codes,
)
from zseal.guest.audit.policy import IoPolicy

if TYPE_CHECKING:
    from zseal.domain.document import Document
    from zseal.domain.model import Style

EPILOG = exit_codes(failed="error or findings")


def style_of(name: str) -> Style:
    """The style with the option value ``launch-security`` or ``iommu``."""
    from zseal.domain.model import Style

    return Style.IOMMU if name == "iommu" else Style.LAUNCH_SECURITY


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Domain XML file.")],
    machine: MachineOption,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Sealed image to boot instead of the domain's kernel."),
    ] = None,
    connect: Annotated[
        str,
        typer.Option(
            "--connect",
            metavar="URI",
            help="libvirt to use: qemu:///embed (no daemon), qemu:///session or qemu:///system.",
        ),
    ] = "qemu:///embed",
    force: Annotated[
        bool, typer.Option("--force", help="Start the domain despite lint errors; it fails as on a real host.")
    ] = False,
    console: Annotated[
        str | None,
        typer.Option(
            "--console",
            metavar="stdio|pty|socket:PATH|virsh",
            help="Where to attach the guest's console, as for zseal run; virsh leaves it to virsh console.",
        ),
    ] = None,
    io_policy: IoPolicyOption = IoPolicy.ENFORCE,
    report: ReportOption = None,
    host_dump: HostDumpOption = None,
    html: HtmlOption = None,
    overwrite: OverwriteOption = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name for zseal guest (default: derived from the domain's name)."),
    ] = None,
    watch: WatchOption = False,
    timeout: TimeoutOption = None,
) -> None:
    """Start a libvirt domain as a protected guest on this computer.

    The domain runs through real libvirt. Settings that this computer does not support (KVM, the host's CPU model,
    libvirt's networks) are translated, and every change is reported.
    """
    from zseal.domain.document import Document, decode, read_document_bytes
    from zseal.domain.launch import DomainGuest, translate
    from zseal.domain.model import Domain
    from zseal.guest.control.registry import name_from
    from zseal.hostkeys.machine import Machine
    from zseal.libvirt.connection import is_system, open_connection

    outputs = Outputs(report=report, host_dump=host_dump, html=html, overwrite=overwrite)
    outputs.check()
    serve = console_server(console, watch=watch, elsewhere="virsh")
    chosen = Machine.load(machine)
    document = Document(str(file), *decode(str(file), read_document_bytes(file)))
    _lint(document, force=force)
    with open_connection(connect) as connection:
        translated = translate(document, image=image, user_network=not is_system(connect))
        for change in translated.changes:
            typer.echo(f"note: {change}", err=True)
        guest = DomainGuest(
            translated,
            connection=connection,
            machine=chosen,
            console=console != "virsh",
            timeout=timeout,
            io_policy=io_policy,
            name=name or name_from(Domain(document).name or file.stem),
            number_name=name is None,
            record=html is not None,
        )
        code = follow(guest, outputs, watch=watch, keyboard=console == "stdio", serve=serve)
    raise typer.Exit(code)


def _lint(document: Document, *, force: bool) -> None:
    """Print the lint errors, which would fail on a real host too; without ``force`` exit with 1 if there are any."""
    from zseal.domain.lint import LintSettings, lint_document
    from zseal.domain.report.text import finding_lines, plural
    from zseal.domain.rules.interface import Severity

    settings = LintSettings(schema=False, local_files=False, ignore=frozenset({"PV004"}))
    errors = [f for f in lint_document(document, settings).findings if f.severity is Severity.ERROR]
    for finding in errors:
        for line in finding_lines(finding):
            typer.echo(line, err=True)
    if errors and not force:
        typer.echo(
            f"error: {plural(len(errors), 'error')}: on a real host this domain would fail too; "
            "repair it with zseal domain fix, or start it anyway with --force",
            err=True,
        )
        raise typer.Exit(1)
