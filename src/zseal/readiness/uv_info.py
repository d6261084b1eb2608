"""The ultravisor's description of itself, read from ``/sys/firmware/uv`` as s390-tools' pvinfo does.

The values are those of the Query Ultravisor Information call; bits are numbered from the left, bit 0 first. The names
of the JSON fields are those of pvinfo, whose own output is text or YAML.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re

from zseal.formats.uv_codes import Command
from zseal.readiness.facts import UV
from zseal.readiness.source import HostSource

_WORD = 64
_VERSION_STEP = 0x100


class SeStatus(enum.StrEnum):
    """The role of this system; the values are those of pvinfo."""

    GUEST = "Guest"
    HOST = "Host"
    UNSECURE = "Unsecure"
    INVALID = "Invalid"


_STATUS_TEXT = {
    SeStatus.GUEST: "Secure Execution guest",
    SeStatus.HOST: "Secure Execution host",
    SeStatus.UNSECURE: "Secure Execution is not enabled",
    SeStatus.INVALID: "both guest and host, which is impossible",
}

_FEATURES = {
    0: "Reliable address of secure-storage-access exceptions, transfer of shared pages",
    1: "Adapter interruption virtualization",
    4: "AP passthrough",
    5: "AP interruption passthrough",
    6: "1 MiB backing of guests",
}
_CONTROL_FLAGS = {
    34: "Dumping of the guest",
    35: "Unencrypted components",
    56: "PCKMO wrapping of DEA and TDEA keys",
    57: "PCKMO wrapping of AES keys",
    58: "PCKMO wrapping of ECC keys",
    59: "PCKMO wrapping of HMAC keys",
    62: "Use of the backup host key",
}
_ATTESTATION_FLAGS = {
    1: "Nonce",
    2: "Hash of the host key that opened the image",
    3: "Hash of the host key that opened the request",
    4: "Hash of the secret store",
    5: "Firmware state",
}
_ADD_SECRET_FLAGS = {0: "Disable dumping"}
_SECRET_TYPES = {
    1: "Meta",
    2: "AP association",
    3: "Plaintext",
    4: "AES-128",
    5: "AES-192",
    6: "AES-256",
    7: "AES-XTS-128",
    8: "AES-XTS-256",
    9: "HMAC-SHA-256",
    10: "HMAC-SHA-512",
    17: "ECDSA P-256",
    18: "ECDSA P-384",
    19: "ECDSA P-521",
    20: "EdDSA Ed25519",
    21: "EdDSA Ed448",
    22: "Update CCK",
}
_LIMITS = ("max_address", "max_assoc_secrets", "max_cpus", "max_guests", "max_retr_secrets", "max_secrets")
_LIMIT_TEXT = {
    "max_address": "Largest address of a guest",
    "max_assoc_secrets": "Association secrets of a guest",
    "max_cpus": "CPUs of a guest",
    "max_guests": "Protected guests",
    "max_retr_secrets": "Retrievable secrets of a guest",
    "max_secrets": "Secrets of a guest",
}
# the files whose numbers are decimal; all others are hexadecimal without 0x
_DECIMAL = {"max_assoc_secrets", "max_cpus", "max_guests", "max_retr_secrets", "max_secrets"}


@dataclasses.dataclass(frozen=True)
class Section:
    """One group of values: ``key`` as in the JSON output, ``title`` for people; None if the kernel shows none."""

    key: str
    title: str
    entries: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class HostInfo:
    """Everything that pvinfo shows, and the sizes and key hashes that it omits.

    ``present`` is False if there is no ``/sys/firmware/uv`` at all. ``limits`` and ``dump_sizes`` map file names to
    numbers (sizes in bytes); ``raw`` maps every file below ``query/`` to its text.
    """

    present: bool
    status: SeStatus
    sections: tuple[Section, ...]
    limits: dict[str, int]
    dump_sizes: dict[str, int]
    key_hashes: dict[str, str]
    raw: dict[str, str]


def _number(name: str, text: str) -> int | None:
    digits = text.strip()
    if name in _DECIMAL:
        return int(digits) if re.fullmatch(r"[0-9]{1,20}", digits) else None
    return int(digits, 16) if re.fullmatch(r"(0x)?[0-9A-Fa-f]{1,16}", digits) else None


def _bits(value: int, first: int = 0) -> list[int]:
    return [first + bit for bit in range(_WORD) if value >> (_WORD - 1 - bit) & 1]


def _named(bits: list[int], names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(bit, f"bit {bit}") for bit in bits)


def _versions(bits: list[int]) -> tuple[str, ...]:
    # bit n means that version (n + 1) * 0x100 is supported
    return tuple(f"{(bit + 1) * _VERSION_STEP:#x}" for bit in bits)


def _facility_bits(text: str) -> list[int]:
    bits = []
    for index, line in enumerate(text.split()[:4]):
        value = _number("facilities", line)
        if value is not None:
            bits += _bits(value, index * _WORD)
    return bits


def _title(command: Command) -> str:
    return command.title[0].upper() + command.title[1:]


def read_host_info(source: HostSource) -> HostInfo:
    """Read what the ultravisor of ``source`` announces; missing files are omitted."""
    names = source.names(f"{UV}/query") or ()
    raw = {name: text.strip() for name in names if (text := source.text(f"{UV}/query/{name}")) is not None}
    values = {name: value for name, text in raw.items() if (value := _number(name, text)) is not None}

    def flags(key: str, title: str, name: str, known: dict[int, str]) -> Section:
        return Section(key, title, _named(_bits(values[name]), known) if name in values else None)

    def versions(key: str, title: str, name: str) -> Section:
        return Section(key, title, _versions(_bits(values[name])) if name in values else None)

    calls = {command.bit: _title(command) for command in Command}
    facilities = _named(_facility_bits(raw["facilities"]), calls) if "facilities" in raw else None
    guest = (source.text(f"{UV}/prot_virt_guest") or "").strip() == "1"
    host = (source.text(f"{UV}/prot_virt_host") or "").strip() == "1"
    status = {
        (True, False): SeStatus.GUEST,
        (False, True): SeStatus.HOST,
        (True, True): SeStatus.INVALID,
    }.get((guest, host), SeStatus.UNSECURE)
    sections = (
        Section("facilities", "Installed ultravisor calls", facilities),
        flags("feature_indications", "Ultravisor features", "feature_indications", _FEATURES),
        versions("supported_se_header_versions", "SE header versions", "supp_se_hdr_ver"),
        flags("supported_plaintext_control_flags", "Plaintext control flags", "supp_se_hdr_pcf", _CONTROL_FLAGS),
        versions("supported_attestation_request_versions", "Attestation request versions", "supp_att_req_hdr_ver"),
        flags(
            "supported_plaintext_attestation_flags",
            "Plaintext attestation flags",
            "supp_att_pflags",
            _ATTESTATION_FLAGS,
        ),
        versions("supported_add_secret_request_versions", "Add-secret request versions", "supp_add_secret_req_ver"),
        flags(
            "supported_plaintext_add_secret_flags",
            "Plaintext add-secret flags",
            "supp_add_secret_pcf",
            _ADD_SECRET_FLAGS,
        ),
        flags("supported_secret_types", "Secret types", "supp_secret_types", _SECRET_TYPES),
    )
    hashes = {name: (source.text(f"{UV}/keys/{name}") or "").strip() for name in ("host_key", "backup_host_key")}
    return HostInfo(
        present=source.names(UV) is not None,
        status=status,
        sections=sections,
        limits={name: values[name] for name in _LIMITS if name in values},
        dump_sizes={name: value for name, value in values.items() if "dump" in name},
        key_hashes={name: text for name, text in hashes.items() if re.fullmatch(r"[0-9A-Fa-f]{64}", text)},
        raw=raw,
    )


def to_json(info: HostInfo) -> str:
    """Return ``info`` as JSON: pvinfo's fields, then ``dump_sizes``, ``key_hashes`` and ``raw``."""
    content: dict[str, object] = {"se_status": info.status.value}
    for section in info.sections:
        if section.entries is not None:
            content[section.key] = list(section.entries)
    content["limits"] = info.limits
    content["dump_sizes"] = info.dump_sizes
    content["key_hashes"] = info.key_hashes
    content["raw"] = info.raw
    return json.dumps(content, indent=2)


def to_text(info: HostInfo) -> str:
    """Return ``info`` for people: a heading for each section, a line for each entry."""
    lines = [_STATUS_TEXT[info.status]]
    for section in info.sections:
        if section.entries:
            lines += ["", f"{section.title}:", *(f"  {entry}" for entry in section.entries)]
    if info.limits:
        lines += ["", "Limits:"]
        lines += [
            f"  {_LIMIT_TEXT[name]}: {value:#x}" if name == "max_address" else f"  {_LIMIT_TEXT[name]}: {value}"
            for name, value in info.limits.items()
        ]
    if info.dump_sizes:
        lines += ["", "Sizes of dump data in bytes:"]
        lines += [f"  {name}: {value}" for name, value in info.dump_sizes.items()]
    if info.key_hashes:
        lines += ["", "Host key hashes:", *(f"  {name}: {value}" for name, value in info.key_hashes.items())]
    return "\n".join(lines)
