"""The control flags of an image as named decisions, and which of them need or exclude each other."""

from __future__ import annotations

import dataclasses
import re

from zseal.errors import InputError, UsageError
from zseal.formats.se_header import PCKMO, PlainFlags, SecretFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """What the guest, its host and the owner of its keys may do. The defaults are those of pvimg."""

    dump: bool = False
    """The host may take a dump, which only the owner of the customer communication key (CCK) can decrypt."""
    cck_extension_secret: bool = False
    """Every add-secret request must carry the extension secret derived from the CCK."""
    cck_update: bool = False
    """The guest may replace its CCK by an update-CCK request (z17 and newer)."""
    pckmo: bool = True
    """The guest may wrap DEA, TDEA, AES and ECC keys with PCKMO."""
    pckmo_hmac: bool = False
    """The guest may wrap HMAC keys with PCKMO."""
    backup_keys: bool = False
    """A machine may also open the image with its backup host key."""
    image_encryption: bool = True
    """Kernel, ramdisk and command line are encrypted; otherwise they are only protected against changes."""

    def check(self, *, cck: bool, image_key: bool) -> None:
        """Raise UsageError for decisions that do not fit; ``cck`` and ``image_key``: are they given?"""
        if self.dump and not (cck or self.cck_update):
            raise UsageError("`dump` needs `cck` or `cck_update`")
        if self.cck_extension_secret and not cck:
            raise UsageError("`cck_extension_secret` needs `cck`")
        if self.cck_extension_secret and self.cck_update:
            raise UsageError("`cck_extension_secret` excludes `cck_update`")
        if image_key and not self.image_encryption:
            raise UsageError("`image_key` excludes `image_encryption=False`")

    @property
    def plain_flags(self) -> PlainFlags:
        """The plaintext control flags (pcf)."""
        flags = PlainFlags(0)
        for wanted, flag in (
            (self.dump, PlainFlags.DUMP),
            (not self.image_encryption, PlainFlags.NO_COMPONENT_ENCRYPTION),
            (self.pckmo, PCKMO),
            (self.pckmo_hmac, PlainFlags.PCKMO_HMAC),
            (self.backup_keys, PlainFlags.BACKUP_KEYS),
        ):
            flags |= flag if wanted else 0
        return flags

    @property
    def secret_flags(self) -> SecretFlags:
        """The secret control flags (scf)."""
        flags = SecretFlags(0)
        flags |= SecretFlags.CCK_EXTENSION_SECRET if self.cck_extension_secret else 0
        flags |= SecretFlags.CCK_UPDATE if self.cck_update else 0
        return flags


def parse_word(text: str, what: str) -> int:
    """Return the value of 1 to 16 hexadecimal digits, with or without ``0x``; ``what`` names it in the InputError."""
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,16}", text):
        raise InputError(f"{what} takes 1 to 16 hexadecimal digits, with or without 0x, not {text!r}")
    return int(text, 16)
