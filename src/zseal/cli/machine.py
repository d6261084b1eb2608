"""``zseal machine``: create and show software IBM Z machines."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.arch.machine_model import MachineModel

if TYPE_CHECKING:
    from zseal.hostkeys.machine import Machine

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


class Format(enum.StrEnum):
    """How a machine is described."""

    TEXT = "text"
    JSON = "json"
    KEY_HASHES = "key-hashes"


def _describe(machine: Machine) -> dict[str, object]:
    from zseal.hostkeys import machine as files
    from zseal.hostkeys import software

    host, *backup = [value.hex() for value in machine.host_key_hashes]
    return {
        "name": machine.name,
        "kind": software.MARK,
        "model": machine.model.value,
        "directory": str(machine.directory),
        "created": machine.created.isoformat(),
        "valid_until": machine.host_key_document.not_valid_after_utc.isoformat(),
        "host_key_hash": host,
        "backup_host_key_hash": backup[0] if backup else None,
        "host_key_document": str(machine.directory / files.HOST_KEY_DOCUMENT),
        "backup_host_key_document": str(machine.directory / files.BACKUP_HOST_KEY_DOCUMENT) if backup else None,
        "signing_key": str(machine.directory / files.SIGNING_KEY),
        "intermediate_ca": str(machine.directory / files.INTERMEDIATE_CA),
        "root_ca": str(machine.directory / files.ROOT_CA),
        "crls": [str(machine.directory / name) for name in files.CRLS],
    }


def _print(machine: Machine, form: Format) -> None:
    if form is Format.KEY_HASHES:
        typer.echo(machine.key_hashes_file(), nl=False)
        return
    description = _describe(machine)
    if form is Format.JSON:
        typer.echo(json.dumps(description, indent=2))
        return
    for key, value in description.items():
        if value is None:
            continue
        for line in value if isinstance(value, list) else [value]:
            label = key.replace("_", " ").replace(" ca", " CA").replace("crls", "CRL")
            typer.echo(f"{label + ':':<26}{line}")


@app.command()
def create(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create; it must not exist.")],
    host_key: Annotated[
        Path | None, typer.Option("--host-key", metavar="FILE", help="P-521 private key to use as host key.")
    ] = None,
    backup_host_key: Annotated[
        Path | None,
        typer.Option("--backup-host-key", metavar="FILE", help="P-521 private key to use as backup host key."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name in the certificates (default: that of the directory)."),
    ] = None,
    model: Annotated[
        MachineModel, typer.Option("--model", help="Generation of IBM Z that the machine stands for.")
    ] = MachineModel.Z17,
    crl_url: Annotated[
        str | None,
        typer.Option(
            "--crl-url", metavar="URL", help="URL of the CRLs in the certificates (default: one that never exists)."
        ),
    ] = None,
) -> None:
    """Create a software machine with host keys and certificates.

    The directory contains the private host keys, their host-key documents, and the certificates and CRLs with which
    to verify these.
    """
    from zseal.hostkeys.machine import NO_CRL_URL, Machine

    machine = Machine.create(
        directory,
        host_key=host_key,
        backup_host_key=backup_host_key,
        name=name,
        model=model,
        crl_url=crl_url or NO_CRL_URL,
    )
    _print(machine, Format.TEXT)


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the machine.")],
    form: Annotated[
        Format,
        typer.Option("--format", help="key-hashes prints the content of /sys/firmware/uv/keys/all."),
    ] = Format.TEXT,
) -> None:
    """Show a software machine: its name, key hashes and files."""
    from zseal.hostkeys.machine import Machine

    _print(Machine.load(directory), form)


@app.command()
def crl(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the machine.")],
    revoke: Annotated[
        list[Path] | None,
        typer.Option("--revoke", metavar="FILE", help="Certificate of this machine to revoke (repeatable)."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", metavar="N", help="Let the CRLs expire after N days (default: with the certificates)."),
    ] = None,
) -> None:
    """Issue the machine's CRLs again, for example to revoke a host key."""
    from zseal.hostkeys.loading import load_first_certificate
    from zseal.hostkeys.machine import Machine

    revoked = [load_first_certificate(path).raw for path in revoke or ()]
    Machine.load(directory).reissue_crls(revoke=revoked, days=days)
