"""The add-secret request control block (ASRCB), and the types of secrets.

Version 0x100, big-endian:

    0x000            fixed part, 1208 bytes: request header, flags, header tags, CUID, user data, customer public key
    0x4b8            nks key slots of 80 bytes
    0x4b8 + 80*nks   secret header: 16 bytes for a meta secret, 48 for others
    ...              encrypted: the secret, then the extension secret (32 bytes)
    rql - 16         GCM tag, which also names the request
"""

from __future__ import annotations

import dataclasses
import enum

from zseal.errors import FormatError
from zseal.formats.attestation_request import CUID_SIZE
from zseal.formats.flag_word import FlagWord
from zseal.formats.header_tags import HeaderTags
from zseal.formats.key_slot import PUBLIC_KEY_SIZE, KeySlot
from zseal.formats.layout import Layout, raw, u16, u32, u64
from zseal.formats.request import Request, RequestHeader

MAGIC = b"asrcbM"
USER_DATA_SIZE = 512
EXTENSION_SECRET_SIZE = 32
SECRET_ID_SIZE = 32
MAX_SECRET_SIZE = 8192
PLAINTEXT_BLOCK = 16
"""A plaintext secret has a multiple of this many bytes."""


class AddSecretFlags(FlagWord):
    """Plaintext add-secret flags; bit 0 is the most significant."""

    __invert__ = FlagWord.complement

    DISABLE_DUMP = 1 << 63


class UserDataType(enum.IntEnum):
    """What the 512 bytes of user data are; the ultravisor does not look at them."""

    NONE = 0
    UNSIGNED = 1
    SIGNED_EC_P521 = 2
    SIGNED_RSA_2048 = 3
    SIGNED_RSA_3072 = 4


class SecretType(enum.IntEnum):
    """The type of a secret, 16 bits; ``text`` is how pvsecret names it."""

    META = 0x01
    ASSOCIATION = 0x02
    PLAINTEXT = 0x03
    AES_128 = 0x04
    AES_192 = 0x05
    AES_256 = 0x06
    AES_XTS_128 = 0x07
    AES_XTS_256 = 0x08
    HMAC_SHA_256 = 0x09
    HMAC_SHA_512 = 0x0A
    EC_SECP256R1 = 0x11
    EC_SECP384R1 = 0x12
    EC_SECP521R1 = 0x13
    EC_ED25519 = 0x14
    EC_ED448 = 0x15
    UPDATE_CCK = 0x16

    @property
    def text(self) -> str:
        """The name as pvsecret prints it."""
        return _TEXTS[self]

    @property
    def size(self) -> int | None:
        """The bytes of such a secret in a request; None for plaintext, which has 16 to 8192, a multiple of 16."""
        return _SIZES[self]

    @property
    def stored(self) -> bool:
        """Whether the secret store keeps it, so that it has an index and is listed."""
        return self not in (SecretType.META, SecretType.UPDATE_CCK)

    @property
    def retrievable(self) -> bool:
        """Whether the guest can get it back."""
        return self.stored and self is not SecretType.ASSOCIATION

    @property
    def has_id(self) -> bool:
        """Whether its header has room for an ID (zeros for a CCK update)."""
        return self is not SecretType.META


_TEXTS = {
    SecretType.META: "Meta",
    SecretType.ASSOCIATION: "Association",
    SecretType.PLAINTEXT: "PLAINTEXT",
    SecretType.AES_128: "AES-128-KEY",
    SecretType.AES_192: "AES-192-KEY",
    SecretType.AES_256: "AES-256-KEY",
    SecretType.AES_XTS_128: "AES-XTS-128-KEY",
    SecretType.AES_XTS_256: "AES-XTS-256-KEY",
    SecretType.HMAC_SHA_256: "HMAC-SHA-256-KEY",
    SecretType.HMAC_SHA_512: "HMAC-SHA-512-KEY",
    SecretType.EC_SECP256R1: "EC-SECP256R1-PRIVATE-KEY",
    SecretType.EC_SECP384R1: "EC-SECP384R1-PRIVATE-KEY",
    SecretType.EC_SECP521R1: "EC-SECP521R1-PRIVATE-KEY",
    SecretType.EC_ED25519: "EC-ED25519-PRIVATE-KEY",
    SecretType.EC_ED448: "EC-ED448-PRIVATE-KEY",
    SecretType.UPDATE_CCK: "CCK update",
}
_SIZES = {
    SecretType.META: 0,
    SecretType.ASSOCIATION: 32,
    SecretType.PLAINTEXT: None,
    SecretType.AES_128: 16,
    SecretType.AES_192: 24,
    SecretType.AES_256: 32,
    SecretType.AES_XTS_128: 32,
    SecretType.AES_XTS_256: 64,
    SecretType.HMAC_SHA_256: 64,
    SecretType.HMAC_SHA_512: 128,
    SecretType.EC_SECP256R1: 32,
    SecretType.EC_SECP384R1: 48,
    SecretType.EC_SECP521R1: 80,
    SecretType.EC_ED25519: 32,
    SecretType.EC_ED448: 64,
    SecretType.UPDATE_CCK: 32,
}


