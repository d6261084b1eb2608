"""Issues the chain of a host-key document: root CA, intermediate CA, signing key, and their CRLs.

The certificates follow the profile of IBM's: the signing key is not a CA (key usage digital signature, extended key
usage code signing), host-key documents have a P-521 key with the key usage key agreement, and every certificate names
the CRL of its issuer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from zseal.hostkeys.software import software_name, software_signing_key_name

ROOT_CRL = "root-ca.crl"
INTERMEDIATE_CRL = "intermediate-ca.crl"
SIGNING_KEY_CRL = "signing-key.crl"


@dataclass(frozen=True)
class Issuer:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _key_usage(*names: str) -> x509.KeyUsage:
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
    return x509.KeyUsage(**{field: field in names for field in fields})


def _key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject_key = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)


@dataclass(frozen=True)
class Authority:
    """A software machine's root CA, intermediate CA and signing key, all with P-521 keys."""

    machine: str
    root: Issuer
    intermediate: Issuer
    signing_key: Issuer
    crl_url: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def create(cls, machine: str, *, crl_url: str, not_before: datetime, not_after: datetime) -> Authority:
        """Generate the keys and issue the certificates of the machine named ``machine``.

        ``crl_url`` is the base of the distribution points in the certificates. Times are UTC, with a resolution of a
        second.
        """
        dates = (not_before, not_after)
        root_key, intermediate_key, signing_key = (ec.generate_private_key(ec.SECP521R1()) for _ in range(3))
        ca_usage = _key_usage("key_cert_sign", "crl_sign")
        root_name = software_name(machine, "Root CA")
        root = Issuer(
            _builder(root_name, root_name, root_key.public_key(), dates)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(ca_usage, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
            .sign(root_key, hashes.SHA512()),
            root_key,
        )
        intermediate = Issuer(
            _issued(root, software_name(machine, "Intermediate CA"), intermediate_key.public_key(), dates)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(ca_usage, critical=True)
            .add_extension(_distribution_point(crl_url, ROOT_CRL), critical=False)
            .sign(root_key, hashes.SHA512()),
            intermediate_key,
        )
        signer = Issuer(
            _issued(intermediate, software_signing_key_name(), signing_key.public_key(), dates)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(_distribution_point(crl_url, INTERMEDIATE_CRL), critical=False)
            .sign(intermediate_key, hashes.SHA512()),
            signing_key,
        )
        return cls(machine, root, intermediate, signer, crl_url, not_before, not_after)

    def issue_host_key_document(self, key: ec.EllipticCurvePublicKey, role: str) -> x509.Certificate:
        """Return the host-key document of ``key``, which has ``role`` (for example ``host key``) in the machine."""
        dates = (self.not_before, self.not_after)
        return (
            _issued(self.signing_key, software_name(self.machine, role), key, dates)
            .add_extension(_key_usage("key_agreement"), critical=True)
            .add_extension(_distribution_point(self.crl_url, SIGNING_KEY_CRL), critical=False)
            .sign(self.signing_key.key, hashes.SHA512())
        )

    def issue_crls(self) -> dict[str, x509.CertificateRevocationList]:
        """Return the CRLs of the three issuers by file name; they revoke nothing."""
        issuers = {ROOT_CRL: self.root, INTERMEDIATE_CRL: self.intermediate, SIGNING_KEY_CRL: self.signing_key}
        return {
            name: issue_crl(issuer, this_update=self.not_before, next_update=self.not_after)
            for name, issuer in issuers.items()
        }


def issue_crl(
    issuer: Issuer, *, this_update: datetime, next_update: datetime, revoked: Sequence[int] = (), number: int = 1
) -> x509.CertificateRevocationList:
    """Return the CRL ``number`` of ``issuer`` that lists the serial numbers ``revoked``."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(_key_identifier(issuer.certificate), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA512())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, dates: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _issued(
    issuer: Issuer, subject: x509.Name, key: ec.EllipticCurvePublicKey, dates: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    builder = _builder(subject, issuer.certificate.subject, key, dates)
    return builder.add_extension(_key_identifier(issuer.certificate), critical=False)


def _distribution_point(crl_url: str, name: str) -> x509.CRLDistributionPoints:
    address = x509.UniformResourceIdentifier(f"{crl_url.rstrip('/')}/{name}")
    point = x509.DistributionPoint(full_name=[address], relative_name=None, reasons=None, crl_issuer=None)
    return x509.CRLDistributionPoints([point])
