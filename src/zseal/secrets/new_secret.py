"""A secret for a guest: its type, its ID, and the form in which a request carries it."""

from __future__ import annotations

import dataclasses
import secrets

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from zseal.errors import InputError
from zseal.formats.add_secret_request import PLAINTEXT_BLOCK, SECRET_ID_SIZE, SecretType
from zseal.secret import Secret
from zseal.secrets.stored import LENGTH_SIZE, MAX_PLAINTEXT, secret_id

EcPrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
_AES = {16: SecretType.AES_128, 24: SecretType.AES_192, 32: SecretType.AES_256}
_AES_XTS = {32: SecretType.AES_XTS_128, 64: SecretType.AES_XTS_256}
_HMAC = {64: SecretType.HMAC_SHA_256, 128: SecretType.HMAC_SHA_512}
_CURVES = {
    "secp256r1": SecretType.EC_SECP256R1,
    "secp384r1": SecretType.EC_SECP384R1,
    "secp521r1": SecretType.EC_SECP521R1,
}


@dataclasses.dataclass(frozen=True)
class NewSecret:
    """A secret to put into a request; ``value`` is in the form that the ultravisor takes, see the class methods."""

    type: SecretType
    value: Secret
    name: str = ""
    secret_id: bytes = b""

    @classmethod
    def meta(cls) -> NewSecret:
        """Return no secret, for requests that only set flags or carry user data."""
        return cls(SecretType.META, Secret(b""))

    @classmethod
    def association(cls, name: str, secret: Secret | None = None, *, use_name: bool = False) -> NewSecret:
        """Return a secret of 32 bytes (default: random) with which crypto adapters are associated."""
        secret = secret if secret is not None else Secret(secrets.token_bytes(32))
        return cls._of_size({32: SecretType.ASSOCIATION}, "association secret", name, secret, use_name)

    @classmethod
    def plaintext(cls, name: str, secret: Secret, *, use_name: bool = False) -> NewSecret:
        """Return at most 8190 bytes that the guest gets back as they are."""
        if len(secret) > MAX_PLAINTEXT:
            raise InputError(f"a plaintext secret has at most {MAX_PLAINTEXT} bytes, not {len(secret)}")
        framed = len(secret).to_bytes(LENGTH_SIZE, "big") + secret.reveal()
        padded = Secret(framed + bytes(-len(framed) % PLAINTEXT_BLOCK))
        return cls(SecretType.PLAINTEXT, padded, name, secret_id(name, use_name=use_name))

    @classmethod
    def aes(cls, name: str, key: Secret, *, use_name: bool = False) -> NewSecret:
        """Return an AES key of 16, 24 or 32 bytes."""
        return cls._of_size(_AES, "AES key", name, key, use_name)

    @classmethod
    def aes_xts(cls, name: str, key: Secret, *, use_name: bool = False) -> NewSecret:
        """Return an AES-XTS key of 32 or 64 bytes: both keys, one after the other."""
        return cls._of_size(_AES_XTS, "AES-XTS key", name, key, use_name)

    @classmethod
    def hmac_sha(cls, name: str, key: Secret, *, use_name: bool = False) -> NewSecret:
        """Return an HMAC key, padded or hashed by the caller to the block size (K0 of FIPS 198-1): 64 or 128 bytes."""
        return cls._of_size(_HMAC, "HMAC key", name, key, use_name)

    @classmethod
    def ec(cls, name: str, key: EcPrivateKey, *, use_name: bool = False) -> NewSecret:
        """Return a private key on P-256, P-384, P-521, Ed25519 or Ed448."""
        if isinstance(key, ed25519.Ed25519PrivateKey):
            kind, raw = SecretType.EC_ED25519, key.private_bytes_raw()
        elif isinstance(key, ed448.Ed448PrivateKey):
            kind, raw = SecretType.EC_ED448, key.private_bytes_raw()
        else:
            found = _CURVES.get(key.curve.name)
            if found is None:
                raise InputError(
                    f"the key is on the curve {key.curve.name}",
                    hint="secrets can be keys on P-256, P-384, P-521, Ed25519 and Ed448",
                )
            kind, raw = found, key.private_numbers().private_value.to_bytes(80, "big")
        size = kind.size or 0
        value = Secret(raw[-size:].rjust(size, b"\0"))
        return cls(kind, value, name, secret_id(name, use_name=use_name))

    @classmethod
    def update_cck(cls, key: Secret) -> NewSecret:
        """Return a new customer communication key of 32 bytes for an image that allows that."""
        if len(key) != SecretType.UPDATE_CCK.size:
            raise InputError(f"a customer communication key has 32 bytes, not {len(key)}")
        return cls(SecretType.UPDATE_CCK, key, "", bytes(SECRET_ID_SIZE))

    @classmethod
    def _of_size(cls, types: dict[int, SecretType], what: str, name: str, secret: Secret, use_name: bool) -> NewSecret:
        kind = types.get(len(secret))
        if kind is None:
            sizes = " or ".join(str(size) for size in types)
            raise InputError(f"an {what} has {sizes} bytes, not {len(secret)}")
        return cls(kind, secret, name, secret_id(name, use_name=use_name))
