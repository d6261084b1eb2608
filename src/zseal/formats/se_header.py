"""The Secure Execution header: keys, digests, control flags and start PSW of a boot image.

Version 0x100, all integers big-endian; the layout is that of s390-tools' pvimg and genprotimg:

    0x000            fixed part, 416 bytes: sizes, flags, customer public key, digests
    0x1a0            nks key slots of 80 bytes
    0x1a0 + 80*nks   encrypted area, sea bytes (AES-256-GCM; everything before it is authenticated as well)
    sehs - 16        GCM tag

A later version may have other slots and hashes: everything outside this module asks a header for its slots and sizes.
"""

from __future__ import annotations

import dataclasses
import enum

from zseal.errors import FormatError
from zseal.formats.flag_word import FlagWord
from zseal.formats.key_slot import PUBLIC_KEY_SIZE, KeySlot
from zseal.formats.layout import Layout, raw, u32, u64
from zseal.secret import Secret

MAGIC = b"IBMSecEx"
VERSION_1 = 0x100
# pvimg, QEMU and KVM refuse larger ones
MAX_HEADER_SIZE = 8192
# the bytes that read_header_size needs: magic, version, sehs
SIZE_PREFIX = 16
HEADER_KEY_SIZE = 32
COMMUNICATION_KEY_SIZE = 32
IMAGE_KEY_SIZE = 64
IV_SIZE = 12
TAG_SIZE = 16
DIGEST_SIZE = 64


class PlainFlags(FlagWord):
    """Plaintext control flags (pcf); bit 0 is the most significant."""

    __invert__ = FlagWord.complement

    DUMP = 1 << (63 - 34)
    NO_COMPONENT_ENCRYPTION = 1 << (63 - 35)
    PCKMO_DEA = 1 << (63 - 56)
    PCKMO_AES = 1 << (63 - 57)
    PCKMO_ECC = 1 << (63 - 58)
    PCKMO_HMAC = 1 << (63 - 59)
    BACKUP_KEYS = 1 << (63 - 62)


PCKMO = PlainFlags.PCKMO_DEA | PlainFlags.PCKMO_AES | PlainFlags.PCKMO_ECC


class SecretFlags(FlagWord):
    """Secret control flags (scf), in the encrypted area; bit 0 is the most significant."""

    __invert__ = FlagWord.complement

    CCK_EXTENSION_SECRET = 1 << (63 - 1)
    CCK_UPDATE = 1 << (63 - 2)


class HeaderFault(enum.Enum):
    """The ways in which a header is malformed; the ultravisor answers each with its own reason code."""

    TRUNCATED = "truncated"
    MAGIC = "magic"
    VERSION = "version"
    SIZE = "size"
    AREA_SIZE = "area-size"
    NO_SLOTS = "no-slots"


