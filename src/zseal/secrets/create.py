"""Creates an add-secret request: one secret, for the guests of one image, or for one guest alone."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto import gcm
from zseal.crypto.keyexchange import CURVE, public_coordinates
from zseal.crypto.request import make_slots, seal_request
from zseal.errors import InputError
from zseal.formats.add_secret_request import (
    EXTENSION_SECRET_SIZE,
    USER_DATA_SIZE,
    AddSecretFlags,
    AddSecretPart,
    SecretHeader,
    fixed_part,
    magic,
)
from zseal.formats.attestation_request import CUID_SIZE
from zseal.formats.header_tags import HeaderTags
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import IV_SIZE, PROTECTION_KEY_SIZE, TAG_SIZE, Request, RequestHeader
from zseal.secret import Secret
from zseal.secrets.new_secret import NewSecret
from zseal.secrets.user_data import UserData

NO_FLAGS = AddSecretFlags(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddSecretRequestKeys:
    """Everything random in an add-secret request: the same values give the same request."""

    protection_key: Secret
    """32 bytes; it is not needed once the request is made."""
    iv: bytes
    """12 bytes."""
    customer_key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def generate(cls) -> AddSecretRequestKeys:
        """Return new random values."""
        return cls(
            protection_key=Secret(secrets.token_bytes(PROTECTION_KEY_SIZE)),
            iv=secrets.token_bytes(IV_SIZE),
            customer_key=ec.generate_private_key(CURVE()),
        )


def create_add_secret_request(
    host_keys: Sequence[ec.EllipticCurvePublicKey],
    *,
    tags: HeaderTags,
    secret: NewSecret,
    cuid: bytes | None = None,
    extension_secret: Secret | None = None,
    flags: AddSecretFlags = NO_FLAGS,
    user_data: UserData | None = None,
    keys: AddSecretRequestKeys | None = None,
) -> Request:
    """Return a request that machines with one of ``host_keys`` accept for guests whose image has ``tags``.

    ``cuid`` (16 bytes) binds it to one running guest, None to none. ``extension_secret`` (32 bytes; None: zeros) must
    be that of the guest's other requests, or the one derived from the image's CCK if the image requires that. ``keys``
    are the random values to use instead of new ones. The request's ``tag`` names it. Raises InputError for no host key,
    more than 255, one that is not on P-521, and for values of another size.
    """
    keys = keys or AddSecretRequestKeys.generate()
    data = user_data or UserData()
    extension = _sized(extension_secret, EXTENSION_SECRET_SIZE, "extension secret")
    if cuid is not None and len(cuid) != CUID_SIZE:
        raise InputError(f"a configuration unique ID has {CUID_SIZE} bytes, not {len(cuid)}")
    slots = make_slots(keys.customer_key, host_keys, keys.protection_key)
    plaintext = Secret(secret.value.reveal() + extension.reveal())
    named = SecretHeader(type=secret.type, length=len(secret.value)).pack() + secret.secret_id
    header = RequestHeader(
        magic=magic(data.type),
        rql=AddSecretPart.SIZE + KeySlot.SIZE * len(slots) + len(named) + len(plaintext) + TAG_SIZE,
        iv=keys.iv,
        nks=len(slots),
        sea=len(plaintext),
    )
    part = AddSecretPart(
        flags=flags,
        tags=tags.pack(),
        cuid=cuid or bytes(CUID_SIZE),
        user_data=data.payload.ljust(USER_DATA_SIZE, b"\0"),
        customer_key=public_coordinates(keys.customer_key.public_key()),
    )
    authenticated = fixed_part(header, part) + b"".join(slot.pack() for slot in slots) + named
    # the ciphertext of AES-GCM does not depend on what is authenticated, so the signature can cover it
    encrypted, _ = gcm.encrypt(keys.protection_key, keys.iv, plaintext.reveal(), authenticated)
    return seal_request(data.signed(authenticated, encrypted), keys.iv, plaintext, keys.protection_key)


def _sized(secret: Secret | None, size: int, what: str) -> Secret:
    if secret is None:
        return Secret(bytes(size))
    if len(secret) != size:
        raise InputError(f"an {what} has {size} bytes, not {len(secret)}")
    return secret
