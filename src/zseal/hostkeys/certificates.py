"""Certificates and CRLs as plain values: everything that the rules check, decoded once.

Parsing turns every flaw of an encoding into one FormatError, so the rules never see a malformed field.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from zseal.errors import FormatError
from zseal.hostkeys.names import CanonicalName, canonical, label, readable
from zseal.hostkeys.signatures import digest_is_weak, security_bits, signature_holds
from zseal.hostkeys.software import names_software_machine

# a certificate names one or two; more are an attempt to keep the downloader busy
MAX_DISTRIBUTION_URIS = 16

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_UNDERSTOOD_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
_UNDERSTOOD_CRITICAL_CRL = frozenset(
    {ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
)

_PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class AuthorityKey:
    """An authority key identifier: which key signed, by its identifier and by its certificate's issuer and serial."""

    key_id: bytes | None
    issuer: CanonicalName | None
    serial: int | None

    def names(self, certificate: Certificate) -> bool:
        """Return whether this can be the key of ``certificate``; fields that either side omits are not compared."""
        if self.key_id is not None and certificate.key_id is not None and self.key_id != certificate.key_id:
            return False
        if self.serial is not None and self.serial != certificate.serial:
            return False
        return self.issuer is None or self.issuer == certificate.issuer


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate and where it came from.

    ``key`` is None for a kind of key that cannot be used. ``key_usage`` is None if the extension is absent.
    ``unknown_critical`` lists unknown critical extensions (dotted numbers).
    """

    raw: x509.Certificate = field(repr=False)
    source: str
    subject: CanonicalName = field(repr=False)
    issuer: CanonicalName = field(repr=False)
    subject_text: str
    issuer_text: str = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime
    key: CertificatePublicKeyTypes | None = field(repr=False, compare=False)
    key_id: bytes | None = field(repr=False)
    authority: AuthorityKey | None = field(repr=False)
    is_ca: bool
    ca_flag_critical: bool
    path_length: int | None
    key_usage: x509.KeyUsage | None = field(repr=False)
    distribution_points: tuple[str, ...]
    unknown_critical: tuple[str, ...]

    @property
    def label(self) -> str:
        """A short name for messages."""
        return label(self.raw.subject)

    @property
    def issuer_label(self) -> str:
        """A short name of the issuer for messages."""
        return label(self.raw.issuer)

    @property
    def strength(self) -> int:
        """Bits of security of the public key."""
        return 0 if self.key is None else security_bits(self.key)

    @property
    def weakly_signed(self) -> bool:
        """Whether the signature on this certificate is over SHA-1 or weaker."""
        return digest_is_weak(self.raw)

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same name."""
        return self.subject == self.issuer

    @property
    def self_signed(self) -> bool:
        """Whether this claims to be signed with its own key; the signature itself is not checked."""
        return self.self_issued and (self.authority is None or self.authority.names(self))

    @property
    def software(self) -> bool:
        """Whether this belongs to a software machine."""
        return names_software_machine(self.raw.subject) or names_software_machine(self.raw.issuer)

    def may(self, usage: str) -> bool:
        """Return whether the key may be used for ``usage``: ``key_cert_sign`` or ``crl_sign``.

        Without a key usage, any use is allowed.
        """
        return self.key_usage is None or bool(getattr(self.key_usage, usage))

    def is_signed_by(self, key: CertificatePublicKeyTypes | None) -> bool:
        """Return whether ``key`` made the signature on this."""
        return signature_holds(self.raw, self.raw.tbs_certificate_bytes, key)

    def pem(self) -> bytes:
        """Return the certificate in PEM."""
        return self.raw.public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Crl:
    """A certificate revocation list and where it came from.

    ``complete`` is false for a delta, an indirect list, or one for some reasons or attribute certificates only.
    ``only_users`` and ``only_cas`` restrict the list to such certificates, ``points`` to those that name one of these
    distribution points.
    """

    raw: x509.CertificateRevocationList = field(repr=False)
    source: str
    issuer: CanonicalName = field(repr=False)
    issuer_text: str
    this_update: datetime
    next_update: datetime | None
    authority: AuthorityKey | None = field(repr=False)
    number: int | None
    complete: bool
    only_users: bool
    only_cas: bool
    points: tuple[str, ...] | None
    unknown_critical: tuple[str, ...]

    @property
    def label(self) -> str:
        """A short name of the issuer for messages."""
        return label(self.raw.issuer)

    @property
    def software(self) -> bool:
        """Whether this belongs to a software machine."""
        return names_software_machine(self.raw.issuer)

    def is_current(self, now: datetime) -> bool:
        """Return whether ``now`` lies in the validity period; a list without an end has none."""
        return self.next_update is not None and self.this_update <= now < self.next_update

    def may_be_from(self, issuer: Certificate) -> bool:
        """Return whether the authority key identifier, if any, agrees with ``issuer``."""
        return self.authority is None or self.authority.names(issuer)

    def is_signed_by(self, key: CertificatePublicKeyTypes | None) -> bool:
        """Return whether ``key`` made the signature on this."""
        return signature_holds(self.raw, self.raw.tbs_certlist_bytes, key)

    def lists(self, certificate: Certificate) -> bool:
        """Return whether the serial number of ``certificate`` is on the list, for any reason."""
        try:
            return self.raw.get_revoked_certificate_by_serial_number(certificate.serial) is not None
        except ValueError:
            return True  # an entry that cannot be read may be this one

    def pem(self) -> bytes:
        """Return the CRL in PEM."""
        return self.raw.public_bytes(Encoding.PEM)


