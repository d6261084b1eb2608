"""``zseal guest``: inspect, pause, page and stop running guests."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.guest.watch import Format
from zseal.cli.signals import Signalled
from zseal.errors import UsageError

if TYPE_CHECKING:
    from zseal.guest.control.client import GuestControl
    from zseal.guest.observation import Observation
    from zseal.jsonvalue import Json

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    epilog="The guests are those that this user started with zseal run; see docs/guest-control.md.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the guest; see zseal guest list.")]
Form = Annotated[Format, typer.Option("--format", help="text is for people, json for programs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]

_BYTES_A_LINE = 16
_NUMBER_LENGTH = 40
"""Characters of an invalid number that a message repeats."""


def _connect(name: str) -> GuestControl:
    from zseal.guest.control.client import GuestControl

    return GuestControl(name)


def _number(text: str, what: str) -> int:
    """Return the number in ``text``: decimal, or hexadecimal with 0x, below 2^63; raises UsageError."""
    shown = text if len(text) <= _NUMBER_LENGTH else f"{text[:_NUMBER_LENGTH]}…"
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise UsageError(f"{shown!r} is not a valid {what}", hint="use a number such as 4096 or 0x1000")
    if value >= 1 << 63:
        raise UsageError(f"{shown!r} is too large: {what}", hint="the largest is 2^63 - 1")
    return value


def _print_json(value: Json) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function to call with the work done and the total, or None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- inspecting ---


@app.command("list")
def list_command(form: Form = Format.TEXT) -> None:
    """List the running guests of this user."""
    from zseal.guest.control.client import list_guests

    guests = list_guests()
    if form is Format.JSON:
        _print_json([*guests])
        return
    if not guests:
        typer.echo("no guest is running", err=True)
        return
    from zseal.guest.observation import uptime

    rows = [("NAME", "STATE", "PHASE", "PROTECTED", "MEMORY", "CPUS", "UPTIME", "IMAGE")]
    for guest in guests:
        if "phase" not in guest:
            rows.append((str(guest["name"]), str(guest["state"]), "", "", "", "", "", ""))
            continue
        seen = _observation(guest)
        rows.append(
            (
                seen.name,
                seen.state,
                seen.phase,
                "yes" if seen.protected else "no",
                f"{seen.memory >> 20} MiB",
                str(seen.cpus),
                uptime(seen.seconds),
                seen.image,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _observation(status: dict[str, Json]) -> Observation:
    from zseal.guest.observation import Observation

    return Observation.from_json(status)


@app.command()
def status(name: Name, form: Form = Format.TEXT) -> None:
    """Show a guest's state, boot phase, memory, pages and calls."""
    from zseal.guest.observation import page_text, uptime

    with _connect(name) as guest:
        found = guest.status()
    if form is Format.JSON:
        _print_json(found)
        return
    seen = _observation(found)
    calls = ", ".join(f"{command} {count:,}" for command, count in seen.calls.items())
    refused = ", ".join(f"{command} {count:,}" for command, count in seen.refused.items())
    lines = {
        "name": seen.name,
        "state": seen.state,
        "phase": seen.phase,
        "protected": "yes" if seen.protected else "no",
        "uptime": uptime(seen.seconds),
        "boots": str(seen.boots),
        "memory": f"{seen.memory >> 20} MiB",
        "CPUs": str(seen.cpus),
        "image": seen.image,
        "machine": seen.machine,
        "process": str(found.get("pid")),
        "pages": page_text(dict(seen.pages)),
        "calls": calls or "none",
        "refused calls": refused or "none",
    }
    for label, text in lines.items():
        typer.echo(f"{label + ':':<16}{text}")
    for absent in seen.absent:
        typer.echo(f"{'paged out:':<16}{absent.pages:,} pages to {absent.path}")
    for note in seen.notes:
        typer.echo(f"{'diagnosis:':<16}{note}")
    for device in seen.devices:
        typer.echo(
            f"{'device:':<16}{device.device}, queue {device.queue}: {device.requests:,} requests, "
            f"{device.bytes_to_device:,} bytes to it, {device.bytes_from_device:,} from it, "
            f"{device.shared_pages:,} shared pages, {device.violations:,} violations"
        )


