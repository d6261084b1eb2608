"""The names in the documents of a software machine, so that they never pass for those of an IBM Z machine."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from zseal.hostkeys.names import (
    LOCALITY_OLD,
    SIGNING_KEY_COUNTRY,
    SIGNING_KEY_ORGANIZATION,
    SIGNING_KEY_STATE,
    SIGNING_KEY_UNIT_SUFFIX,
)

MARK = "zseal software machine (not hardware)"
"""Part of the subject of every certificate that a software machine issues."""


def software_name(machine: str, role: str) -> x509.Name:
    """Return the subject of the certificate that has ``role`` (for example ``Root CA``) in the machine ``machine``."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, MARK),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, machine),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{MARK} {role}"),
        ]
    )


def software_signing_key_name() -> x509.Name:
    """Return the subject of a software machine's signing key.

    pvverify and pvimg accept only IBM's own attributes here, apart from the beginning of the organizational unit: there
    this name states that it is not hardware. The root decides, and it is not trusted unless it is named.
    """
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, SIGNING_KEY_COUNTRY),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, SIGNING_KEY_STATE),
            # the locality that every release of the tools accepts
            x509.NameAttribute(NameOID.LOCALITY_NAME, LOCALITY_OLD),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIGNING_KEY_ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{MARK} {SIGNING_KEY_UNIT_SUFFIX}"),
            x509.NameAttribute(NameOID.COMMON_NAME, SIGNING_KEY_ORGANIZATION),
        ]
    )


def names_software_machine(name: x509.Name) -> bool:
    """Return whether ``name`` states that it belongs to a software machine."""
    return any(isinstance(attribute.value, str) and MARK in attribute.value for attribute in name)
