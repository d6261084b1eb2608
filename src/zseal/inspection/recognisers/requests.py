"""Requests to the ultravisor: attestation and add-secret requests, and pvattest's exchange files. Public parts only."""

from __future__ import annotations

from zseal.errors import FormatError
from zseal.formats.key_slot import PUBLIC_KEY_SIZE, KeySlot
from zseal.formats.layout import Layout, raw, u8, u16, u32, u64
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

_VERSION = 0x100
_ATTESTATION_MAGIC = bytes(8)
_ADD_SECRET_MAGIC = b"asrcbM"
_EXCHANGE_MAGIC = b"pvattest"
_MAX_REQUEST = 1 << 20
_ATTESTATION_FLAGS = {
    1: "nonce",
    2: "image host-key hash",
    3: "request host-key hash",
    4: "secret-store hash",
    5: "firmware state",
}
_SECRET_TYPES = {
    0x01: "meta",
    0x02: "association",
    0x03: "plaintext",
    0x04: "AES-128",
    0x05: "AES-192",
    0x06: "AES-256",
    0x07: "AES-XTS-128",
    0x08: "AES-XTS-256",
    0x09: "HMAC-SHA-256",
    0x0A: "HMAC-SHA-512",
    0x11: "EC P-256",
    0x12: "EC P-384",
    0x13: "EC P-521",
    0x14: "Ed25519",
    0x15: "Ed448",
    0x16: "CCK update",
}
_USER_DATA = {0: "none", 1: "unsigned", 2: "signed, EC P-521", 3: "signed, RSA-2048", 4: "signed, RSA-3072"}


class RequestHeader(Layout, size=48):
    """The header that both kinds of request begin with."""

    magic: bytes = raw(0x00, 8, "zeros for attestation; asrcbM and the user-data type for add-secret")
    version: int = u32(0x08)
    rql: int = u32(0x0C, "request length in bytes")
    nks: int = u8(0x27, "number of key slots")
    sea: int = u32(0x2C, "size of the encrypted area in bytes")


class AttestationPart(Layout, size=0xE0):
    """What follows in an attestation request, up to its key slots."""

    flags: int = u64(0x30, "plaintext attestation flags")
    algorithm: int = u32(0x38, "measurement algorithm: 1 = HMAC-SHA-512")
    customer_key: bytes = raw(0x40, PUBLIC_KEY_SIZE)


class AddSecretPart(Layout, size=0x4B8):
    """What follows in an add-secret request, up to its key slots."""

    flags: int = u64(0x30, "bit 0: disable dumping")
    header_tag: bytes = raw(0xF8, 16, "tag of the image's SE header")
    cuid: bytes = raw(0x108, 16, "configuration unique id; zeros = any")
    customer_key: bytes = raw(0x418, PUBLIC_KEY_SIZE)


class SecretHeader(Layout, size=16):
    """What names the secret, behind the key slots."""

    type: int = u16(0x02)
    length: int = u32(0x04, "bytes")


class ExchangeHeader(Layout, size=64):
    """The header of pvattest's files: size and offset of five entries."""

    magic: bytes = raw(0x00, 8)
    version: int = u32(0x08)
    size: int = u32(0x0C, "bytes of header and data")
    arcb: int = u64(0x18)
    measurement: int = u64(0x20)
    additional: int = u64(0x28)
    user: int = u64(0x30)
    cuid: int = u64(0x38)


