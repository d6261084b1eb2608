"""``zseal run``: boot an image as a protected guest, its console on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from zseal.errors import UsageError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.engines import EngineName

COMMAND_SETTINGS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "allow_interspersed_args": True},
    "epilog": f"{exit_codes()} Arguments after -- are passed to QEMU unchanged.",
}


def command(
    ctx: typer.Context,
    machine: MachineOption,
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", help="Secure Execution boot image; without it the guest boots from disk."),
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", "-m", metavar="SIZE", help="Guest memory, such as 512M or 2G.")
    ] = "1G",
    cpus: Annotated[int, typer.Option("--cpus", metavar="N", min=1, help="Number of CPUs, at most 247.")] = 1,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            "--disk",
            metavar="FILE[,format=F][,readonly][,bootindex=N][,iommu=off]",
            help="virtio disk, raw by default (repeatable).",
        ),
    ] = None,
    net: Annotated[
        list[str] | None,
        typer.Option(
            "--net",
            metavar="user[,hostfwd=tcp::2222-:22][,mac=M][,restrict][,iommu=off]",
            help="virtio network card (repeatable). user: QEMU translates addresses; this computer is 10.0.2.2.",
        ),
    ] = None,
    rng: Annotated[
        bool, typer.Option("--rng", help="virtio source of random bytes, which come from this computer.")
    ] = False,
    console: Annotated[
        str | None,
        typer.Option(
            "--console",
            metavar="stdio|pty|socket:PATH",
            help="Where to type at the guest. stdio is here, and Ctrl-] ends the guest. By default the console only "
            "goes to stdout.",
        ),
    ] = None,
    machine_type: Annotated[
        str, typer.Option("--machine-type", metavar="TYPE", help="QEMU's machine type, such as s390-ccw-virtio-7.2.")
    ] = "s390-ccw-virtio",
    io_policy: IoPolicyOption = IoPolicy.ENFORCE,
    kernel_console: Annotated[
        bool,
        typer.Option("--kernel-console", help="Also show the line-mode console (operating-system messages)."),
    ] = False,
    report: ReportOption = None,
    host_dump: HostDumpOption = None,
    overwrite: OverwriteOption = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name for zseal guest (default: derived from the image's name)."),
    ] = None,
    watch: WatchOption = False,
    html: HtmlOption = None,
    timeout: TimeoutOption = None,
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            help="What executes the guest; embedded needs no QEMU, but has no devices and runs no Linux.",
        ),
    ] = EngineName.QEMU,
    qemu: Annotated[
        str | None, typer.Option("--qemu", metavar="PROGRAM", help="QEMU to use (default: qemu-system-s390x).")
    ] = None,
) -> None:
    """Boot an image as a protected guest on this computer."""
    from zseal.engine.devices import RandomSource
    from zseal.guest.control.registry import name_from
    from zseal.guest.devices import parse_disk, parse_network
    from zseal.guest.guest import Guest
    from zseal.hostkeys.machine import Machine
    from zseal.sizes import parse_size

    outputs = Outputs(report=report, host_dump=host_dump, html=html, overwrite=overwrite)
    outputs.check()
    serve = console_server(console, watch=watch)
    arguments = list(ctx.args)
    if image is not None and str(image).startswith("-"):
        arguments.insert(0, str(image))  # after -- all words look alike; write ./-name for an image
        image = None
    disks = [parse_disk(text) for text in disk or []]
    if image is None and not disks:
        raise UsageError("there is nothing to boot", hint="give an image, or a bootable disk with --disk")
    if image is not None and any(item.boot_index is not None for item in disks):
        raise UsageError("both an image and a boot disk were given", hint="remove IMAGE or bootindex=")
    guest = Guest(
        image,
        machine=Machine.load(machine),
        memory=parse_size(memory),
        cpus=cpus,
        disks=disks,
        networks=[parse_network(text) for text in net or []],
        random_sources=[RandomSource()] if rng else [],
        machine_type=machine_type,
        line_mode_console=kernel_console,
        timeout=timeout,
        qemu=qemu,
        qemu_arguments=arguments,
        engine=engine,
        io_policy=io_policy,
        name=name or name_from(image.stem if image is not None else Path(disks[0].path).stem),
        number_name=name is None,
        record=html is not None,
    )
    raise typer.Exit(follow(guest, outputs, watch=watch, keyboard=console == "stdio", serve=serve))
