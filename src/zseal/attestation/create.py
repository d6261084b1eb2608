"""Creates an attestation request, which an owner sends to a guest to find out which image runs where."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, public_coordinates
from zseal.crypto.request import make_slots, seal_request
from zseal.formats.attestation_file import RequestFile
from zseal.formats.attestation_request import (
    MAGIC,
    MEASUREMENT_KEY_SIZE,
    MEASUREMENT_SIZE,
    NONCE_SIZE,
    AttestationFlags,
    AttestationPart,
    additional_size,
    fixed_part,
)
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import IV_SIZE, PROTECTION_KEY_SIZE, TAG_SIZE, RequestHeader
from zseal.secret import Secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttestationRequestKeys:
    """Everything random in an attestation request: the same values give the same request."""

    protection_key: Secret
    """32 bytes (ARPK): decrypts the request; the verifier of the answer needs it."""
    measurement_key: Secret
    """64 bytes: the HMAC key of the measurement."""
    nonce: Secret
    """16 bytes."""
    iv: bytes
    """12 bytes."""
    customer_key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def generate(cls) -> AttestationRequestKeys:
        """Return new random values."""
        return cls(
            protection_key=Secret(secrets.token_bytes(PROTECTION_KEY_SIZE)),
            measurement_key=Secret(secrets.token_bytes(MEASUREMENT_KEY_SIZE)),
            nonce=Secret(secrets.token_bytes(NONCE_SIZE)),
            iv=secrets.token_bytes(IV_SIZE),
            customer_key=ec.generate_private_key(CURVE()),
        )


@dataclasses.dataclass(frozen=True)
class CreatedAttestationRequest:
    """A new request: the file for the guest, and the keys that stay with its owner."""

    file: RequestFile
    keys: AttestationRequestKeys

    @property
    def protection_key(self) -> Secret:
        """The 32 bytes that verify the answer (ARPK): keep them secret, and use them for one answer only."""
        return self.keys.protection_key


def create_attestation_request(
    host_keys: Sequence[ec.EllipticCurvePublicKey],
    *,
    additional: Iterable[AttestationFlags] = (),
    keys: AttestationRequestKeys | None = None,
) -> CreatedAttestationRequest:
    """Return a request that machines with one of ``host_keys`` answer, measured with a nonce.

    ``additional`` selects the additional data of the answer. ``keys`` are random values to use instead of new ones.
    Raises InputError for no host key, for more than 255, or for a key that is not on P-521.
    """
    keys = keys or AttestationRequestKeys.generate()
    flags = AttestationFlags.NONCE
    for flag in additional:
        flags |= flag
    slots = make_slots(keys.customer_key, host_keys, keys.protection_key)
    plaintext = Secret(keys.measurement_key.reveal() + keys.nonce.reveal())
    header = RequestHeader(
        magic=MAGIC,
        rql=AttestationPart.SIZE + KeySlot.SIZE * len(slots) + len(plaintext) + TAG_SIZE,
        iv=keys.iv,
        nks=len(slots),
        sea=len(plaintext),
    )
    part = AttestationPart(flags=flags, customer_key=public_coordinates(keys.customer_key.public_key()))
    authenticated = fixed_part(header, part) + b"".join(slot.pack() for slot in slots)
    request = seal_request(authenticated, keys.iv, plaintext, keys.protection_key)
    file = RequestFile(arcb=request.pack(), measurement_size=MEASUREMENT_SIZE, additional_size=additional_size(flags))
    return CreatedAttestationRequest(file, keys)