def when(moment: datetime) -> str:
    """Return ``moment`` for messages: to the second, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def parse_certificate(der: bytes, source: str) -> Certificate:
    """Return the certificate encoded in ``der``; ``source`` names its origin. Raises FormatError."""
    try:
        with warnings.catch_warnings():
            # names of odd length, and serial numbers that are zero or negative, are tolerated as by OpenSSL
            warnings.simplefilter("ignore")
            return _certificate(x509.load_der_x509_certificate(der), source)
    except _PARSE_ERRORS as error:
        raise FormatError(f"damaged certificate: {_detail(error)}", where=source) from error


def parse_crl(der: bytes, source: str) -> Crl:
    """Return the CRL encoded in ``der``; ``source`` names its origin. Raises FormatError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _crl(x509.load_der_x509_crl(der), source)
    except _PARSE_ERRORS as error:
        raise FormatError(f"damaged CRL: {_detail(error)}", where=source) from error


def _detail(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _certificate(parsed: x509.Certificate, source: str) -> Certificate:
    extensions = parsed.extensions
    constraints = _find(extensions, x509.BasicConstraints)
    key_id = _value(_find(extensions, x509.SubjectKeyIdentifier))
    points = _value(_find(extensions, x509.CRLDistributionPoints)) or ()
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    return Certificate(
        raw=parsed,
        source=source,
        subject=canonical(parsed.subject),
        issuer=canonical(parsed.issuer),
        subject_text=readable(parsed.subject),
        issuer_text=readable(parsed.issuer),
        serial=parsed.serial_number,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        key=key,
        key_id=key_id.digest if key_id else None,
        authority=_authority(_value(_find(extensions, x509.AuthorityKeyIdentifier))),
        is_ca=bool(constraints and constraints.value.ca),
        ca_flag_critical=bool(constraints and constraints.critical),
        path_length=constraints.value.path_length if constraints else None,
        key_usage=_value(_find(extensions, x509.KeyUsage)),
        distribution_points=tuple(uri for point in points for uri in _uris(point.full_name or ()))[
            :MAX_DISTRIBUTION_URIS
        ],
        unknown_critical=_unknown(extensions, _UNDERSTOOD_CRITICAL),
    )


def _crl(parsed: x509.CertificateRevocationList, source: str) -> Crl:
    extensions = parsed.extensions
    scope = _value(_find(extensions, x509.IssuingDistributionPoint))
    number = _value(_find(extensions, x509.CRLNumber))
    partial = scope is not None and (
        scope.indirect_crl or scope.only_contains_attribute_certs or scope.only_some_reasons is not None
    )
    return Crl(
        raw=parsed,
        source=source,
        issuer=canonical(parsed.issuer),
        issuer_text=readable(parsed.issuer),
        this_update=parsed.last_update_utc,
        next_update=parsed.next_update_utc,
        authority=_authority(_value(_find(extensions, x509.AuthorityKeyIdentifier))),
        number=number.crl_number if number else None,
        complete=not partial and _find(extensions, x509.DeltaCRLIndicator) is None,
        only_users=scope is not None and scope.only_contains_user_certs,
        only_cas=scope is not None and scope.only_contains_ca_certs,
        points=_scope_points(scope),
        unknown_critical=_unknown(extensions, _UNDERSTOOD_CRITICAL_CRL),
    )


def _scope_points(scope: x509.IssuingDistributionPoint | None) -> tuple[str, ...] | None:
    if scope is None or (scope.full_name is None and scope.relative_name is None):
        return None
    return tuple(_uris(scope.full_name or ()))


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> x509.Extension[_Extension] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _value(extension: x509.Extension[_Extension] | None) -> _Extension | None:
    return None if extension is None else extension.value


def _uris(names: Iterable[x509.GeneralName]) -> Iterable[str]:
    return (name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _authority(value: x509.AuthorityKeyIdentifier | None) -> AuthorityKey | None:
    if value is None:
        return None
    directories = [name.value for name in value.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
    return AuthorityKey(
        key_id=value.key_identifier,
        issuer=canonical(directories[0]) if directories else None,
        serial=value.authority_cert_serial_number,
    )


def _unknown(extensions: x509.Extensions, understood: frozenset[x509.ObjectIdentifier]) -> tuple[str, ...]:
    return tuple(
        extension.oid.dotted_string
        for extension in extensions
        if extension.critical and extension.oid not in understood
    )
