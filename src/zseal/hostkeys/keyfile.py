"""Private host keys in files."""

from __future__ import annotations

import warnings
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.errors import InputError
from zseal.files import read_limited

# the largest private key in use (RSA, 16384 bits) has 13 KiB in PEM
MAX_KEY_FILE = 64 << 10


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the P-521 private key in the file ``path``: PEM or DER, PKCS #8 or SEC 1, not encrypted.

    Raises InputError if it cannot be read or is another kind of key.
    """
    data = read_limited(path, MAX_KEY_FILE, "private key")
    where = str(path)
    load = serialization.load_pem_private_key if b"-----BEGIN" in data else serialization.load_der_private_key
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = load(data, password=None)
    except TypeError as error:
        raise InputError(
            "the private key is encrypted", where=where, hint="decrypt it first, for example with openssl pkey"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("not a private key in PEM or DER", where=where) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError("not an elliptic-curve key; a host key is one on secp521r1 (P-521)", where=where)
    if not isinstance(key.curve, ec.SECP521R1):
        raise InputError(f"the key is on {key.curve.name}; a host key is on secp521r1 (P-521)", where=where)
    return key


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return ``key`` as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
