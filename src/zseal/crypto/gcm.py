"""AES-256-GCM with a detached 16-byte tag, as headers, requests and key slots use it."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from zseal.errors import VerificationError
from zseal.secret import Secret

IV_SIZE = 12
TAG_SIZE = 16
KEY_SIZE = 32
_BLOCK_SIZE = 16


def _key(key: Secret) -> memoryview:
    if len(key) != KEY_SIZE:
        raise ValueError(f"an AES-256 key has {KEY_SIZE} bytes, not {len(key)}")
    return key.view()


def encrypt(key: Secret, iv: bytes, plaintext: bytes, aad: bytes = b"") -> tuple[bytes, bytes]:
    """Return ciphertext and tag of ``plaintext``; ``aad`` is authenticated as well."""
    sealed = AESGCM(_key(key)).encrypt(iv, plaintext, aad)
    return sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]


def decrypt(key: Secret, iv: bytes, ciphertext: bytes, tag: bytes, aad: bytes = b"") -> Secret:
    """Return the plaintext, which is never in memory that cannot be wiped.

    Raises VerificationError if key, IV, ciphertext, tag or ``aad`` is not the original.
    """
    plain = bytearray(len(ciphertext) + _BLOCK_SIZE)  # update_into needs room for one more block
    decryptor = Cipher(algorithms.AES(_key(key)), modes.GCM(iv, tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    decryptor.update_into(ciphertext, plain)
    try:
        decryptor.finalize()
        return Secret(memoryview(plain)[: len(ciphertext)])
    except InvalidTag as error:
        raise VerificationError("the authentication tag does not match") from error
    finally:
        plain[:] = bytes(len(plain))
