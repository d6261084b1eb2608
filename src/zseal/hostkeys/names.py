"""Names in certificates: how to compare them, and the name of an IBM Z signing key."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

SIGNING_KEY_COUNTRY = "US"
SIGNING_KEY_STATE = "New York"
SIGNING_KEY_ORGANIZATION = "International Business Machines Corporation"
SIGNING_KEY_UNIT_SUFFIX = "Key Signing Service"
# IBM's certificates changed from the first to the second; revocation lists with the first remain in use
LOCALITY_OLD = "Poughkeepsie"
LOCALITY_NEW = "Armonk"

_SIGNING_KEY_ATTRIBUTES = 6
# names may be megabytes long, but X.520 allows 64 characters for most attributes
_MAX_SHOWN = 128
# the order of the attributes in the issuer names of IBM's published revocation lists
_CRL_ORDER = (
    NameOID.COUNTRY_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.COMMON_NAME,
)

CanonicalName = tuple[frozenset[tuple[str, str | bytes]], ...]
"""A name in the form that matches certificates: case and runs of white space do not count, the order of its parts does.
"""


def canonical(name: x509.Name) -> CanonicalName:
    """Return ``name`` in the form in which names are compared (as OpenSSL does)."""
    return tuple(
        frozenset((attribute.oid.dotted_string, _fold(attribute.value)) for attribute in rdn) for rdn in name.rdns
    )


def _fold(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    # only ASCII letters lose their case, as in OpenSSL
    return "".join(char.lower() if char.isascii() else char for char in " ".join(value.split()))


def readable(name: x509.Name) -> str:
    """Return ``name`` for people: its attributes in the order of the certificate."""
    parts = (
        f"{attribute.rfc4514_attribute_name}={_printable(attribute.value)}" for rdn in name.rdns for attribute in rdn
    )
    return ", ".join(parts) or "(empty name)"


def label(name: x509.Name) -> str:
    """Return what distinguishes ``name``: its common name, or the unit if that only repeats the organization."""
    common = _first(name, NameOID.COMMON_NAME)
    if common is not None and common == _first(name, NameOID.ORGANIZATION_NAME):
        common = _first(name, NameOID.ORGANIZATIONAL_UNIT_NAME) or common
    return readable(name) if common is None else _printable(common)


def _printable(value: str | bytes) -> str:
    # names come from strangers: they must not control a terminal or break a line
    text = value.hex() if isinstance(value, bytes) else value
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str | bytes | None:
    return next((attribute.value for attribute in name.get_attributes_for_oid(oid)), None)


def is_signing_key_name(name: x509.Name) -> bool:
    """Return whether ``name`` is the subject of an IBM Z host key signing key, as s390-tools recognise it.

    It has six attributes, compared exactly; the organizational unit needs only to end with "Key Signing Service".
    This proves nothing; the certificate chain does.
    """
    unit = _first(name, NameOID.ORGANIZATIONAL_UNIT_NAME)
    return (
        sum(1 for _ in name) == _SIGNING_KEY_ATTRIBUTES
        and _first(name, NameOID.COUNTRY_NAME) == SIGNING_KEY_COUNTRY
        and _first(name, NameOID.STATE_OR_PROVINCE_NAME) == SIGNING_KEY_STATE
        and _first(name, NameOID.LOCALITY_NAME) in (LOCALITY_OLD, LOCALITY_NEW)
        and _first(name, NameOID.ORGANIZATION_NAME) == SIGNING_KEY_ORGANIZATION
        and _first(name, NameOID.COMMON_NAME) == SIGNING_KEY_ORGANIZATION
        and isinstance(unit, str)
        and unit.endswith(SIGNING_KEY_UNIT_SUFFIX)
    )


def crl_issuer_names(subject: x509.Name) -> Iterator[CanonicalName]:
    """Yield the issuer names under which the CRL of the signing key ``subject`` may have been published.

    The first name with a CRL counts. IBM's lists have a different locality and order of attributes than the signing-key
    certificates.
    """
    yield canonical(subject)
    if _first(subject, NameOID.LOCALITY_NAME) == LOCALITY_NEW:
        old = x509.Name([_with_old_locality(rdn) for rdn in subject.rdns])
        yield canonical(old)
        yield canonical(_in_crl_order(old))
    yield canonical(_in_crl_order(subject))


def _with_old_locality(rdn: x509.RelativeDistinguishedName) -> x509.RelativeDistinguishedName:
    return x509.RelativeDistinguishedName(
        x509.NameAttribute(NameOID.LOCALITY_NAME, LOCALITY_OLD) if attribute.oid == NameOID.LOCALITY_NAME else attribute
        for attribute in rdn
    )


def _in_crl_order(name: x509.Name) -> x509.Name:
    return x509.Name([name.get_attributes_for_oid(oid)[0] for oid in _CRL_ORDER])