def fits(kind: SecretType, size: int) -> bool:
    """Whether a secret of this type may have ``size`` bytes in a request."""
    if kind.size is None:
        return PLAINTEXT_BLOCK <= size <= MAX_SECRET_SIZE and size % PLAINTEXT_BLOCK == 0
    return size == kind.size


class AddSecretPart(Layout, size=0x4B8):
    """What an add-secret request adds to the request header, up to its key slots."""

    flags: int = u64(0x30, "plaintext add-secret flags, AddSecretFlags")
    tags: bytes = raw(0x38, HeaderTags.SIZE, "header tags of the image")
    cuid: bytes = raw(0x108, CUID_SIZE, "configuration unique ID; zeros: not bound to an instance")
    user_data: bytes = raw(0x218, USER_DATA_SIZE, "user data, see UserDataType")
    customer_key: bytes = raw(0x418, PUBLIC_KEY_SIZE, "customer public key: X || Y on P-521, 80 bytes each")


class SecretHeader(Layout, size=0x10):
    """What names the secret, after the key slots; an ID of 32 bytes follows unless the type is META."""

    type: int = u16(0x02, "secret type, SecretType")
    length: int = u32(0x04, "bytes of the encrypted secret, without the extension secret")


@dataclasses.dataclass(frozen=True)
class AddSecretRequestBlock:
    """A parsed ASRCB."""

    request: Request
    part: AddSecretPart
    slots: tuple[KeySlot, ...]
    secret: SecretHeader
    secret_id: bytes
    """32 bytes; empty for a meta secret."""

    @property
    def tags(self) -> HeaderTags:
        """The header tags of the image that the request is for."""
        return HeaderTags.unpack(self.part.tags)

    @property
    def flags(self) -> AddSecretFlags:
        """The plaintext add-secret flags; unknown bits are kept."""
        return AddSecretFlags(self.part.flags)

    @property
    def user_data_type(self) -> int:
        """The type of the user data, a :class:`UserDataType` unless unknown."""
        return int.from_bytes(self.request.authenticated[len(MAGIC) : 8], "big")

    def pack(self) -> bytes:
        """Return the bytes of the block."""
        return self.request.pack()

    @classmethod
    def parse(cls, data: bytes) -> AddSecretRequestBlock:
        """Read exactly one ASRCB; raises FormatError unless it is well-formed. Nothing is decrypted."""
        if data[: len(MAGIC)] != MAGIC:
            raise FormatError("not an add-secret request: it does not begin with asrcbM")
        request = Request.parse(data, "add-secret request")
        if len(request.authenticated) < AddSecretPart.SIZE:
            raise FormatError("damaged add-secret request: it is shorter than its fixed part")
        slots = request.slots(AddSecretPart.SIZE)
        at = AddSecretPart.SIZE + KeySlot.SIZE * len(slots)
        secret = SecretHeader.unpack(request.authenticated, at)
        secret_id = request.authenticated[at + SecretHeader.SIZE :]
        expected = 0 if secret.type == SecretType.META else SECRET_ID_SIZE
        if len(secret_id) != expected or len(request.encrypted) != secret.length + EXTENSION_SECRET_SIZE:
            raise FormatError("damaged add-secret request: its lengths do not fit its secret")
        return cls(request, AddSecretPart.unpack(request.authenticated), slots, secret, secret_id)


def magic(user_data: UserDataType) -> bytes:
    """Return the eight bytes that a request begins with."""
    return MAGIC + user_data.to_bytes(2, "big")


def fixed_part(header: RequestHeader, part: AddSecretPart) -> bytes:
    """Return the first 1208 bytes of a request."""
    return header.pack() + part.pack()[RequestHeader.SIZE :]
