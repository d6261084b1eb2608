"""Entry point of the ``zseal`` command: finds the command group, imports only that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zseal.cli.program import Program, run_program
from zseal.version import __version__

if TYPE_CHECKING:
    import typer

# name: (module, one line of help). A module offers ``app`` (a group of commands) or ``command`` (a single one).
# Modules are imported only when their command is used, so that `zseal --help` stays fast. One with a ``program`` needs
# no typer: it runs in guests that have nothing but Python.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("zseal.cli.demo", "Seal a Debian kernel, boot it, show what protection means."),
    "run": ("zseal.cli.run", "Boot an image as a protected guest on this computer."),
    "guest": ("zseal.cli.guest.app", "Inspect, pause, page and stop running guests."),
    "machine": ("zseal.cli.machine", "Create and show software IBM Z machines."),
    "image": ("zseal.cli.image.app", "Create, describe, test and verify Secure Execution boot images."),
    "hostkey": ("zseal.cli.hostkey.app", "Verify and describe host-key documents; keep their chain."),
    "attest": ("zseal.cli.attest", "Find out which image a guest runs, and on which machine."),
    "secret": ("zseal.cli.secret.app", "Put secrets into a guest that only the guest can read."),
    "domain": ("zseal.cli.domain.app", "Check, repair, convert, create and run libvirt domains."),
    "host": ("zseal.cli.host", "Check whether a host is ready to run protected guests."),
    "explain": ("zseal.cli.explain", "Explain a code or message of firmware, KVM or a bootloader."),
    "inspect": ("zseal.cli.inspect", "Recognise a file and describe it."),
}

_OF_ZSEAL = frozenset({"-h", "--help", "--version"})
PLAIN_COMMANDS = frozenset({"attest", "secret"})

_HELP = "IBM Secure Execution for everyone: seal images, check keys, domains and hosts, run protected guests."


def build_app(wanted: str | None) -> typer.Typer:
    """Return the command tree with the command ``wanted`` loaded and the others as names with their help."""
    import typer

    def print_version(value: bool) -> None:
        if value:
            typer.echo(f"zseal {__version__}")
            raise typer.Exit

    def options(
        version: bool = typer.Option(
            False, "--version", callback=print_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        """Take the options that are given before a command."""

    root = typer.Typer(
        name="zseal", rich_markup_mode=None, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    root.callback(help=_HELP)(options)
    for name, (module_name, text) in COMMANDS.items():
        if name != wanted or name in PLAIN_COMMANDS:
            root.command(name, help=text)(lambda: None)
            continue
        module = importlib.import_module(module_name)
        if hasattr(module, "app"):
            root.add_typer(module.app, name=name, help=text)
        else:
            settings = getattr(module, "COMMAND_SETTINGS", {})
            root.command(name, **settings)(module.command)
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: this process's) and exit with its code, see :func:`run_program`."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    wanted = _command_in(args)

    def build() -> Program:
        if wanted in PLAIN_COMMANDS and _OF_ZSEAL.isdisjoint(args[: args.index(wanted)]):
            plain: Program = importlib.import_module(COMMANDS[wanted][0]).program()
            args.remove(wanted)  # the first such word: what comes before it are options for the log
            return lambda rest, /, *, prog_name, standalone_mode: plain(
                args, prog_name=f"{prog_name} {wanted}", standalone_mode=standalone_mode
            )
        from zseal.cli.help import command_of

        return command_of(build_app(wanted))

    run_program(build, args, "zseal")


def _command_in(args: Sequence[str]) -> str | None:
    """Return the command of a command line, which may come after options of zseal itself."""
    rest = iter(args)
    for arg in rest:
        if arg == "--log-level":
            next(rest, None)  # its value
        elif not arg.startswith("-"):
            return arg
    return None
