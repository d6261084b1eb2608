"""Requests to the ultravisor: attestation and add-secret requests, and pvattest's exchange files. Public parts only."""

from __future__ import annotations

from zseal.errors import FormatError
from zseal.formats import add_secret_request, attestation_file, attestation_request
from zseal.formats.add_secret_request import AddSecretPart, SecretHeader, SecretType
from zseal.formats.attestation_file import Entry, FileHeader
from zseal.formats.attestation_request import AttestationPart
from zseal.formats.header_tags import HeaderTags
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import MAX_REQUEST_SIZE, VERSION_1, RequestHeader
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

_ATTESTATION_FLAGS = {
    1: "nonce",
    2: "image host-key hash",
    3: "request host-key hash",
    4: "secret-store hash",
    5: "firmware state",
}
_SECRET_TYPES: dict[int, str] = {
    SecretType.META: "meta",
    SecretType.ASSOCIATION: "association",
    SecretType.PLAINTEXT: "plaintext",
    SecretType.AES_128: "AES-128",
    SecretType.AES_192: "AES-192",
    SecretType.AES_256: "AES-256",
    SecretType.AES_XTS_128: "AES-XTS-128",
    SecretType.AES_XTS_256: "AES-XTS-256",
    SecretType.HMAC_SHA_256: "HMAC-SHA-256",
    SecretType.HMAC_SHA_512: "HMAC-SHA-512",
    SecretType.EC_SECP256R1: "EC P-256",
    SecretType.EC_SECP384R1: "EC P-384",
    SecretType.EC_SECP521R1: "EC P-521",
    SecretType.EC_ED25519: "Ed25519",
    SecretType.EC_ED448: "Ed448",
    SecretType.UPDATE_CCK: "CCK update",
}
_ENTRIES = ("arcb", "measurement", "additional", "user", "cuid")
_DATA_OFFSET = FileHeader.SIZE + Entry.SIZE * len(_ENTRIES)
_USER_DATA = {0: "none", 1: "unsigned", 2: "signed, EC P-521", 3: "signed, RSA-2048", 4: "signed, RSA-3072"}


def _slots(data: bytes, offset: int, count: int) -> tuple[str, ...]:
    available = max(0, (len(data) - offset) // KeySlot.SIZE)
    return tuple(
        KeySlot.unpack(data, offset + KeySlot.SIZE * index).phkh.hex() for index in range(min(count, available))
    )


def _flags(value: int, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(bit, f"bit {bit}") for bit in range(64) if value >> (63 - bit) & 1)


def _header(data: bytes) -> RequestHeader | None:
    """Return the header if ``data`` can be one whole request, otherwise None."""
    try:
        header = RequestHeader.unpack(data)
    except FormatError:
        return None
    fits = header.rql == len(data) and header.sea + 16 + RequestHeader.SIZE <= header.rql
    return header if header.version == VERSION_1 and fits else None


def _attestation_fields(data: bytes) -> dict[str, Value] | None:
    header = _header(data) if data.startswith(attestation_request.MAGIC) else None
    if header is None or len(data) < AttestationPart.SIZE:
        return None
    part = AttestationPart.unpack(data)
    return {
        "version": f"{header.version:#x}",
        "key_slots": header.nks,
        "host_key_hashes": _slots(data, AttestationPart.SIZE, header.nks),
        "attestation_flags": _flags(part.flags, _ATTESTATION_FLAGS),
        "measurement_algorithm": "HMAC-SHA-512"
        if part.mai == attestation_request.HMAC_SHA_512
        else f"unknown ({part.mai})",
    }


class AttestationRequest(Recogniser):
    """An attestation request control block by itself."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check for eight zeros, the version, and a length that is that of the file."""
        if not 0 < sample.size <= MAX_REQUEST_SIZE:
            return None
        fields = _attestation_fields(sample.whole or b"")
        if fields is None:
            return None
        return Description("attestation-request", "attestation request (ARCB)", {"size": sample.size, **fields})


class ExchangeFile(Recogniser):
    """pvattest's request and response files."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the magic, and which entries have data."""
        if not sample.head.startswith(attestation_file.MAGIC):
            return None
        try:
            header = FileHeader.unpack(sample.head)
            places = [Entry.unpack(sample.head, FileHeader.SIZE + Entry.SIZE * index) for index in range(len(_ENTRIES))]
        except FormatError as error:
            return Description(
                "attestation-request-file", "pvattest file, damaged", {"size": sample.size}, (error.message,)
            )
        fields: dict[str, Value] = {"size": sample.size, "version": f"{header.version:#x}"}
        problems = []
        entries = {}
        for name, place in zip(_ENTRIES, places, strict=True):
            if place.size and place.offset:
                entries[name] = (place.size, place.offset)
                if place.offset < _DATA_OFFSET or place.offset + place.size > sample.size:
                    problems.append(f"the entry {name} lies outside the file")
        if sample.size < header.size:
            problems.append(f"the file has {sample.size} of {header.size} bytes")
        response = "measurement" in entries
        fields["entries"] = tuple(f"{name}, {size} bytes" for name, (size, _) in entries.items())
        if "arcb" in entries:
            size, offset = entries["arcb"]
            fields |= _attestation_fields(sample.read(offset, min(size, MAX_REQUEST_SIZE))) or {}
        else:
            problems.append("it contains no attestation request")
        if response and "cuid" in entries:
            fields["configuration_uid"] = sample.read(entries["cuid"][1], 16).hex()
        kind = "response" if response else "request"
        return Description(
            f"attestation-{kind}-file", f"attestation {kind} as pvattest writes it", fields, tuple(problems)
        )


class AddSecretRequest(Recogniser):
    """An add-secret request control block."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the magic."""
        if not sample.head.startswith(add_secret_request.MAGIC):
            return None
        title = "add-secret request"
        data = (sample.whole or b"") if sample.size <= MAX_REQUEST_SIZE else b""
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
            "image_header_tag": HeaderTags.unpack(part.tags).seht.hex(),
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
