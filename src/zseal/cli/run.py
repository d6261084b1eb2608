"""``zseal run``: boot an image as a protected guest, its console on stdout."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zseal.errors import OutputError, UsageError

if TYPE_CHECKING:
    from zseal.host.guest import Guest
    from zseal.host.guest_events import Result

COMMAND_SETTINGS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "allow_interspersed_args": True},
    "epilog": (
        "Exit codes: 0 power-off, 1 error, 2 wrong usage, 3 guest panic, 4 image refused by the ultravisor, "
        "5 timeout, 6 QEMU lost, 7 watchdog, 130 interrupted, 143 terminated. What follows -- goes to QEMU as it is."
    ),
}

_UNITS = {"": 20, "k": 10, "m": 20, "g": 30, "t": 40}
_TERMINATED = 128 + signal.SIGTERM


class _Terminated(BaseException):
    """SIGTERM came."""


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` names: a number of MiB, or with K, M, G or T; raises UsageError."""
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(i?b)?", text.strip().lower())
    if match is None or not int(match[1]):
        raise UsageError(f"{text!r} is no memory size", hint="write it like 512M or 2G")
    return int(match[1]) << _UNITS[match[2]]


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def command(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Secure Execution boot image.")],
    machine: Annotated[
        Path, typer.Option("--machine", metavar="DIR", help="Software machine to run it on, see zseal machine create.")
    ],
    memory: Annotated[
        str, typer.Option("--memory", "-m", metavar="SIZE", help="Guest memory, like 512M or 2G.")
    ] = "1G",
    cpus: Annotated[int, typer.Option("--cpus", metavar="N", min=1, max=248, help="Number of CPUs.")] = 1,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            "--disk",
            metavar="FILE[,format=F][,readonly][,iommu=off]",
            help="virtio disk (raw unless told otherwise); may be given several times.",
        ),
    ] = None,
    kernel_console: Annotated[
        bool,
        typer.Option("--kernel-console", help="Show the line-mode console (operating-system messages) as well."),
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write an account of the run as JSON.")
    ] = None,
    host_dump: Annotated[
        Path | None,
        typer.Option("--host-dump", metavar="FILE", help="Write what the host sees of guest memory at the end."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", min=0.1, help="End the guest after so many seconds.")
    ] = None,
    qemu: Annotated[
        str | None, typer.Option("--qemu", metavar="PROGRAM", help="QEMU to use (default: qemu-system-s390x).")
    ] = None,
) -> None:
    """Boot an image as a protected guest on this computer."""
    from zseal.host.guest import Guest
    from zseal.host.guest_disks import parse_disk
    from zseal.hostkeys.machine import Machine

    check_outputs(report, host_dump, overwrite=overwrite)
    guest = Guest(
        image,
        machine=Machine.load(machine),
        memory=parse_size(memory),
        cpus=cpus,
        disks=[parse_disk(text) for text in disk or []],
        line_mode_console=kernel_console,
        timeout=timeout,
        qemu=qemu,
        qemu_arguments=ctx.args,
    )
    raise typer.Exit(follow(guest, report, host_dump, overwrite=overwrite))


def check_outputs(*outputs: Path | None, overwrite: bool) -> None:
    """Raise OutputError for an output that exists, before anything is started."""
    for output in outputs:
        if output is not None and not overwrite and (output.exists() or output.is_symlink()):
            raise OutputError("the output exists", where=str(output), hint="choose another name or give --overwrite")


def follow(guest: Guest, report: Path | None, host_dump: Path | None, *, overwrite: bool) -> int:
    """Run ``guest`` with its console on stdout, write what was asked for, tell how it ended; return the exit code."""
    before = signal.signal(signal.SIGTERM, _on_terminate)
    try:
        with guest:
            result, code = _watch(guest)
            _write_outputs(guest, report, host_dump, overwrite=overwrite)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(result.message if code == 0 else f"error: {result.message}", file=sys.stderr)
    return code


def _watch(guest: Guest) -> tuple[Result, int]:
    """Stream the console until the guest has ended; return how, and the exit code."""
    from zseal.host.guest_events import Outcome, Result

    code = None
    try:
        _stream(guest)
    except KeyboardInterrupt:
        code = Outcome.STOPPED.exit_code
        guest.stop(Result(Outcome.STOPPED, "interrupted"))
    except _Terminated:
        code = _TERMINATED
        guest.stop(Result(Outcome.STOPPED, "terminated"))
    result = guest.wait()
    if result is None:
        raise AssertionError("waiting without a limit ended without a result")
    return result, result.outcome.exit_code if code is None else code


def _stream(guest: Guest) -> None:
    from zseal.host.guest_events import ConsoleOutput

    stdout = sys.stdout.fileno()
    for event in guest.events():
        if isinstance(event, ConsoleOutput):
            data = memoryview(event.data)
            while data:
                data = data[os.write(stdout, data) :]


def _write_outputs(guest: Guest, report: Path | None, host_dump: Path | None, *, overwrite: bool) -> None:
    from zseal.files import write_atomic

    if report is not None:
        text = json.dumps(guest.report, indent=2) + "\n"
        write_atomic(report, text.encode(), overwrite=overwrite, mode=0o644)
    if host_dump is not None:
        guest.host.dump(host_dump, overwrite=overwrite)
