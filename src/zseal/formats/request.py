"""The frame of attestation and add-secret requests.

Version 0x100, all integers big-endian; the layout is that of s390-tools' pvattest and pvsecret:

    0x00             header, 48 bytes
    0x30             what the kind of request adds, its key slots last
    rql - sea - 16   encrypted part, sea bytes (AES-256-GCM; everything before it is authenticated as well)
    rql - 16         GCM tag
"""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.key_slot import KeySlot
from zseal.formats.layout import Layout, raw, u8, u32

VERSION_1 = 0x100
IV_SIZE = 12
TAG_SIZE = 16
PROTECTION_KEY_SIZE = 32
MAX_KEY_SLOTS = 255
MAX_REQUEST_SIZE = 1 << 20
"""Linux' uvdevice takes no longer requests."""


class RequestHeader(Layout, size=0x30):
    """The header that both kinds of request begin with."""

    magic: bytes = raw(0x00, 8, "zeros for attestation; asrcbM and the user-data type for add-secret")
    version: int = u32(0x08, "request version (rqvn)", default=VERSION_1)
    rql: int = u32(0x0C, "request length in bytes, the tag included")
    iv: bytes = raw(0x10, IV_SIZE, "AES-GCM initialization vector")
    nks: int = u8(0x27, "number of key slots, 1 to 255")
    sea: int = u32(0x2C, "size of the encrypted part in bytes, without the tag")


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as it is stored: what is authenticated, what is encrypted, and the 16-byte GCM tag."""

    authenticated: bytes
    encrypted: bytes
    tag: bytes

    @property
    def header(self) -> RequestHeader:
        """The header."""
        return RequestHeader.unpack(self.authenticated)

    def pack(self) -> bytes:
        """Return the bytes of the request."""
        return self.authenticated + self.encrypted + self.tag

    @classmethod
    def parse(cls, data: bytes, what: str) -> Request:
        """Read exactly one request; raises FormatError unless version and lengths fit. ``what`` names it."""
        if not RequestHeader.SIZE <= len(data) <= MAX_REQUEST_SIZE:
            raise FormatError(f"not an {what}: it has {len(data)} bytes")
        header = RequestHeader.unpack(data)
        if header.version != VERSION_1:
            raise FormatError(f"an {what} of unknown version {header.version:#x}", hint=f"zseal knows {VERSION_1:#x}")
        if header.rql != len(data):
            raise FormatError(f"damaged {what}: it says it has {header.rql} bytes, {len(data)} are there")
        begin = header.rql - header.sea - TAG_SIZE
        if begin < RequestHeader.SIZE:
            raise FormatError(f"damaged {what}: an encrypted part of {header.sea} bytes does not fit {header.rql}")
        return cls(data[:begin], data[begin:-TAG_SIZE], data[-TAG_SIZE:])

    def slots(self, offset: int) -> tuple[KeySlot, ...]:
        """Return the key slots, which begin at ``offset``; raises FormatError if there is no room for them."""
        count = self.header.nks
        if not count:
            raise FormatError("the request has no key slot: no machine could open it")
        return tuple(KeySlot.unpack(self.authenticated, offset + KeySlot.SIZE * index) for index in range(count))
