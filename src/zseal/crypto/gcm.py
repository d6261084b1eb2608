"""AES-256-GCM with a detached 16-byte tag, as headers, requests and key slots use it."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from zseal.errors import VerificationError
from zseal.secret import Secret

IV_SIZE = 12
TAG_SIZE = 16
KEY_SIZE = 32


def _cipher(key: Secret) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise ValueError(f"an AES-256 key has {KEY_SIZE} bytes, not {len(key)}")
    return AESGCM(key.reveal())


def encrypt(key: Secret, iv: bytes, plaintext: bytes, aad: bytes = b"") -> tuple[bytes, bytes]:
    """Return ciphertext and tag of ``plaintext``; ``aad`` is authenticated as well."""
    sealed = _cipher(key).encrypt(iv, plaintext, aad)
    return sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]


def decrypt(key: Secret, iv: bytes, ciphertext: bytes, tag: bytes, aad: bytes = b"") -> bytes:
    """Return the plaintext; raises VerificationError where key, IV, ciphertext, tag or ``aad`` is not the original."""
    try:
        return _cipher(key).decrypt(iv, ciphertext + tag, aad)
    except InvalidTag as error:
        raise VerificationError("the authentication tag does not match") from error
