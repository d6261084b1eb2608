"""Signatures on certificates and CRLs, and the strength of their keys and digests."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

# bits of security by size of an RSA or DSA modulus, and by size of an elliptic curve (NIST SP 800-57, as OpenSSL)
_MODULUS_STRENGTH = ((15360, 256), (7680, 192), (4096, 152), (3072, 128), (2048, 112), (1024, 80))
_CURVE_STRENGTH = ((512, 256), (384, 192), (256, 128), (224, 112), (160, 80))
# 112 bits of security in signatures rule out SHA-1 and everything before it
_WEAK_DIGESTS = (hashes.MD5, hashes.SHA1)


def security_bits(key: CertificatePublicKeyTypes) -> int:
    """Return the bits of security of ``key`` on OpenSSL's scale; 0 for one too small or unable to sign."""
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        return _strength(_MODULUS_STRENGTH, key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _strength(_CURVE_STRENGTH, key.curve.key_size)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return 128
    if isinstance(key, ed448.Ed448PublicKey):
        return 224
    return 0


def _strength(table: tuple[tuple[int, int], ...], size: int) -> int:
    return next((bits for least, bits in table if size >= least), 0)


def digest_is_weak(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Return whether ``signed`` was signed over SHA-1, something weaker, or something unknown."""
    try:
        digest = signed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return True
    return isinstance(digest, _WEAK_DIGESTS)


def signature_holds(
    signed: x509.Certificate | x509.CertificateRevocationList, body: bytes, key: CertificatePublicKeyTypes | None
) -> bool:
    """Return whether ``key`` made the signature on ``signed``, whose signed part is ``body``.

    A signature of a kind that does not fit the key does not count.

    MD5 is refused, SHA-1 is not: the caller decides whether that is enough.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            scheme = signed.signature_algorithm_parameters
            digest = signed.signature_hash_algorithm
            if isinstance(digest, hashes.MD5):
                return False
            if isinstance(key, rsa.RSAPublicKey) and isinstance(scheme, padding.PKCS1v15 | padding.PSS) and digest:
                key.verify(signed.signature, body, scheme, digest)
            elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
                key.verify(signed.signature, body, scheme)
            elif isinstance(key, dsa.DSAPublicKey) and scheme is None and digest:
                key.verify(signed.signature, body, digest)
            elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey) and scheme is None and not digest:
                key.verify(signed.signature, body)
            else:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
