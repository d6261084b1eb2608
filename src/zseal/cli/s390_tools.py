"""``genprotimg``, ``pvimg``, ``pvverify`` and ``pvextract-hdr``: commands of zseal under the names of s390-tools.

Scripts compare the version of these programs, so each first names the s390-tools whose options it has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zseal.cli.program import Program, run_program
from zseal.version import __version__

if TYPE_CHECKING:
    import typer

COMPATIBLE_VERSION = "2.43.0"


def genprotimg(arguments: Sequence[str] | None = None) -> None:
    """Run ``zseal image create`` with ``arguments`` (default: this process's); exit with 0, 1, or 2 for wrong usage."""

    def build() -> Program:
        from zseal.cli.image.create import create

        return _single("genprotimg", create)

    _run("genprotimg", build, arguments)


def pvimg(arguments: Sequence[str] | None = None) -> None:
    """Run ``zseal image create``, ``info`` or ``test`` with ``arguments``; exits as :func:`genprotimg` does."""

    def build() -> Program:
        from zseal.cli.help import command_of
        from zseal.cli.image.create import create
        from zseal.cli.image.info import info
        from zseal.cli.image.test import TestCommand, test

        app = _app("pvimg")
        app.command("create", short_help="Seal kernel, ramdisk and command line into an image.")(create)
        app.command("info")(info)
        app.command("test", cls=TestCommand, short_help="Show which host keys can open an image.")(test)
        return command_of(app)

    _run("pvimg", build, arguments)


def pvverify(arguments: Sequence[str] | None = None) -> None:
    """Run ``zseal hostkey verify`` with ``arguments``; exits as :func:`genprotimg` does."""

    def build() -> Program:
        from zseal.cli.hostkey.app import verify

        return _single("pvverify", verify)

    _run("pvverify", build, arguments)


def pvextract_hdr(arguments: Sequence[str] | None = None) -> None:
    """Write the SE header of an image to a file, ``sehdr.bin`` by default, and replace that file if it exists."""

    def build() -> Program:
        from zseal.cli.image.extract import extract_header_as_pvextract_hdr

        return _single("pvextract-hdr", extract_header_as_pvextract_hdr)

    _run("pvextract-hdr", build, arguments)


def _run(name: str, build: Callable[[], Program], arguments: Sequence[str] | None) -> None:
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["--version"]:
        print(f"{name} version {COMPATIBLE_VERSION} (zseal {__version__})")
        return
    run_program(build, args, name)


def _app(name: str) -> typer.Typer:
    import typer

    return typer.Typer(
        name=name, rich_markup_mode=None, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )


def _single(name: str, command: Callable[..., None]) -> Program:
    from zseal.cli.help import command_of

    app = _app(name)
    app.command()(command)
    return command_of(app)