def _slots(data: bytes, offset: int, count: int) -> tuple[str, ...]:
    available = max(0, (len(data) - offset) // KeySlot.SIZE)
    return tuple(
        KeySlot.unpack(data, offset + KeySlot.SIZE * index).phkh.hex() for index in range(min(count, available))
    )


def _flags(value: int, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(bit, f"bit {bit}") for bit in range(64) if value >> (63 - bit) & 1)


def _header(data: bytes) -> RequestHeader | None:
    """Return the header where it can be one of a request that is ``data`` as a whole, else None."""
    try:
        header = RequestHeader.unpack(data)
    except FormatError:
        return None
    fits = header.rql == len(data) and header.sea + 16 + RequestHeader.SIZE <= header.rql
    return header if header.version == _VERSION and fits else None


def _attestation_fields(data: bytes) -> dict[str, Value] | None:
    header = _header(data) if data.startswith(_ATTESTATION_MAGIC) else None
    if header is None or len(data) < AttestationPart.SIZE:
        return None
    part = AttestationPart.unpack(data)
    return {
        "version": f"{header.version:#x}",
        "key_slots": header.nks,
        "host_key_hashes": _slots(data, AttestationPart.SIZE, header.nks),
        "attestation_flags": _flags(part.flags, _ATTESTATION_FLAGS),
        "measurement_algorithm": "HMAC-SHA-512" if part.algorithm == 1 else f"unknown ({part.algorithm})",
    }


class AttestationRequest(Recogniser):
    """An attestation request control block by itself."""

    def recognise(self, sample: Sample) -> Description | None:
        """Eight zeros, the version, and a length that is the file's own."""
        if not 0 < sample.size <= _MAX_REQUEST:
            return None
        fields = _attestation_fields(sample.whole or b"")
        if fields is None:
            return None
        return Description("attestation-request", "attestation request (ARCB)", {"size": sample.size, **fields})


class ExchangeFile(Recogniser):
    """pvattest's request and response files."""

    def recognise(self, sample: Sample) -> Description | None:
        """Look at the magic and at which entries carry data."""
        if not sample.head.startswith(_EXCHANGE_MAGIC):
            return None
        try:
            header = ExchangeHeader.unpack(sample.head)
        except FormatError as error:
            return Description(
                "attestation-request-file", "pvattest file, damaged", {"size": sample.size}, (error.message,)
            )
        fields: dict[str, Value] = {"size": sample.size, "version": f"{header.version:#x}"}
        problems = []
        entries = {}
        for name in ("arcb", "measurement", "additional", "user", "cuid"):
            size, offset = divmod(getattr(header, name), 1 << 32)
            if size and offset:
                entries[name] = (size, offset)
                if offset < ExchangeHeader.SIZE or offset + size > sample.size:
                    problems.append(f"the entry {name} lies outside the file")
        if sample.size < header.size:
            problems.append(f"the file has {sample.size} of {header.size} bytes")
        response = "measurement" in entries
        fields["entries"] = tuple(f"{name}, {size} bytes" for name, (size, _) in entries.items())
        if "arcb" in entries:
            size, offset = entries["arcb"]
            fields |= _attestation_fields(sample.read(offset, min(size, _MAX_REQUEST))) or {}
        else:
            problems.append("it holds no attestation request")
        if response and "cuid" in entries:
            fields["configuration_uid"] = sample.read(entries["cuid"][1], 16).hex()
        kind = "response" if response else "request"
        return Description(
            f"attestation-{kind}-file", f"attestation {kind} as pvattest writes it", fields, tuple(problems)
        )


class AddSecretRequest(Recogniser):
    """An add-secret request control block."""

    def recognise(self, sample: Sample) -> Description | None:
        """Look at the magic."""
        if not sample.head.startswith(_ADD_SECRET_MAGIC):
            return None
        title = "add-secret request"
        data = (sample.whole or b"") if sample.size <= _MAX_REQUEST else b""
        header = _header(data)
        if header is None or len(data) < AddSecretPart.SIZE:
            problem = "its version or lengths do not fit the file"
            return Description("add-secret-request", f"{title}, damaged", {"size": sample.size}, (problem,))
        part = AddSecretPart.unpack(data)
        user_data = int.from_bytes(header.magic[6:8], "big")
        fields: dict[str, Value] = {
            "size": sample.size,
            "version": f"{header.version:#x}",
            "key_slots": header.nks,
            "host_key_hashes": _slots(data, AddSecretPart.SIZE, header.nks),
            "flags": _flags(part.flags, {0: "disable dump"}),
            "user_data": _USER_DATA.get(user_data, f"unknown ({user_data})"),
            "bound_to_instance": part.cuid.hex() if any(part.cuid) else None,
            "image_header_tag": part.header_tag.hex(),
        }
        problems = []
        offset = AddSecretPart.SIZE + KeySlot.SIZE * header.nks
        if offset + SecretHeader.SIZE <= len(data):
            secret = SecretHeader.unpack(data, offset)
            fields["secret_type"] = _SECRET_TYPES.get(secret.type, f"unknown ({secret.type:#x})")
            fields["secret_length"] = secret.length
        else:
            problems.append(f"the request has no room for its {header.nks} key slots")
        return Description("add-secret-request", title, fields, tuple(problems))


RECOGNISERS: tuple[Recogniser, ...] = (ExchangeFile(), AddSecretRequest(), AttestationRequest())