@app.command()
def pages(
    name: Name,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write the picture as PNG.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write the picture as SVG.")] = None,
    overwrite: Overwrite = False,
    form: Form = Format.TEXT,
) -> None:
    """Show the state of every page. On a terminal that is a picture, elsewhere runs of pages."""
    from zseal.files import write_atomic

    with _connect(name) as guest:
        found = guest.pages()
    if png is not None:
        write_atomic(png, found.to_png(), overwrite=overwrite, mode=0o644)
    if svg is not None:
        write_atomic(svg, found.to_svg().encode(), overwrite=overwrite, mode=0o644)
    if form is Format.JSON:
        counts: dict[str, Json] = {**found.counts()}
        runs: list[Json] = [
            {"address": page << 12, "pages": count, "state": state} for page, count, state in found.runs()
        ]
        _print_json({"name": name, "pages": int(found.states.size), "counts": counts, "runs": runs})
    elif png is None and svg is None:
        typer.echo(found.to_terminal() if sys.stdout.isatty() else found.to_text(), nl=False)


@app.command("read-memory")
def read_memory(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Guest absolute address, such as 0x10000.")],
    length: Annotated[str, typer.Argument(metavar="LENGTH", help="Number of bytes.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the raw bytes to stdout.")] = False,
    form: Form = Format.TEXT,
) -> None:
    """Show what the host sees of a guest's memory. Shared pages are shown as they are, private ones encrypted."""
    first, size = _number(address, "address"), _number(length, "number of bytes")
    with _connect(name) as guest:
        data = guest.read_memory(first, size)
    if raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif form is Format.JSON:
        _print_json({"name": name, "address": first, "length": size, "data": data.hex()})
    else:
        for at in range(0, size, _BYTES_A_LINE):
            typer.echo(_hex_line(first + at, data[at : at + _BYTES_A_LINE]))


def _hex_line(address: int, data: bytes) -> str:
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{address:012x}  {data.hex(' ', 4):<35}  {shown}"


@app.command()
def dump(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, with mode 0600.")],
    overwrite: Overwrite = False,
    form: Form = Format.TEXT,
) -> None:
    """Write what the host sees of all memory to a file. Private pages are ciphertext there."""
    with _connect(name) as guest, _progress("Dumping") as progress:
        size = guest.dump(file, overwrite=overwrite, progress=progress)
    _told(form, {"name": name, "file": str(file), "bytes": size}, f"{size:,} bytes written to {file}")


def _console(name: str, lines: int, form: Format) -> None:
    with _connect(name) as guest:
        shown = guest.console(lines=lines or None)
    if form is Format.JSON:
        _print_json({"name": name, "lines": [*shown]})
    else:
        for line in shown:
            typer.echo(line)


Lines = Annotated[
    int, typer.Option("--lines", "-n", metavar="N", min=0, help="Number of lines; 0 shows all that are kept.")
]


@app.command()
def console(name: Name, lines: Lines = 24, form: Form = Format.TEXT) -> None:
    """Show the last screen of the guest's console. zseal keeps 64 KiB of its output."""
    _console(name, lines, form)


@app.command()
def screendump(name: Name, lines: Lines = 24, form: Form = Format.TEXT) -> None:
    """Show the last screen of the guest's console, as console does."""
    _console(name, lines, form)


