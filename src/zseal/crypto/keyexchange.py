"""The key exchange of key slots (version 1): ECDH over P-521, one block of the X9.63 KDF, AES-256-GCM wrapping.

Headers, attestation requests and add-secret requests use the same steps, as s390-tools' libpv does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto import gcm
from zseal.errors import InputError
from zseal.formats.key_slot import COORDINATE_SIZE, PUBLIC_KEY_SIZE, KeySlot
from zseal.secret import Secret

CURVE = ec.SECP521R1
# safe because every image or request has a new customer key, hence a new wrapping key
_WRAP_IV = bytes(gcm.IV_SIZE)


@dataclasses.dataclass(frozen=True, repr=False)
class MachineKeys:
    """The private host keys of one machine: ``host``, and ``backup`` if it has a second one; both on P-521."""

    host: ec.EllipticCurvePrivateKey
    backup: ec.EllipticCurvePrivateKey | None = None

    def __post_init__(self) -> None:
        for key in (self.host, self.backup):
            if key is not None:
                check_curve(key.public_key())

    def __repr__(self) -> str:
        return f"MachineKeys(host={key_hash(self.host.public_key()).hex()[:16]}…)"


def check_curve(key: ec.EllipticCurvePublicKey) -> None:
    """Raise InputError unless ``key`` is on P-521."""
    if not isinstance(key.curve, CURVE):
        raise InputError(f"the key is on the curve {key.curve.name}; host keys are on secp521r1 (P-521)")


def public_coordinates(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the affine coordinates X || Y, big-endian, 80 bytes each; raises InputError for another curve."""
    check_curve(key)
    numbers = key.public_numbers()
    return numbers.x.to_bytes(COORDINATE_SIZE, "big") + numbers.y.to_bytes(COORDINATE_SIZE, "big")


def public_key(coordinates: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-521 key with the 160 bytes of ``coordinates`` (X || Y); raises InputError if they are not on the
    curve.
    """
    if len(coordinates) != PUBLIC_KEY_SIZE:
        raise InputError(f"a public key has {PUBLIC_KEY_SIZE} bytes of coordinates, not {len(coordinates)}")
    x = int.from_bytes(coordinates[:COORDINATE_SIZE], "big")
    y = int.from_bytes(coordinates[COORDINATE_SIZE:], "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, CURVE()).public_key()
    except ValueError as error:
        raise InputError("the public key is not a point on the curve P-521") from error


def key_hash(key: ec.EllipticCurvePublicKey | bytes) -> bytes:
    """Return the hash (phkh, 32 bytes) that names a public key, given as a key or as its 160 bytes of coordinates."""
    coordinates = key if isinstance(key, bytes) else public_coordinates(key)
    return hashlib.sha256(coordinates).digest()


def shared_secret(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> Secret:
    """Return the ECDH result: the x coordinate, 66 bytes, leading zeros kept."""
    check_curve(private.public_key())
    check_curve(public)
    return Secret(private.exchange(ec.ECDH(), public))


def key_encryption_key(shared: Secret) -> Secret:
    """Return the 32-byte AES key that wraps protection keys: SHA-256(Z || 00000001)."""
    derived = hashlib.sha256(shared.view())
    derived.update(b"\0\0\0\1")
    return Secret(derived.digest())


def wrap(protection_key: Secret, kek: Secret) -> tuple[bytes, bytes]:
    """Return the wrapped 32-byte ``protection_key`` and its tag."""
    return gcm.encrypt(kek, _WRAP_IV, protection_key.reveal())


def unwrap(slot: KeySlot, kek: Secret) -> Secret:
    """Return the 32-byte protection key in ``slot``; raises VerificationError if the tag does not match."""
    return gcm.decrypt(kek, _WRAP_IV, slot.wrpk, slot.kst)


def make_slot(customer: ec.EllipticCurvePrivateKey, host: ec.EllipticCurvePublicKey, protection_key: Secret) -> KeySlot:
    """Return a slot that lets the owner of ``host`` recover ``protection_key``; raises InputError for another curve."""
    wrapped, tag = wrap(protection_key, key_encryption_key(shared_secret(customer, host)))
    return KeySlot(phkh=key_hash(host), wrpk=wrapped, kst=tag)


def find_slot(slots: Iterable[KeySlot], phkh: bytes) -> KeySlot | None:
    """Return the first of ``slots`` made for the host key with the hash ``phkh``."""
    return next((slot for slot in slots if hmac.compare_digest(slot.phkh, phkh)), None)


def open_slot(private: ec.EllipticCurvePrivateKey, customer: ec.EllipticCurvePublicKey, slot: KeySlot) -> Secret:
    """Return the protection key that ``slot`` holds for the host key ``private``; raises VerificationError."""
    return unwrap(slot, key_encryption_key(shared_secret(private, customer)))
