"""The secret store of the guest in which this runs; it needs only Python."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable

from zseal.cli.plain import one_of
from zseal.cli.program import tell
from zseal.cli.request_options import add_guest_options, open_ultravisor
from zseal.cli.secret.streams import read_input, write_output
from zseal.errors import FormatError, InputError, UsageError
from zseal.formats.add_secret_request import MAGIC, AddSecretRequestBlock, SecretType
from zseal.formats.request import MAX_REQUEST_SIZE
from zseal.formats.secret_list import SecretList
from zseal.secrets.info import SecretInfo
from zseal.secrets.stored import find_secrets, list_text, list_values, pem, plaintext_of, secret_id
from zseal.yamltext import to_yaml


def options_of_add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("positional", metavar="FILE", nargs="*", help="The request, instead of -i.")
    add("-i", "--input", metavar="FILE", help="Read the request from FILE (-: stdin).")
    add("-f", "--force", action="store_true", help="Add it even if a secret with the same ID exists.")
    add_guest_options(parser)


def single(options: argparse.Namespace, name: str, given: str | None) -> str:
    """Return the value given as an option or by its position; raises UsageError for both, for neither, and for more."""
    if len(options.positional) > 1:
        raise UsageError(f"too many arguments: {options.positional[1]}")
    positional: str | None = options.positional[0] if options.positional else None
    return one_of(given, positional, name)


def add_secret(options: argparse.Namespace) -> None:
    """Pass a request on to the ultravisor."""
    data = read_input(single(options, "the request", options.input), MAX_REQUEST_SIZE, "add-secret request")
    if not data.startswith(MAGIC):
        raise FormatError("not an add-secret request: it does not begin with asrcbM")
    with open_ultravisor(options) as ultravisor:
        if not options.force:
            block = AddSecretRequestBlock.parse(data)
            named = block.secret.type not in (SecretType.META, SecretType.UPDATE_CCK)
            listed = SecretList.parse(ultravisor.list_secrets()) if named else None
            if listed is not None and any(entry.secret_id == block.secret_id for entry in listed.entries):
                raise InputError("a secret with this ID already exists", hint="give --force to add another")
        ultravisor.add_secret(data)
    if not options.quiet:
        tell("The secret was added.")


def options_of_list(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("positional", metavar="FILE", nargs="*", help="Where to write the list, instead of -o.")
    add("-o", "--output", metavar="FILE", help="Write the list to FILE (default: stdout).")
    add("--format", choices=("human", "yaml", "json", "bin"), default="human", help="Format (default: human).")
    add_guest_options(parser)
    add("--overwrite", action="store_true", help="Replace an existing output.")


def list_secrets(options: argparse.Namespace) -> None:
    """Show the list of secrets."""
    given = options.positional or options.output is not None
    target = single(options, "the output", options.output) if given else None
    with open_ultravisor(options) as ultravisor:
        listed = SecretList.parse(ultravisor.list_secrets())
    forms: dict[str, Callable[[], bytes]] = {
        "human": lambda: list_text(listed).encode(),
        "yaml": lambda: to_yaml(list_values(listed)).encode(),
        "json": lambda: (json.dumps(list_values(listed), indent=2) + "\n").encode(),
        "bin": listed.pack,
    }
    write_output(target or "-", forms[options.format](), overwrite=options.overwrite)
    if listed.next_index:
        tell("warning: the guest has more secrets than the driver lists")


def options_of_lock(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_guest_options(parser)


def lock_secrets(options: argparse.Namespace) -> None:
    """Lock the secret store."""
    with open_ultravisor(options) as ultravisor:
        ultravisor.lock_secrets()
    if not options.quiet:
        tell("The secret store is locked.")


def options_of_retrieve(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("positional", metavar="ID", nargs="*", help="Which secret, then where to write it, instead of -i and -o.")
    add("-i", "--input", metavar="ID", help="Which secret; see --inform.")
    add("-o", "--output", metavar="FILE", help="Write the secret to FILE (default: stdout).")
    add("--inform", choices=("yaml", "hex", "name", "idx"), default="yaml", help="What ID is (default: yaml, a file).")
    add_guest_options(parser)
    add("--outform", choices=("pem", "bin"), default="pem", help="Form of the output (default: pem).")
    add("--overwrite", action="store_true", help="Replace an existing output.")


def retrieve_secret(options: argparse.Namespace) -> None:
    """Write a secret to a file or to stdout."""
    names = list(options.positional)
    room = (options.input is None) + (options.output is None)
    if len(names) > room:
        raise UsageError(f"too many arguments: {names[room]}")
    wanted = one_of(options.input, names.pop(0) if names and options.input is None else None, "the ID")
    target = options.output if not names else one_of(options.output, names[0], "the output")
    with open_ultravisor(options) as ultravisor:
        listed = SecretList.parse(ultravisor.list_secrets())
        if options.inform == "idx":
            entries = [entry for entry in listed.entries if str(entry.index) == wanted]
            if not entries:
                raise InputError(f"the guest has no secret with the index {wanted}")
        else:
            entries = find_secrets(listed, _identifiers(wanted, options.inform))
        if len(entries) > 1:
            tell(f"warning: {len(entries)} secrets have this ID: index {entries[0].index} is taken")
        entry = entries[0]
        secret = ultravisor.retrieve_secret(entry.index, entry.length)
    kind = SecretType(entry.type)
    if kind is SecretType.PLAINTEXT:
        secret = plaintext_of(secret)
    data = secret if options.outform == "bin" else pem(kind, secret)
    write_output(target or "-", data, overwrite=options.overwrite, mode=0o600)


def _identifiers(wanted: str, form: str) -> list[bytes]:
    if form == "hex":
        if not re.fullmatch(r"0x[0-9a-fA-F]{64}", wanted):
            raise UsageError("an ID has the form 0x and 64 hexadecimal digits")
        return [bytes.fromhex(wanted[2:])]
    if form == "name":
        return [secret_id(wanted, use_name=True), secret_id(wanted)]
    text = read_input(wanted, 1 << 16, "description of a secret").decode("utf-8", "replace")
    return [SecretInfo.parse(text).secret_id]
