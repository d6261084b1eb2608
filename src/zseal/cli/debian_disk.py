"""``tools/debian-disk``: a Debian root disk for s390x guests, with the kernel and ramdisk to seal for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zseal.cli.help import command_of
from zseal.cli.program import run_program


def command(
    output: Annotated[
        Path,
        typer.Argument(metavar="OUT.img", help="Disk to write; OUT.vmlinuz and OUT.initrd are written next to it."),
    ],
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Debian suite.", show_default=True)] = "trixie",
    package: Annotated[
        list[str] | None,
        typer.Option("--package", metavar="NAME", help="Also install this package (repeatable)."),
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Size of the disk, such as 2G.")] = "2G",
    hostname: Annotated[str, typer.Option("--hostname", metavar="NAME", help="Host name of the system.")] = "debian",
    kernel_suite: Annotated[
        str,
        typer.Option(
            "--kernel-suite", metavar="SUITE", help="Take the kernel from this suite (default: that of the disk)."
        ),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
) -> None:
    """Build a Debian root disk that boots to a login prompt as a (protected) s390x guest.

    The first time takes a minute or two. The result is kept in the user's cache and copied the next time. Root logs in
    without a password: set one before anyone else can reach the guest.
    """
    from zseal.cli.progress import ProgressBars
    from zseal.debian.disk import CMDLINE, Recipe, debian_disk
    from zseal.files import output_exists, write_atomic
    from zseal.sizes import parse_size

    kernel, ramdisk = output.with_suffix(".vmlinuz"), output.with_suffix(".initrd")
    for path in (output, kernel, ramdisk):
        if not overwrite and (path.exists() or path.is_symlink()):
            raise output_exists(path)
    recipe = Recipe(suite, tuple(package or ()), parse_size(size, "disk size"), hostname, kernel_suite)
    with ProgressBars() as bars:
        built = debian_disk(recipe, progress=bars)
    built.copy_disk(output, overwrite=overwrite)
    write_atomic(kernel, built.kernel.read_bytes(), overwrite=overwrite, mode=0o644)
    write_atomic(ramdisk, built.ramdisk, overwrite=overwrite, mode=0o644)
    print(f"Disk {output}, kernel {kernel}, ramdisk {ramdisk}")
    print(f"Seal them with these kernel parameters: {CMDLINE}")


def main() -> None:
    """Run the tool and exit with its code."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_program(lambda: command_of(app), sys.argv[1:], "debian-disk")


if __name__ == "__main__":
    main()
