"""``zseal secret``, also under the name ``pvsecret``: requests that carry secrets, and a guest's secret store."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zseal.cli.plain import PlainProgram
from zseal.cli.program import Program, run_program
from zseal.cli.secret import create, store, verify
from zseal.version import __version__


def program(*, usage_code: int = 2) -> Program:
    """Return the program."""
    built = PlainProgram(
        "Create requests that carry secrets to protected guests, and manage a guest's secret store.",
        usage_code=usage_code,
    )
    built.command(
        "create", "Create an add-secret request, on a trusted computer.", create.options_of_create, create.create
    )
    built.command("add", "Add a secret to this guest.", store.options_of_add, store.add_secret)
    built.command("list", "List the secrets of this guest.", store.options_of_list, store.list_secrets)
    built.command(
        "lock", "Lock this guest's secret store until it is started again.", store.options_of_lock, store.lock_secrets
    )
    built.command(
        "retrieve",
        "Retrieve a secret of this guest.",
        store.options_of_retrieve,
        store.retrieve_secret,
        aliases=("retr",),
    )
    built.command(
        "verify", "Verify the user data of a request, and print them.", verify.options_of_verify, verify.verify
    )
    return built


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``pvsecret`` with ``arguments`` (default: this process's) and exit with its code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["--version"]:
        print(f"pvsecret version {__version__} (zseal)")
        return
    run_program(lambda: program(usage_code=1), args, "pvsecret")