@app.command()
def watch(
    name: Name,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", metavar="S", min=0.1, help="Refresh interval in seconds (0.5; 2 without a terminal)."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="Stop after N refreshes.")] = None,
    form: Form = Format.TEXT,
) -> None:
    """Watch a guest live; Ctrl-C ends the view, not the guest.

    The view shows boot phases, pages, calls per second, devices and the console.
    """
    from zseal.cli.guest.watch import watch as show
    from zseal.guest.control.protocol import ControlError
    from zseal.guest.watch.live import CONSOLE_LINES

    with _connect(name) as guest:
        looks = 0

        def observe() -> Observation | None:
            nonlocal looks
            try:
                seen = _observation(guest.status(lines=CONSOLE_LINES))
            except ControlError:
                if looks:
                    return None  # it has ended
                raise
            looks += 1
            return seen

        def pause(seconds: float) -> bool:
            time.sleep(seconds)
            return True

        try:
            show(observe, pause, form=form, interval=interval, count=count)
        except Signalled as signalled:
            if signalled.number != signal.SIGINT:
                raise
            return
    if looks != count:
        typer.echo("the guest has ended", err=True)


# --- controlling ---


def _told(form: Format, answer: dict[str, Json], text: str) -> None:
    if form is Format.JSON:
        _print_json(answer)
    else:
        typer.echo(text)


@app.command()
def pause(name: Name, form: Form = Format.TEXT) -> None:
    """Stop the guest's CPUs."""
    with _connect(name) as guest:
        guest.pause()
    _told(form, {"name": name, "state": "paused"}, f"{name} is paused")


@app.command()
def resume(name: Name, form: Form = Format.TEXT) -> None:
    """Bring all pages back and let the CPUs run again.

    The ultravisor verifies each page. A page that was changed ends the guest: its zseal run exits with code 8.
    """
    with _connect(name) as guest, _progress("Bringing pages back") as progress:
        count = guest.resume(progress=progress)
    text = f"{name} is running" + (f", {count:,} pages came back" if count else "")
    _told(form, {"name": name, "state": "running", "pages": count}, text)


@app.command("page-out")
def page_out(
    name: Name,
    count: Annotated[str, typer.Argument(metavar="COUNT|all", help="Number of private pages to page out.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write the pages to, with mode 0600.")],
    start: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help="Begin with the page at this guest absolute address.")
    ] = "0",
    overwrite: Overwrite = False,
    form: Form = Format.TEXT,
) -> None:
    """Pause the guest and move private pages to a file.

    The pages are exported, and so encrypted, and leave the guest's memory. The guest is paused until resume brings them
    back.
    """
    wanted = None if count == "all" else _number(count, "number of pages")
    first = _number(start, "address")
    with _connect(name) as guest, _progress("Paging out") as progress:
        moved = guest.page_out(file, wanted, start=first, overwrite=overwrite, progress=progress)
    answer: dict[str, Json] = {"name": name, "state": "paged-out", "pages": moved, "file": str(file)}
    _told(form, answer, f"{moved:,} pages moved to {file}; {name} is paused until zseal guest resume {name}")


@app.command("page-in")
def page_in(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that page-out wrote, or a copy of it.")],
    form: Form = Format.TEXT,
) -> None:
    """Bring pages back from a file and verify each. The guest stays paused.

    A page that was changed ends the guest: its zseal run exits with code 8.
    """
    with _connect(name) as guest, _progress("Bringing pages back") as progress:
        moved = guest.page_in(file, progress=progress)
        state = guest.status()["state"]
    _told(form, {"name": name, "state": state, "pages": moved}, f"{moved:,} pages came back from {file}")


@app.command()
def stop(
    name: Name,
    timeout: Annotated[
        int,
        typer.Option(
            "--timeout",
            metavar="S",
            min=0,
            max=3600,
            help="Seconds to wait for the guest's operating system to power off.",
        ),
    ] = 10,
    form: Form = Format.TEXT,
) -> None:
    """Ask the guest to power off, and end it after a timeout. Its disks are written out."""
    with _connect(name) as guest:
        message = guest.stop(wait=timeout)
    _told(form, {"name": name, "message": message}, message)


@app.command()
def kill(name: Name, form: Form = Format.TEXT) -> None:
    """End the guest immediately. Data not yet on its disks is lost."""
    with _connect(name) as guest:
        message = guest.kill()
    _told(form, {"name": name, "message": message}, message)
