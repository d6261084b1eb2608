"""``zseal secret verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from zseal.cli.secret.keys import verifying_key
from zseal.cli.secret.store import single
from zseal.cli.secret.streams import read_input, write_output
from zseal.formats.request import MAX_REQUEST_SIZE


def options_of_verify(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("positional", metavar="FILE", nargs="*", help="The request, instead of -i.")
    add("-i", "--input", metavar="FILE", help="Read the request from FILE (-: stdin).")
    add("-o", "--output", metavar="FILE", help="Write the user data to FILE (default: stdout).")
    add("--user-cert", "--user-key", metavar="FILE", type=Path, help="Certificate or public key of the signer.")
    add("--overwrite", action="store_true", help="Replace an existing output.")


def verify(options: argparse.Namespace) -> None:
    """Write the verified user data of a request."""
    from zseal.secrets import verified_user_data

    data = read_input(single(options, "the request", options.input), MAX_REQUEST_SIZE, "add-secret request")
    key = verifying_key(options.user_cert) if options.user_cert else None
    found = verified_user_data(data, key)
    if found:
        write_output(options.output or "-", found, overwrite=options.overwrite)
