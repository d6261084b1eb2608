"""A certificate chain of which every part can be made wrong, one at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from zseal.hostkeys.certificates import Certificate, Crl, parse_certificate, parse_crl
from zseal.hostkeys.document import HostKeyDocument
from zseal.hostkeys.results import DocumentReport, HostKeyReport
from zseal.hostkeys.verify import check_host_key_documents

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(days=1), NOW + timedelta(days=1)

Key = CertificateIssuerPrivateKeyTypes


@functools.cache
def key(name: str) -> Key:
    """A key by name: the part before the colon says what kind, the rest tells keys of one kind apart."""
    kind = name.partition(":")[0]
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {
        "p192": ec.SECP192R1(),
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
    }
    return ec.generate_private_key(curves[kind])


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def signing_name(*, unit: str = "IBM Z Host Key Signing Service", locality: str = "Poughkeepsie") -> x509.Name:
    company = "International Business Machines Corporation"
    return name(
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.STATE_OR_PROVINCE_NAME, "New York"),
        (NameOID.LOCALITY_NAME, locality),
        (NameOID.ORGANIZATION_NAME, company),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, company),
    )


def common(value: str) -> x509.Name:
    return name((NameOID.COMMON_NAME, value))


@dataclass(frozen=True)
class Issued:
    """How a certificate is made; what a test does not say is as it should be."""

    subject: x509.Name
    issuer: x509.Name
    key: str
    signer: str
    ca: bool | None = False  # None: no basic constraints
    ca_critical: bool = True
    path_length: int | None = None
    usage: tuple[str, ...] | None = ("digital_signature",)
    serial: int = 1000
    start: datetime = START
    end: datetime = END
    skid: bool = True
    akid: x509.AuthorityKeyIdentifier | bool = True
    points: tuple[str, ...] = ()
    sha1: bool = False
    rsa_padding: padding.PSS | None = None
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def certificate(self, source: str) -> Certificate:
        public = key(self.key).public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.issuer)
            .public_key(public)
            .serial_number(self.serial)
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        if self.ca is not None:
            constraints = x509.BasicConstraints(self.ca, self.path_length)
            builder = builder.add_extension(constraints, self.ca_critical)
        if self.usage is not None:
            builder = builder.add_extension(usage(*self.usage), True)
        if self.skid:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        if self.akid:
            authority = self.akid if self.akid is not True else authority_key(self.signer)
            builder = builder.add_extension(authority, False)
        if self.points:
            builder = builder.add_extension(distribution(*self.points), False)
        for extension, critical in self.extra:
            builder = builder.add_extension(extension, critical)
        signer = key(self.signer)
        signed = builder.sign(signer, digest_for(signer), rsa_padding=self.rsa_padding)
        der = signed.public_bytes(Encoding.DER)
        return parse_certificate(signed_over_sha1(der, signer) if self.sha1 else der, source)


@dataclass(frozen=True)
class List:
    """How a CRL is made."""

    issuer: x509.Name
    signer: str
    revoked: tuple[int, ...] = ()
    reason: x509.ReasonFlags | None = None
    start: datetime = START
    end: datetime | None = END
    akid: x509.AuthorityKeyIdentifier | bool = True
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def crl(self, source: str) -> Crl:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.issuer).last_update(self.start)
        builder = builder.next_update(END if self.end is None else self.end)
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.start)
            if self.reason is not None:
                entry = entry.add_extension(x509.CRLReason(self.reason), False)
            builder = builder.add_revoked_certificate(entry.build())
        if self.akid:
            builder = builder.add_extension(self.akid if self.akid is not True else authority_key(self.signer), False)
        for extension, critical in self.extra:
            builder = builder.add_extension(extension, critical)
        signed = builder.sign(key(self.signer), digest_for(key(self.signer)))
        parsed = parse_crl(signed.public_bytes(Encoding.DER), source)
        # the builder cannot leave out the end
        return parsed if self.end is not None else replace(parsed, next_update=None)


def digest_for(signer: Key) -> hashes.SHA256 | None:
    return None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def signed_over_sha1(der: bytes, signer: Key) -> bytes:
    """Sign an RSA-signed certificate again as nobody should any more, and as the library no longer does."""
    assert isinstance(signer, rsa.RSAPrivateKey)
    sha256_rsa, sha1_rsa = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    changed = der.replace(sha256_rsa, sha1_rsa)
    body = x509.load_der_x509_certificate(changed).tbs_certificate_bytes
    signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA1())
    return changed[: -len(signature)] + signature


def usage(*names: str) -> x509.KeyUsage:
    fields = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{item: item in names for item in fields})


def authority_key(name: str, *, issuer: x509.Name | None = None, serial: int | None = None) -> Any:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key(name).public_key()).digest
    directory = [x509.DirectoryName(issuer)] if issuer is not None else None
    return x509.AuthorityKeyIdentifier(identifier, directory, serial)


def distribution(*urls: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in urls]
    )


ROOT, INTERMEDIATE = common("Test Root"), common("Test Intermediate")
CA_USAGE = ("key_cert_sign", "crl_sign")

# keys: r root, i intermediate, s signing key, h host; x for a stranger's
PARTS: dict[str, Issued] = {
    "root": Issued(ROOT, ROOT, "p256:r", "p256:r", ca=True, usage=CA_USAGE, serial=1),
    "intermediate": Issued(INTERMEDIATE, ROOT, "p256:i", "p256:r", ca=True, usage=CA_USAGE, serial=2),
    "signing": Issued(signing_name(), INTERMEDIATE, "p256:s", "p256:i", serial=3),
    "host": Issued(common("host"), signing_name(), "p521:h", "p256:s", ca=None, usage=("key_agreement",), serial=4),
}
LISTS: dict[str, List] = {
    "root_crl": List(ROOT, "p256:r"),
    "intermediate_crl": List(INTERMEDIATE, "p256:i"),
    "signing_crl": List(signing_name(), "p256:s"),
}


class Pki:
    """The chain with ``changes``: by part, the fields that differ, or None to leave the part out."""

    def __init__(self, **changes: dict[str, Any] | None) -> None:
        self.parts = {
            part: replace(issued, **changes.get(part) or {}).certificate(f"{part}.crt")
            for part, issued in PARTS.items()
            if changes.get(part, {}) is not None
        }
        self.crls = [
            replace(item, **changes.get(part) or {}).crl(f"{part}.crl")
            for part, item in LISTS.items()
            if changes.get(part, {}) is not None
        ]
        self.certificates = [self.parts[part] for part in ("signing", "intermediate") if part in self.parts]
        self.roots = [self.parts["root"]] if "root" in self.parts else []

    @property
    def document(self) -> HostKeyDocument:
        return HostKeyDocument(self.parts["host"], "host.crt")

    def report(self, *documents: HostKeyDocument, **options: Any) -> HostKeyReport:
        settings: dict[str, Any] = {
            "certificates": self.certificates,
            "crls": self.crls,
            "root_ca": self.roots,
            "offline": True,
            "now": NOW,
        }
        return check_host_key_documents(documents or (self.document,), **(settings | options))

    def check(self, **options: Any) -> DocumentReport:
        return self.report(**options).documents[0]


def pem(items: Sequence[Certificate | Crl]) -> bytes:
    return b"".join(item.pem() for item in items)
