"""``zseal secret create``."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zseal.cli.program import tell
from zseal.cli.request_options import add_host_key_options, header_tags, read_key, verified_documents
from zseal.cli.secret.keys import ec_key, signing_key
from zseal.errors import FormatError, InputError, UsageError
from zseal.files import check_output, read_limited, write_atomic
from zseal.secrets.info import SecretInfo
from zseal.uvdevice import in_protected_guest
from zseal.yamltext import Texts, read_texts

if TYPE_CHECKING:
    from zseal.secret import Secret
    from zseal.secrets import NewSecret, UserData

_KINDS = {
    "meta": "meta",
    "association": "association",
    "retrievable": "retrievable",
    "retr": "retrievable",
    "update-cck": "update-cck",
    "cck": "update-cck",
}
_TYPES = ("plain", "aes", "aes-xts", "hmac-sha", "ec")
_ONLY_WITH = {
    "input_secret": ("--input-secret", ("association",)),
    "output_secret": ("--output-secret", ("association",)),
    "stdout": ("--stdout", ("association", "retrievable")),
    "secret": ("--secret", ("retrievable", "update-cck")),
    "type": ("--type", ("retrievable",)),
}
_KEY_SIZE = 32
_MAX_KEY_FILE = 1 << 16
_POLICY_NAME_SIZE = 480
_CUID_SIZE = 16
_MAX_YAML_DEPTH = 8


def options_of_create(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "positional",
        metavar="KIND",
        nargs="+",
        help="meta, association NAME, retrievable NAME (or retr), update-cck (or cck).",
    )
    add_host_key_options(parser)
    add("--hdr", metavar="FILE", type=Path, required=True, help="The image that the secret is for, or its SE header.")
    add("-o", "--output", metavar="FILE", type=Path, required=True, help="Write the request to FILE.")
    add("-f", "--force", action="store_true", help="Create the request even inside a protected guest.")
    add("--extension-secret", metavar="FILE", type=Path, help="Extension secret of 32 bytes.")
    add("--cck", metavar="FILE", type=Path, help="Derive the extension secret from this communication key (32 bytes).")
    add("--cuid-hex", metavar="HEX", help="Bind the request to the guest with this ID (32 hexadecimal digits).")
    add("--cuid", metavar="FILE", type=Path, help="As --cuid-hex, from a file: 16 bytes, or a result of verify.")
    add("--flags", choices=("disable-dump",), action="append", help="Forbid dumps of the guest from then on.")
    add("--pcf", metavar="HEX", help=argparse.SUPPRESS)
    add("--user-data", metavar="FILE", type=Path, help="Add the contents of FILE to the request.")
    add("--user-sign-key", metavar="FILE", type=Path, help="Sign the request with this private key.")
    add("--policy", metavar="FILE", type=Path, help="Refer to this policy in the user data.")
    add("--toc-policy", metavar="FILE", type=Path, help="Append the request's tag to FILE.")
    add("--use-name", action="store_true", help="Use the name itself as the secret's ID, instead of its hash.")
    add("--input-secret", metavar="FILE", type=Path, help="Association secret of 32 bytes (default: random).")
    add("--output-secret", metavar="FILE", type=Path, help="Write the association secret to FILE.")
    add("--stdout", action="store_true", help="Print the description of the secret instead of writing a file.")
    add("--secret", metavar="FILE", type=Path, help="The retrievable secret, or the new communication key.")
    add("--type", choices=_TYPES, help="Type of the retrievable secret.")
    add("--overwrite", action="store_true", help="Replace existing outputs.")


def _kind_and_name(options: argparse.Namespace) -> tuple[str, str]:
    given, *rest = options.positional
    kind = _KINDS.get(given)
    if kind is None:
        raise UsageError(f"there is no kind of secret {given!r}", hint=f"use {', '.join(_KINDS)}")
    named = kind in ("association", "retrievable")
    if len(rest) != named:
        raise UsageError(f"{given} takes {'the name of the secret' if named else 'no name'}")
    for attribute, (option, kinds) in _ONLY_WITH.items():
        if getattr(options, attribute) and kind not in kinds:
            raise UsageError(f"{option} does not go with {given}")
    return kind, rest[0] if rest else ""


def _check_create(options: argparse.Namespace, kind: str) -> None:
    excluding = (
        ("extension_secret", "--extension-secret", "cck", "--cck"),
        ("cuid_hex", "--cuid-hex", "cuid", "--cuid"),
        ("pcf", "--pcf", "flags", "--flags"),
        ("policy", "--policy", "user_data", "--user-data"),
        ("policy", "--policy", "user_sign_key", "--user-sign-key"),
        ("input_secret", "--input-secret", "output_secret", "--output-secret"),
    )
    for first, first_option, second, second_option in excluding:
        if getattr(options, first) and getattr(options, second):
            raise UsageError(f"{first_option} excludes {second_option}")
    needed = {"retrievable": ("secret", "type"), "update-cck": ("secret",)}.get(kind, ())
    for attribute in needed:
        if getattr(options, attribute) is None:
            raise UsageError(f"{kind} needs {_ONLY_WITH[attribute][0]}")
    if in_protected_guest() and not options.force:
        raise InputError(
            "this is a protected guest: a request created here would give its secret away",
            hint="create it on a trusted computer, or give --force",
        )


def create(options: argparse.Namespace) -> None:
    """Create the request and its other files."""
    from zseal.secrets import AddSecretFlags, create_add_secret_request, derive_extension_secret

    kind, name = _kind_and_name(options)
    _check_create(options, kind)
    flags = AddSecretFlags(_hex_word(options.pcf)) if options.pcf else AddSecretFlags(0)
    if options.flags:
        flags |= AddSecretFlags.DISABLE_DUMP
    secret = _new_secret(options, kind, name)
    info = SecretInfo(secret.type, name, secret.secret_id) if name else None
    info_path = None if info is None or options.stdout else options.output.parent / info.file_name
    for path in (options.output, options.output_secret, info_path):
        if path is not None:
            check_output(path, overwrite=options.overwrite)
    documents = verified_documents(options)
    tags = header_tags(options.hdr)
    extension = None
    if options.extension_secret:
        extension = read_key(options.extension_secret, _KEY_SIZE, "extension secret")
    elif options.cck:
        extension = derive_extension_secret(read_key(options.cck, _KEY_SIZE, "communication key"), tags.seht)
    request = create_add_secret_request(
        [document.public_key for document in documents],
        tags=tags,
        secret=secret,
        cuid=_cuid(options),
        extension_secret=extension,
        flags=flags,
        user_data=_user_data(options),
    )
    write_atomic(options.output, request.pack(), overwrite=options.overwrite, mode=0o644)
    if options.output_secret is not None:
        write_atomic(options.output_secret, secret.value.reveal(), overwrite=options.overwrite)
    if info is not None and info_path is None:
        sys.stdout.write(info.text())
    elif info is not None and info_path is not None:
        write_atomic(info_path, info.text().encode(), overwrite=options.overwrite, mode=0o644)
    if options.toc_policy is not None:
        with options.toc_policy.open("a") as stream:
            stream.write(f"{request.tag.hex()}\n")
    if not options.quiet:
        tell(f"Wrote the request to {options.output}")


def _new_secret(options: argparse.Namespace, kind: str, name: str) -> NewSecret:
    from zseal.secret import Secret
    from zseal.secrets import NewSecret

    if kind == "meta":
        return NewSecret.meta()
    if kind == "update-cck":
        return NewSecret.update_cck(read_key(options.secret, _KEY_SIZE, "communication key"))
    if kind == "association":
        given = read_key(options.input_secret, _KEY_SIZE, "association secret") if options.input_secret else None
        return NewSecret.association(name, given, use_name=options.use_name)
    if options.type == "ec":
        return NewSecret.ec(name, ec_key(options.secret), use_name=options.use_name)
    value = Secret(read_limited(options.secret, _MAX_KEY_FILE, "secret"))
    makers: dict[str, Callable[[str, Secret], NewSecret]] = {
        "plain": lambda title, data: NewSecret.plaintext(title, data, use_name=options.use_name),
        "aes": lambda title, data: NewSecret.aes(title, data, use_name=options.use_name),
        "aes-xts": lambda title, data: NewSecret.aes_xts(title, data, use_name=options.use_name),
        "hmac-sha": lambda title, data: NewSecret.hmac_sha(title, data, use_name=options.use_name),
    }
    return makers[options.type](name, value)


def _hex_word(text: str) -> int:
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,16}", text):
        raise UsageError(f"--pcf takes 1 to 16 hexadecimal digits, not {text!r}")
    return int(text, 16)


def _cuid(options: argparse.Namespace) -> bytes | None:
    if options.cuid_hex:
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{32}", options.cuid_hex):
            raise UsageError("--cuid-hex takes 32 hexadecimal digits")
        return bytes.fromhex(options.cuid_hex.removeprefix("0x"))
    if options.cuid is None:
        return None
    data = read_limited(options.cuid, 1 << 20, "configuration unique ID")
    if len(data) == _CUID_SIZE:
        return data
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    found = text.strip("'\"") if "\n" not in text and ":" not in text else _first_cuid(read_texts(text), 1)
    if not found or not re.fullmatch(r"0x[0-9a-fA-F]{32}", found):
        raise FormatError(
            "no configuration unique ID: neither 16 bytes nor YAML with a cuid of 0x and 32 hexadecimal digits",
            where=str(options.cuid),
        )
    return bytes.fromhex(found[2:])


def _first_cuid(values: Texts, depth: int) -> str | None:
    found = values.get("cuid")
    if isinstance(found, str):
        return found
    if depth < _MAX_YAML_DEPTH:
        for value in values.values():
            nested = _first_cuid(value, depth + 1) if isinstance(value, dict) else None
            if nested is not None:
                return nested
    return None


def _user_data(options: argparse.Namespace) -> UserData | None:
    from zseal.secrets import UserData

    if options.policy is not None:
        content = read_limited(options.policy, 1 << 24, "policy")
        digest = hashlib.sha256(content).digest()
        print(digest.hex())
        return UserData(digest + str(options.policy).encode()[:_POLICY_NAME_SIZE])
    payload = read_limited(options.user_data, 512, "user data") if options.user_data else b""
    key = signing_key(options.user_sign_key) if options.user_sign_key else None
    return UserData(payload, key) if payload or key else None
