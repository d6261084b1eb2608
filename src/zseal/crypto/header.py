"""Sealing and opening an SE header with its header protection key."""

from __future__ import annotations

import dataclasses

from zseal.crypto import gcm
from zseal.errors import VerificationError
from zseal.formats.key_slot import KeySlot
from zseal.formats.se_header import AREA_SIZE, FixedPart, SecretArea, SeHeader, header_size
from zseal.secret import Secret


def seal_header(fixed: FixedPart, slots: tuple[KeySlot, ...], area: SecretArea, header_key: Secret) -> SeHeader:
    """Return the header with ``area`` encrypted; ``sehs``, ``nks`` and ``sea`` of ``fixed`` are filled in here."""
    fixed = dataclasses.replace(fixed, sehs=header_size(len(slots)), nks=len(slots), sea=AREA_SIZE)
    draft = SeHeader(fixed=fixed, slots=slots, encrypted=b"", tag=b"")
    encrypted, tag = gcm.encrypt(header_key, fixed.iv, area.pack(), draft.authenticated)
    return dataclasses.replace(draft, encrypted=encrypted, tag=tag)


def open_header(header: SeHeader, header_key: Secret) -> SecretArea:
    """Authenticate ``header`` and return its decrypted area.

    Raises VerificationError if the key is wrong or any byte of the header was changed, FormatError for an area with
    optional items.
    """
    try:
        plain = gcm.decrypt(header_key, header.fixed.iv, header.encrypted, header.tag, header.authenticated)
    except VerificationError as error:
        raise VerificationError(
            "the SE header is not authentic: its tag does not match",
            hint="it was changed, or the header key is that of another image",
        ) from error
    try:
        return SecretArea.unpack(plain.view())
    finally:
        plain.wipe()
