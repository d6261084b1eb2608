"""The attestation request control block (ARCB).

Version 0x100, big-endian:

    0x000            fixed part, 224 bytes: request header, flags, measurement algorithm, customer public key
    0x0e0            nks key slots of 80 bytes
    0x0e0 + 80*nks   encrypted: measurement key (64 bytes) and, with the flag NONCE, the nonce (16 bytes)
    rql - 16         GCM tag
"""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.flag_word import FlagWord
from zseal.formats.key_slot import KEY_HASH_SIZE, PUBLIC_KEY_SIZE, KeySlot
from zseal.formats.layout import Layout, raw, u32, u64
from zseal.formats.request import Request, RequestHeader

MAGIC = bytes(8)
HMAC_SHA_512 = 1
"""The only measurement algorithm (mai) that is defined."""
MEASUREMENT_KEY_SIZE = 64
MEASUREMENT_SIZE = 64
NONCE_SIZE = 16
CUID_SIZE = 16
MAX_USER_DATA = 256
FIRMWARE_STATE_SIZE = 320
SECRET_STORE_HASH_SIZE = 64


class AttestationFlags(FlagWord):
    """Plaintext attestation flags: what belongs to the measurement; bit 0 is the most significant."""

    __invert__ = FlagWord.complement

    NONCE = 1 << (63 - 1)
    IMAGE_PHKH = 1 << (63 - 2)
    ATTESTATION_PHKH = 1 << (63 - 3)
    SECRET_STORE_HASH = 1 << (63 - 4)
    FIRMWARE_STATE = 1 << (63 - 5)


ADDITIONAL_SIZES = {
    AttestationFlags.IMAGE_PHKH: KEY_HASH_SIZE,
    AttestationFlags.ATTESTATION_PHKH: KEY_HASH_SIZE,
    AttestationFlags.SECRET_STORE_HASH: SECRET_STORE_HASH_SIZE,
    AttestationFlags.FIRMWARE_STATE: FIRMWARE_STATE_SIZE,
}
"""Bytes of additional data that each flag asks for, in the order in which they come."""


def additional_size(flags: AttestationFlags) -> int:
    """Return the bytes of additional data that ``flags`` ask for."""
    return sum(size for flag, size in ADDITIONAL_SIZES.items() if flag in flags)


class AttestationPart(Layout, size=0xE0):
    """What an attestation request adds to the request header, up to its key slots."""

    flags: int = u64(0x30, "plaintext attestation flags, AttestationFlags")
    mai: int = u32(0x38, "measurement algorithm identifier", default=HMAC_SHA_512)
    customer_key: bytes = raw(0x40, PUBLIC_KEY_SIZE, "customer public key: X || Y on P-521, 80 bytes each")


@dataclasses.dataclass(frozen=True)
class AttestationRequestBlock:
    """A parsed ARCB."""

    request: Request
    part: AttestationPart
    slots: tuple[KeySlot, ...]

    @property
    def flags(self) -> AttestationFlags:
        """The plaintext attestation flags; unknown bits are kept."""
        return AttestationFlags(self.part.flags)

    def pack(self) -> bytes:
        """Return the bytes of the block."""
        return self.request.pack()

    @classmethod
    def parse(cls, data: bytes) -> AttestationRequestBlock:
        """Read exactly one ARCB; raises FormatError unless it is well-formed. Nothing is decrypted."""
        if data[: len(MAGIC)] != MAGIC:
            raise FormatError("not an attestation request: it does not begin with eight zero bytes")
        request = Request.parse(data, "attestation request")
        if len(request.authenticated) < AttestationPart.SIZE:
            raise FormatError("damaged attestation request: it is shorter than its fixed part")
        part = AttestationPart.unpack(request.authenticated)
        if part.mai != HMAC_SHA_512:
            raise FormatError(f"the attestation request wants the unknown measurement algorithm {part.mai}")
        slots = request.slots(AttestationPart.SIZE)
        expected = MEASUREMENT_KEY_SIZE + (NONCE_SIZE if AttestationFlags(part.flags) & AttestationFlags.NONCE else 0)
        if len(request.authenticated) != AttestationPart.SIZE + KeySlot.SIZE * len(slots):
            raise FormatError(f"damaged attestation request: its length does not fit {len(slots)} key slots")
        if len(request.encrypted) != expected:
            raise FormatError(
                f"damaged attestation request: its encrypted part has {len(request.encrypted)} bytes, not {expected}"
            )
        return cls(request, part, slots)


def fixed_part(header: RequestHeader, part: AttestationPart) -> bytes:
    """Return the first 224 bytes of a request."""
    return header.pack() + part.pack()[RequestHeader.SIZE :]