class HeaderError(FormatError):
    """The bytes are not a well-formed SE header; ``fault`` is the reason."""

    def __init__(self, fault: HeaderFault, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.fault = fault


class FixedPart(Layout, size=0x1A0):
    """The fixed part of a version-1 header."""

    magic: bytes = raw(0x000, 8, "ASCII IBMSecEx", default=MAGIC)
    version: int = u32(0x008, "header version", default=VERSION_1)
    sehs: int = u32(0x00C, "SE header size: all of it, in bytes", default=0)
    iv: bytes = raw(0x010, IV_SIZE, "AES-GCM initialization vector of the encrypted area")
    res1: int = u32(0x01C, "reserved, 0", default=0)
    nks: int = u64(0x020, "number of key slots", default=0)
    sea: int = u64(0x028, "size of the encrypted area in bytes", default=0)
    nep: int = u64(0x030, "number of (encrypted) component pages")
    pcf: int = u64(0x038, "plaintext control flags, PlainFlags")
    customer_key: bytes = raw(0x040, PUBLIC_KEY_SIZE, "customer public key: X || Y on P-521, 80 bytes each")
    pld: bytes = raw(0x0E0, DIGEST_SIZE, "page list digest")
    ald: bytes = raw(0x120, DIGEST_SIZE, "address list digest")
    tld: bytes = raw(0x160, DIGEST_SIZE, "tweak list digest")


class _AreaNumbers(Layout, size=0x80):
    # before them come communication key and image key, which go from the buffer to Secret and nowhere else
    psw_mask: int = u64(0x60)
    psw_address: int = u64(0x68)
    scf: int = u64(0x70)
    noi: int = u32(0x78, default=0)
    res2: int = u32(0x7C, default=0)


AREA_SIZE = _AreaNumbers.SIZE


@dataclasses.dataclass(frozen=True)
class SecretArea:
    """The plaintext of the encrypted area: 128 bytes, without optional items (no tool ever wrote any)."""

    cck: Secret
    """Customer communication key, 32 bytes."""
    image_key: Secret
    """AES-256-XTS key of the components, 64 bytes: data key, then tweak key."""
    psw_mask: int
    """Mask of the PSW with which the protected guest starts."""
    psw_address: int
    """Address of that PSW: the absolute address of the last component, the encrypted bootloader."""
    scf: SecretFlags
    """Secret control flags; unknown bits are kept."""

    def pack(self) -> bytes:
        """Return the 128 plaintext bytes; raises ValueError if a key has the wrong size."""
        if (len(self.cck), len(self.image_key)) != (COMMUNICATION_KEY_SIZE, IMAGE_KEY_SIZE):
            raise ValueError(f"a key of the encrypted area has {len(self.cck)} or {len(self.image_key)} bytes")
        numbers = _AreaNumbers(psw_mask=self.psw_mask, psw_address=self.psw_address, scf=self.scf).pack()
        return self.cck.reveal() + self.image_key.reveal() + numbers[COMMUNICATION_KEY_SIZE + IMAGE_KEY_SIZE :]

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> SecretArea:
        """Read a decrypted area; raises FormatError for optional items and for any size but 128."""
        area, keys = _AreaNumbers.unpack(data), memoryview(data)
        if area.noi or len(data) != _AreaNumbers.SIZE:
            raise FormatError("the SE header has optional items, which no known version defines")
        return cls(
            cck=Secret(keys[:COMMUNICATION_KEY_SIZE]),
            image_key=Secret(keys[COMMUNICATION_KEY_SIZE:][:IMAGE_KEY_SIZE]),
            psw_mask=area.psw_mask,
            psw_address=area.psw_address,
            scf=SecretFlags(area.scf),
        )


@dataclasses.dataclass(frozen=True)
class SeHeader:
    """A version-1 header. ``encrypted`` is the encrypted area as stored, ``tag`` its 16-byte GCM tag."""

    fixed: FixedPart
    slots: tuple[KeySlot, ...]
    encrypted: bytes
    tag: bytes

    @property
    def version(self) -> int:
        """The version word."""
        return self.fixed.version

    @property
    def size(self) -> int:
        """The size of the whole header in bytes."""
        return header_size(len(self.slots), len(self.encrypted))

    @property
    def pcf(self) -> PlainFlags:
        """The plaintext control flags; unknown bits are kept."""
        return PlainFlags(self.fixed.pcf)

    @property
    def authenticated(self) -> bytes:
        """The plain bytes that the GCM tag covers besides the encrypted area: everything before it."""
        return self.fixed.pack() + b"".join(slot.pack() for slot in self.slots)

    def pack(self) -> bytes:
        """Return the bytes of the header."""
        return self.authenticated + self.encrypted + self.tag

    @classmethod
    def parse(cls, data: bytes) -> SeHeader:
        """Read exactly one version-1 header; raises HeaderError, see :func:`parse_header`."""
        if len(data) < FixedPart.SIZE:
            raise HeaderError(HeaderFault.TRUNCATED, f"the SE header is cut off after {len(data)} bytes")
        fixed = FixedPart.unpack(data)
        if fixed.sehs != len(data):
            raise HeaderError(
                HeaderFault.SIZE, f"the SE header claims to have {fixed.sehs} bytes, {len(data)} are there"
            )
        if fixed.sea < AREA_SIZE or fixed.sea % 16 or fixed.sea > MAX_HEADER_SIZE:
            raise HeaderError(HeaderFault.AREA_SIZE, f"the SE header's encrypted area has {fixed.sea} bytes")
        if not fixed.nks:
            raise HeaderError(HeaderFault.NO_SLOTS, "the SE header has no key slot")
        if fixed.sehs != header_size(fixed.nks, fixed.sea):
            raise HeaderError(
                HeaderFault.SIZE,
                f"the SE header's size {fixed.sehs} does not fit {fixed.nks} key slots and "
                f"an encrypted area of {fixed.sea} bytes",
            )
        area = FixedPart.SIZE + KeySlot.SIZE * fixed.nks
        return cls(
            fixed=fixed,
            slots=tuple(KeySlot.unpack(data, at) for at in range(FixedPart.SIZE, area, KeySlot.SIZE)),
            encrypted=bytes(data[area : area + fixed.sea]),
            tag=bytes(data[area + fixed.sea :]),
        )


def header_size(slots: int, area: int = AREA_SIZE) -> int:
    """Return the size of a version-1 header with ``slots`` key slots and ``area`` encrypted bytes."""
    return FixedPart.SIZE + KeySlot.SIZE * slots + area + TAG_SIZE


MAX_KEY_SLOTS = (MAX_HEADER_SIZE - header_size(0)) // KeySlot.SIZE

_VERSIONS = {VERSION_1: SeHeader.parse}


def read_header_size(data: bytes) -> int:
    """Return the size that the header beginning with ``data`` (16 bytes suffice) claims to have.

    Raises HeaderError with the fault TRUNCATED, MAGIC, VERSION or SIZE, checked in this order.
    """
    if len(data) < SIZE_PREFIX:
        raise HeaderError(HeaderFault.TRUNCATED, f"the SE header is cut off after {len(data)} bytes")
    if data[:8] != MAGIC:
        raise HeaderError(HeaderFault.MAGIC, "not an SE header: it does not begin with IBMSecEx")
    version = int.from_bytes(data[8:12], "big")
    if version not in _VERSIONS:
        raise HeaderError(
            HeaderFault.VERSION,
            f"unknown SE header version {version:#x}",
            hint="this version of zseal knows " + ", ".join(f"{known:#x}" for known in _VERSIONS),
        )
    size = int.from_bytes(data[12:16], "big")
    if not SIZE_PREFIX < size <= MAX_HEADER_SIZE:
        raise HeaderError(
            HeaderFault.SIZE, f"the SE header claims to have {size} bytes; at most {MAX_HEADER_SIZE} are allowed"
        )
    return size


def parse_header(data: bytes) -> SeHeader:
    """Read the SE header that makes up all of ``data``.

    Raises HeaderError; faults are checked in the order TRUNCATED, MAGIC, VERSION, SIZE, AREA_SIZE, NO_SLOTS, SIZE. The
    result packs to the same bytes. Nothing is decrypted or authenticated.
    """
    read_header_size(data)
    return _VERSIONS[int.from_bytes(data[8:12], "big")](bytes(data))
