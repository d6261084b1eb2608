"""User data of add-secret requests: up to 512 bytes that the ultravisor authenticates but does not read.

They may be signed, so that whoever passes on a request can prove its origin. EC: ECDSA with SHA-512; RSA:
RSASSA-PSS with SHA-512 and the longest salt.
"""

from __future__ import annotations

import dataclasses

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from zseal.errors import FormatError, InputError, VerificationError
from zseal.formats.add_secret_request import MAGIC, USER_DATA_SIZE, AddSecretPart, UserDataType
from zseal.formats.request import TAG_SIZE, Request

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_PLACE = AddSecretPart.FIELDS["user_data"].offset
_EC_SIGNATURE_SIZE = 139
_EC_LENGTH_PLACE = 0x190


@dataclasses.dataclass(frozen=True)
class _Form:
    """The layout of the 512 bytes: the payload first, the signature after ``capacity`` bytes."""

    capacity: int
    signature_size: int
    key: str


_FORMS = {
    UserDataType.UNSIGNED: _Form(512, 0, "no key"),
    UserDataType.SIGNED_EC_P521: _Form(256, _EC_SIGNATURE_SIZE, "an EC key on secp521r1 (P-521)"),
    UserDataType.SIGNED_RSA_2048: _Form(256, 256, "an RSA key of 2048 bits"),
    UserDataType.SIGNED_RSA_3072: _Form(128, 384, "an RSA key of 3072 bits"),
}


def user_data_type(key: SigningKey | VerifyingKey) -> UserDataType:
    """Return the type of user data signed with ``key``; raises InputError for a key that cannot sign them."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if key.curve.name == "secp521r1":
            return UserDataType.SIGNED_EC_P521
        found = f"an EC key on {key.curve.name}"
    else:
        sizes = {2048: UserDataType.SIGNED_RSA_2048, 3072: UserDataType.SIGNED_RSA_3072}
        if key.key_size in sizes:
            return sizes[key.key_size]
        found = f"an RSA key of {key.key_size} bits"
    raise InputError(
        f"{found} cannot sign user data", hint="use an EC key on secp521r1, or an RSA key of 2048 or 3072 bits"
    )


@dataclasses.dataclass(frozen=True)
class UserData:
    """User data for a request: ``payload``, signed if there is a ``key``."""

    payload: bytes = b""
    key: SigningKey | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.type is not UserDataType.NONE and len(self.payload) > (limit := _FORMS[self.type].capacity):
            raise InputError(f"user data of this kind have at most {limit} bytes, not {len(self.payload)}")

    @property
    def type(self) -> UserDataType:
        """The type as the request states it."""
        if self.key is not None:
            return user_data_type(self.key)
        return UserDataType.UNSIGNED if self.payload else UserDataType.NONE

    def signed(self, authenticated: bytes, encrypted: bytes) -> bytes:
        """Return ``authenticated`` with the signature over it and ``encrypted`` put in place; unsigned: unchanged."""
        if self.key is None:
            return authenticated
        signature = _sign(self.key, authenticated + encrypted)
        out = bytearray(authenticated)
        at = _PLACE + _FORMS[self.type].capacity
        out[at : at + len(signature)] = signature
        if self.type is UserDataType.SIGNED_EC_P521:
            length = _PLACE + _EC_LENGTH_PLACE
            out[length : length + 2] = len(signature).to_bytes(2, "big")
        return bytes(out)


def _sign(key: SigningKey, message: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.MAX_LENGTH)
        return key.sign(message, pss, hashes.SHA512())
    return key.sign(message, ec.ECDSA(hashes.SHA512()))


def verified_user_data(data: bytes, key: VerifyingKey | None) -> bytes:
    """Return the user data of the add-secret request ``data``: 512 bytes if unsigned, otherwise 128 or 256, with zeros
    at their end.

    Empty if there are none. ``key`` verifies a signature. Raises FormatError for anything but a request, InputError for
    a missing or unsuitable key, VerificationError if the signature differs. The request's own tag is not checked: that
    takes its protection key.
    """
    if not data.startswith(MAGIC):
        raise FormatError("not an add-secret request: it does not begin with asrcbM")
    Request.parse(data, "add-secret request")
    if len(data) < _PLACE + USER_DATA_SIZE + TAG_SIZE:
        raise FormatError("damaged add-secret request: it is shorter than its fixed part")
    number = int.from_bytes(data[len(MAGIC) : 8], "big")
    try:
        kind = UserDataType(number)
    except ValueError:
        raise FormatError(f"the add-secret request has user data of the unknown type {number}") from None
    if kind is UserDataType.NONE:
        return b""
    form = _FORMS[kind]
    if kind is UserDataType.UNSIGNED:
        if key is not None:
            raise InputError("the user data are not signed", hint="verify without a key")
        return data[_PLACE : _PLACE + form.capacity]
    if key is None:
        raise InputError(f"the user data are signed with {form.key}", hint="give the public key to verify them with")
    if user_data_type(key) is not kind:
        raise InputError(f"the user data are signed with {form.key}, not with this one")
    message = bytearray(data[:-TAG_SIZE])
    at = _PLACE + form.capacity
    size = form.signature_size
    if kind is UserDataType.SIGNED_EC_P521:
        stated = int.from_bytes(message[_PLACE + _EC_LENGTH_PLACE :][:2], "big")
        size = min(stated, _EC_SIGNATURE_SIZE)
    signature = bytes(message[at : at + size])
    message[at : _PLACE + USER_DATA_SIZE] = bytes(USER_DATA_SIZE - form.capacity)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.AUTO)
            key.verify(signature, bytes(message), pss, hashes.SHA512())
        else:
            key.verify(signature, bytes(message), ec.ECDSA(hashes.SHA512()))
    except InvalidSignature as error:
        raise VerificationError("the signature of the user data does not match") from error
    return data[_PLACE : _PLACE + form.capacity]
