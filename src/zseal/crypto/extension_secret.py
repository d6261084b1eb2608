"""The extension secret that is derived from the customer communication key."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from zseal.formats.add_secret_request import EXTENSION_SECRET_SIZE
from zseal.secret import Secret

_INFO = b"IBM Z Ultravisor Add-Secret"


def derive_extension_secret(cck: Secret, seht: bytes) -> Secret:
    """Return the 32-byte extension secret for the image with the SE header tag ``seht`` (HKDF, SHA-512)."""
    derivation = HKDF(algorithm=hashes.SHA512(), length=EXTENSION_SECRET_SIZE, salt=seht, info=_INFO)
    return Secret(derivation.derive(cck.reveal()))
