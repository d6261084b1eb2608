"""``zseal demo``: the demonstration as a table."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.progress import ProgressBars
from zseal.errors import UsageError
from zseal.guest.engines import EngineName

if TYPE_CHECKING:
    from zseal.demo.demonstration import Demonstration, RefusedStart

COMMAND_SETTINGS = {
    "help": "Seal a Debian s390x kernel, boot it as a protected guest under the software ultravisor, and show what "
    "protection means: what the guest sees, what the host sees, and what is refused. The first run fetches about 55 MB "
    "with apt; every run takes about half a minute. If QEMU is not installed, a bare-metal guest on the embedded "
    "engine shows what it can. Exit codes: 0 everything was as promised, 1 it was not."
}


def command(
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the results to FILE as JSON.")
    ] = None,
    kernel: Annotated[
        Path | None, typer.Option("--kernel", metavar="FILE", help="Use this s390x kernel instead of Debian's.")
    ] = None,
    ramdisk: Annotated[
        Path | None,
        typer.Option(
            "--ramdisk",
            metavar="FILE",
            help="Use this ramdisk (cpio, may be compressed). It needs /bin/busybox; zseal adds an /init.",
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME", help="Take kernel and busybox from this Debian suite.")
    ] = "trixie",
    engine: Annotated[
        EngineName | None,
        typer.Option("--engine", help="What executes the guest (default: QEMU if it is installed)."),
    ] = None,
) -> None:
    """Run the demonstration."""
    import json

    from zseal.demo.bare_metal import demonstrate_embedded
    from zseal.demo.linux import demonstrate
    from zseal.files import write_atomic
    from zseal.guest.engines import available_engine
    from zseal.parts import part_directory

    for_linux = kernel is not None or ramdisk is not None
    if for_linux and engine is EngineName.EMBEDDED:
        raise UsageError("the embedded engine has no Linux to use --kernel or --ramdisk for", hint="use --engine qemu")
    if engine is None:
        engine = EngineName.QEMU if for_linux else available_engine()
        if engine is EngineName.EMBEDDED:
            print("QEMU for s390x is not installed: this is the demonstration without Linux.", file=sys.stderr)

    with (
        part_directory(Path(tempfile.gettempdir()), prefix="zseal-demo-", suffix="") as directory,
        ProgressBars() as bars,
    ):
        if engine is EngineName.EMBEDDED:
            shown = demonstrate_embedded(directory, progress=bars)
        else:
            shown = demonstrate(directory, kernel=kernel, ramdisk=ramdisk, suite=suite, progress=bars)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(report, json.dumps(shown.json(), indent=2).encode() + b"\n", overwrite=True, mode=0o644)
    _print(shown)
    if not shown.ok:
        raise typer.Exit(1)


def _print(shown: Demonstration) -> None:
    from rich.console import Console
    from rich.table import Table

    linux = shown.kernel is not None
    subject = f"Linux {shown.kernel}" if linux else "A bare-metal guest"
    table = Table(title=f"{subject}, protected by a software ultravisor", title_justify="left")
    table.add_column("Question")
    table.add_column("Answer", overflow="fold")
    table.add_column("")

    def row(question: str, answer: str, good: bool) -> None:
        table.add_row(question, answer, "[green]as promised[/]" if good else "[red]BROKEN[/]")

    if shown.prot_virt_guest is not None:
        guest = int(shown.prot_virt_guest)
        row("Does the guest know that it is protected?", f"/sys/firmware/uv/prot_virt_guest is {guest}", guest == 1)
    row("Does its CPU offer the ultravisor call (facility 158)?", _yes(shown.facility_158), shown.facility_158)
    row("Does the guest hold its secret in memory?", _yes(shown.marker_in_guest), shown.marker_in_guest)
    row(
        "Does the host find the secret in the guest's memory?",
        _yes(shown.marker_in_host_view),
        not shown.marker_in_host_view,
    )
    row(
        f"... after the guest wrote it to {'its disk, through shared pages' if linux else 'a page that it shares'}?",
        _yes(shown.marker_after_share),
        shown.marker_after_share,
    )
    row(
        "... in the same guest without protection?",
        _yes(shown.marker_in_plain_host_view),
        shown.marker_in_plain_host_view,
    )
    row("Does the image start on another machine?", _refusal(shown.wrong_machine), shown.wrong_machine.refused)
    row("Does it start with one bit of its kernel flipped?", _refusal(shown.tampered), shown.tampered.refused)
    ratio = shown.boot_seconds / shown.plain_boot_seconds
    table.add_row(
        "How long does it take to boot?",
        f"{_time(shown.boot_seconds)} protected, {_time(shown.plain_boot_seconds)} plain ({ratio:.2f} times)",
        "",
    )
    table.add_row("How many pages did the guest share?", f"{shown.shared_pages:,} of 4 KiB", "")
    Console().print(table)
    if not linux:
        print(
            "Not shown: Linux and its devices. They need QEMU for s390x (Debian: qemu-system-misc, Fedora: "
            "qemu-system-s390x); install it, then: zseal demo --engine qemu"
        )
    print("The software ultravisor is for building, testing and learning; it is not a security boundary.")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _refusal(start: RefusedStart) -> str:
    if not start.refused:
        return f"it was not refused: {start.message}"
    # after the semicolon comes advice for people who did not want this
    return f"no: {start.message.split(';')[0]}"
