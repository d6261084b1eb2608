"""What a guest needs to find its secrets and to read them; Python's standard library is enough for it."""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Sequence

from zseal.errors import InputError
from zseal.formats.add_secret_request import MAX_SECRET_SIZE, PLAINTEXT_BLOCK, SECRET_ID_SIZE, SecretType
from zseal.formats.secret_list import ListEntry, SecretList

LENGTH_SIZE = 2
"""Bytes before a plaintext secret that contain its length."""
MAX_PLAINTEXT = MAX_SECRET_SIZE - LENGTH_SIZE


def secret_id(name: str, *, use_name: bool = False) -> bytes:
    """Return the 32-byte ID of the secret ``name``: its SHA-256 hash, or with ``use_name`` its first 31 bytes."""
    if use_name:
        return name.encode()[: SECRET_ID_SIZE - 1].ljust(SECRET_ID_SIZE, b"\0")
    return hashlib.sha256(name.encode()).digest()


def plaintext_of(stored: bytes) -> bytes:
    """Return the payload of a retrieved plaintext secret; the bytes unchanged if they do not have our form."""
    length = int.from_bytes(stored[:LENGTH_SIZE], "big")
    end = LENGTH_SIZE + length
    fits = length <= MAX_PLAINTEXT and end <= len(stored) and len(stored) - end < PLAINTEXT_BLOCK
    return stored[LENGTH_SIZE:end] if fits and not any(stored[end:]) else stored


def type_text(number: int) -> str:
    """Return pvsecret's name for the type ``number`` in a list."""
    try:
        kind = SecretType(number)
    except ValueError:
        return f"Unknown({number:#06x})"
    return kind.text if kind.stored else f"Invalid({number:#06x})"


def name_in(identifier: bytes) -> str | None:
    """Return the name in an ID: printable ASCII followed by zeros only; None if it is a hash."""
    text = identifier.rstrip(b"\0")
    return text.decode() if text and text.isascii() and text.decode().isprintable() else None


def list_text(listed: SecretList) -> str:
    """Return the list as pvsecret prints it for people."""
    lines = [f"Total number of secrets: {listed.total}"]
    if listed.entries:
        lines.append("")
    for entry in listed.entries:
        name = name_in(entry.secret_id)
        lines.append(f"{entry.index} {type_text(entry.type)}:")
        lines.append(f" {f'{name} | ' if name else ''}0x{entry.secret_id.hex()}")
    return "\n".join(lines) + "\n"


def list_values(listed: SecretList) -> dict[str, object]:
    """Return the list as plain values, named as in pvsecret's YAML."""
    return {
        "total_num_secrets": listed.total,
        "secrets": [
            {"index": entry.index, "stype": entry.type, "len": entry.length, "id": f"0x{entry.secret_id.hex()}"}
            for entry in listed.entries
        ],
    }


def find_secrets(listed: SecretList, identifiers: Sequence[bytes]) -> list[ListEntry]:
    """Return the entries with the first of ``identifiers`` that any entry has; raises InputError if there is none."""
    for identifier in identifiers:
        found = [entry for entry in listed.entries if entry.secret_id == identifier]
        if found:
            return found
    raise InputError("the guest has no such secret", hint="zseal secret list shows its secrets")


def pem(kind: SecretType, secret: bytes) -> bytes:
    """Return a retrieved secret as PEM: plaintext as it is, keys as protected keys of their kind."""
    label = "PLAINTEXT SECRET" if kind is SecretType.PLAINTEXT else "IBM PROTECTED KEY"
    head = "" if kind is SecretType.PLAINTEXT else f"kind: {kind.text}\n\n"
    body = "\n".join(textwrap.wrap(base64.b64encode(secret).decode(), 64))
    return f"-----BEGIN {label}-----\n{head}{body}\n-----END {label}-----\n".encode()
