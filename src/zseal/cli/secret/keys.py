"""Private and public keys from files, for secrets and for signatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zseal.errors import InputError
from zseal.files import read_limited

if TYPE_CHECKING:
    from zseal.secrets.new_secret import EcPrivateKey
    from zseal.secrets.user_data import SigningKey, VerifyingKey

_MAX_KEY_FILE = 1 << 16


def _load(path: Path, what: str, *, private: bool) -> object:
    import warnings

    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data = read_limited(path, _MAX_KEY_FILE, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if private:
                if b"-----BEGIN" in data:
                    return serialization.load_pem_private_key(data, password=None)
                return serialization.load_der_private_key(data, password=None)
            if b"-----BEGIN CERTIFICATE" in data:
                from cryptography import x509

                return x509.load_pem_x509_certificate(data).public_key()
            if b"-----BEGIN" in data:
                return serialization.load_pem_public_key(data)
            return serialization.load_der_public_key(data)
    except TypeError as error:
        raise InputError(f"the {what} is encrypted", where=str(path), hint="decrypt it first") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"not a {what} in PEM or DER", where=str(path)) from error


def ec_key(path: Path) -> EcPrivateKey:
    """Return the private key for a secret; raises InputError for another kind of key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

    key = _load(path, "private key", private=True)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise InputError("not an elliptic-curve private key", where=str(path))
    return key


def signing_key(path: Path) -> SigningKey:
    """Return the private key that signs requests; raises InputError for another kind of key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = _load(path, "private key", private=True)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InputError("only EC and RSA keys can sign requests", where=str(path))
    return key


def verifying_key(path: Path) -> VerifyingKey:
    """Return the public key in ``path``, a certificate or the key itself; raises InputError for another kind."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = _load(path, "public key", private=False)
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise InputError("only EC and RSA keys can verify requests", where=str(path))
    return key
