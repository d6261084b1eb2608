"""Describes certificates and CRLs: their role, when they expire, and everything in them worth showing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, key_hash
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.document import key_kind
from zseal.hostkeys.names import is_signing_key_name

DAYS = 30
"""How long before its end a certificate or document is expiring."""


class Role(enum.StrEnum):
    """What a certificate or CRL is for."""

    HOST_KEY_DOCUMENT = "host-key document"
    SIGNING_KEY = "signing key"
    INTERMEDIATE_CA = "intermediate CA"
    ROOT_CA = "root CA"
    CERTIFICATE = "certificate"
    CRL = "CRL"


class State(enum.StrEnum):
    """Whether something is valid now."""

    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    MISSING = "missing"

    @property
    def is_fine(self) -> bool:
        """Whether there is nothing to do."""
        return self is State.VALID


@dataclass(frozen=True)
class Validity:
    """The validity period of something. ``ends`` is None for a CRL without an end, or one that is missing."""

    role: Role
    subject: str
    source: str
    begins: datetime | None
    ends: datetime | None
    state: State


def role_of(item: Certificate | Crl) -> Role:
    """Return the role of ``item``, as far as it can be seen from it alone."""
    if isinstance(item, Crl):
        return Role.CRL
    if is_signing_key_name(item.raw.subject):
        return Role.SIGNING_KEY
    if item.is_ca:
        return Role.ROOT_CA if item.self_signed else Role.INTERMEDIATE_CA
    return Role.HOST_KEY_DOCUMENT if host_key_hash(item) else Role.CERTIFICATE


def validity_of(item: Certificate | Crl, *, days: float | None, now: datetime) -> Validity:
    """Return the validity of ``item``; it is expiring if it ends within ``days`` after ``now``.

    None stands for DAYS, and for a CRL for the last quarter of its life at most: most live no longer than DAYS in all.
    """
    begins, ends = (item.this_update, item.next_update) if isinstance(item, Crl) else (item.not_before, item.not_after)
    return Validity(
        role=role_of(item),
        subject=item.label,
        source=item.source,
        begins=begins,
        ends=ends,
        state=_state(begins, ends, _limit(item) if days is None else timedelta(days=days), now),
    )


def _limit(item: Certificate | Crl) -> timedelta:
    usual = timedelta(days=DAYS)
    if isinstance(item, Crl) and item.next_update is not None:
        return min(usual, (item.next_update - item.this_update) / 4)
    return usual


def _state(begins: datetime, ends: datetime | None, limit: timedelta, now: datetime) -> State:
    if ends is None or ends <= now:
        return State.EXPIRED
    if now < begins:
        return State.NOT_YET_VALID
    return State.EXPIRING if ends - now <= limit else State.VALID


def host_key_hash(certificate: Certificate) -> str | None:
    """Return the hash (phkh) that names the key of ``certificate`` in key slots, None for a key not on P-521."""
    key = certificate.key
    return key_hash(key).hex() if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVE) else None


def describe(item: Certificate | Crl) -> dict[str, object]:
    """Return everything worth showing of ``item``, ready for JSON; the keys are stable.

    Digests and identifiers are lower-case hexadecimal, times are ISO 8601 in UTC.
    """
    return _describe_crl(item) if isinstance(item, Crl) else _describe_certificate(item)


def _describe_certificate(certificate: Certificate) -> dict[str, object]:
    role, authority = role_of(certificate), certificate.authority
    return {
        "kind": role.value,
        "source": certificate.source,
        "software": certificate.software,
        "subject": certificate.subject_text,
        "issuer": certificate.issuer_text,
        "serial": f"{certificate.serial:x}",
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "key": key_kind(certificate).removeprefix("a ").removeprefix("an "),
        "security_bits": certificate.strength,
        "host_key_hash": host_key_hash(certificate) if role is Role.HOST_KEY_DOCUMENT else None,
        "subject_key_id": certificate.key_id.hex() if certificate.key_id is not None else None,
        "authority_key_id": authority.key_id.hex() if authority and authority.key_id is not None else None,
        "crl_distribution_points": list(certificate.distribution_points),
        "sha256": certificate.raw.fingerprint(hashes.SHA256()).hex(),
    }


def _describe_crl(crl: Crl) -> dict[str, object]:
    return {
        "kind": Role.CRL.value,
        "source": crl.source,
        "software": crl.software,
        "issuer": crl.issuer_text,
        "number": crl.number,
        "this_update": crl.this_update.isoformat(),
        "next_update": crl.next_update.isoformat() if crl.next_update else None,
        "revoked_certificates": len(crl.raw),
        "complete": crl.complete,
        "authority_key_id": crl.authority.key_id.hex() if crl.authority and crl.authority.key_id is not None else None,
        "sha256": crl.raw.fingerprint(hashes.SHA256()).hex(),
    }
