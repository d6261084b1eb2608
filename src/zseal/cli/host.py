"""``zseal host``: check whether a host is ready, show what its ultravisor offers, and refresh libvirt's cache."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zseal.readiness import HostSource

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_TEXT_WIDTH = 110


class Format(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


_Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Read a tree written by zseal host capture instead of this host."),
]
_Form = Annotated[Format, typer.Option("--format", help="Output format.")]


def _source(root: Path | None) -> HostSource:
    from zseal.readiness import CapturedHost, LiveHost

    return LiveHost() if root is None else CapturedHost(root)


def _width() -> int:
    import shutil

    return max(40, min(shutil.get_terminal_size((_TEXT_WIDTH, 24)).columns, _TEXT_WIDTH))


@app.command()
def check(
    root: _Root = None,
    form: _Form = Format.TEXT,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Explain every check, and also show those that are not applicable.")
    ] = False,
) -> None:
    """Check whether this host is ready.

    It checks the machine, firmware, kernel, KVM, QEMU and libvirt. Exit codes: 0 protected guests can run, 1 they
    cannot, or it is not known.
    """
    from zseal.readiness import check_host, to_json, to_text

    report = check_host(_source(root))
    typer.echo(to_json(report) if form is Format.JSON else to_text(report, verbose=verbose, width=_width()))
    if not report.ready:
        raise typer.Exit(1)


@app.command()
def info(root: _Root = None, form: _Form = Format.TEXT) -> None:
    """Show what the ultravisor offers, as pvinfo does.

    Exit code 1: there is no ultravisor.
    """
    from zseal.errors import InputError
    from zseal.readiness.uv_info import read_host_info, to_json, to_text

    values = read_host_info(_source(root))
    if not values.present:
        raise InputError(
            "there is no /sys/firmware/uv: no ultravisor, or a kernel that does not support it",
            where=str(root) if root else None,
            hint="zseal host check shows what is missing",
        )
    typer.echo(to_json(values) if form is Format.JSON else to_text(values))


@app.command()
def capture(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create; it must be new or empty.")],
) -> None:
    """Save everything that check reads.

    The directory can be checked elsewhere with zseal host check --root. It contains no secrets and no serial numbers.
    """
    from zseal.readiness.capture import capture_host

    files = capture_host(_source(None), directory)
    typer.echo(f"{len(files)} files written to {directory}; review them, then: zseal host check --root {directory}")


@app.command("refresh-libvirt-cache")
def refresh_libvirt_cache(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps as shell commands without running them.")
    ] = False,
    session: Annotated[
        bool, typer.Option("--session", help="Refresh your own daemon's cache (qemu:///session), not the system's.")
    ] = False,
) -> None:
    """Make libvirt probe the host again.

    It stops libvirt's daemon, deletes what the daemon stored about QEMU and the host, and starts it again. Guests keep
    running.
    """
    from zseal.readiness.capabilities_cache import Systemd, plan_session_refresh, plan_system_refresh, refresh

    manager = Systemd()
    plan = plan_session_refresh() if session else plan_system_refresh(manager)
    if dry_run:
        typer.echo("\n".join(plan.steps()) or f"# nothing to do: {plan.directory} contains no descriptions")
        return
    refresh(plan, manager)
    typer.echo(f"{len(plan.files)} cached description(s) deleted from {plan.directory}")
    if not plan.units and not session:
        typer.echo("no libvirt daemon was running under systemd: restart a daemon that runs otherwise by hand")
