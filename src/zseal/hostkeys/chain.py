"""The certificate chain of the signing key: from it over at most two intermediate CAs to a trusted root.

The rules, their order, codes and levels are those of OpenSSL's strict validation with CRL checks on every level, as
s390-tools request it, except that a delta CRL does not count and that any current CRL of an issuer can revoke. The
signing key is the end of the chain, not a CA: a path validator made for servers would not accept it as issuer of
host-key documents, so those are checked elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from datetime import datetime

from zseal.hostkeys.certificates import Certificate, Crl, when
from zseal.hostkeys.results import Failure, HostKeyRule, Reason, RuleError

MIN_STRENGTH = 112  # bits of security: RSA 2048, EC 224
MAX_INTERMEDIATES = 2


class ChainCode(enum.IntEnum):
    """Failures of a chain; the numbers are those of OpenSSL's X509_V_ERR codes."""

    NO_ISSUER_ABOVE_TRUSTED = 2
    NO_CRL = 3
    CERTIFICATE_SIGNATURE = 7
    CRL_SIGNATURE = 8
    NOT_YET_VALID = 9
    EXPIRED = 10
    CRL_NOT_YET_VALID = 11
    CRL_EXPIRED = 12
    SELF_SIGNED_SIGNING_KEY = 18
    SELF_SIGNED_UNTRUSTED = 19
    NO_ISSUER = 20
    TOO_LONG = 22
    REVOKED = 23
    PATH_LENGTH = 25
    UNKNOWN_CRITICAL = 34
    NO_CRL_SIGN = 35
    CRL_UNKNOWN_CRITICAL = 36
    CRL_SCOPE = 44
    WEAK_SIGNING_KEY = 66
    WEAK_CA_KEY = 67
    WEAK_DIGEST = 68
    NOT_A_CA = 79
    PATH_LENGTH_WITHOUT_CA = 80
    PATH_LENGTH_WITHOUT_CERT_SIGN = 81
    CERT_SIGN_WITHOUT_CA = 82
    NO_SUBJECT = 84
    NO_AUTHORITY_KEY_ID = 85
    NO_SUBJECT_KEY_ID = 86
    CA_FLAG_NOT_CRITICAL = 89
    NO_KEY_USAGE = 92


OF_CRLS = frozenset({ChainCode.NO_CRL, *(code for code in ChainCode if code.name.startswith("CRL_"))})
"""Failures that another CRL can end."""

_HINT_ISSUER = "give the certificate of its issuer with `certificates`, or the root with `root_ca`"
_HINT_SOFTWARE = "this is a software machine, not hardware: if you want that, name its root with `root_ca`"
_HINT_CRL = "give the current CRL of its issuer with `crls`"
_HINT_OTHER = "get the current certificates from the machine's manufacturer"


def _fail(code: ChainCode, level: int, certificate: Certificate, message: str, hint: str = _HINT_OTHER) -> RuleError:
    role = "the signing key" if level == 0 else f"certificate {level} of the signing key's chain"
    return RuleError(
        Failure(
            HostKeyRule.CHAIN,
            Reason.CHAIN,
            f"{role} ({certificate.label}, {certificate.source}) {message}",
            hint,
            code=int(code),
            level=level,
        )
    )


def validate_chain(
    signing_key: Certificate,
    *,
    trusted: Sequence[Certificate],
    untrusted: Sequence[Certificate],
    crls: Sequence[Crl],
    now: datetime,
) -> tuple[Certificate, ...]:
    """Return the chain from ``signing_key`` to the root among ``trusted``; raises RuleError if it does not hold."""
    chain = _build(signing_key, trusted, untrusted, now)
    _check_extensions(chain)
    _check_strength(chain)
    for level, certificate in enumerate(chain):
        issuer = chain[min(level + 1, len(chain) - 1)]
        _check_revocation(level, certificate, issuer, crls, now)
    _check_signatures_and_dates(chain, now)
    return chain


def _is_issuer(candidate: Certificate, certificate: Certificate) -> bool:
    return candidate.subject == certificate.issuer and (
        certificate.authority is None or certificate.authority.names(candidate)
    )


def _find_issuer(certificate: Certificate, pool: Iterable[Certificate], now: datetime) -> Certificate | None:
    candidates = [candidate for candidate in pool if _is_issuer(candidate, certificate)]
    valid = [candidate for candidate in candidates if candidate.not_before <= now < candidate.not_after]
    if valid:
        return valid[0]
    return max(candidates, key=lambda candidate: candidate.not_after, default=None)


def _build(
    signing_key: Certificate, trusted: Sequence[Certificate], untrusted: Sequence[Certificate], now: datetime
) -> tuple[Certificate, ...]:
    chain = [signing_key]
    from_trusted = False
    while True:
        level, current = len(chain) - 1, chain[-1]
        if current.self_signed:
            if level == 0:
                raise _fail(
                    ChainCode.SELF_SIGNED_SIGNING_KEY, 0, current, "is self-signed: it has no issuer to be trusted"
                )
            if from_trusted:
                return tuple(chain)
            raise _fail(
                ChainCode.SELF_SIGNED_UNTRUSTED,
                level,
                current,
                "is a root that is not trusted",
                "if you trust it, name it with `root_ca`",
            )
        if level > MAX_INTERMEDIATES:
            raise _fail(
                ChainCode.TOO_LONG, level, current, f"is beyond the {MAX_INTERMEDIATES} intermediate CAs allowed"
            )
        rest = [certificate for certificate in untrusted if certificate not in chain]
        issuer = _find_issuer(current, trusted, now)
        found_trusted = issuer is not None
        issuer = issuer or _find_issuer(current, rest, now)
        if issuer is None:
            code = ChainCode.NO_ISSUER_ABOVE_TRUSTED if from_trusted else ChainCode.NO_ISSUER
            message = f"has no known issuer (it names {current.issuer_label})"
            if from_trusted:
                message = f"is trusted but is not a root, and its issuer is not known (it names {current.issuer_label})"
            raise _fail(code, level, current, message, _HINT_SOFTWARE if current.software else _HINT_ISSUER)
        from_trusted = found_trusted
        chain.append(issuer)


def _check_extensions(chain: Sequence[Certificate]) -> None:
    intermediates = 0
    for level, certificate in enumerate(chain):
        for code, broken, message in _extension_rules(level, certificate, is_root=level == len(chain) - 1):
            if broken:
                raise _fail(code, level, certificate, message)
        limit = certificate.path_length
        if level > 1 and limit is not None and intermediates > limit:
            raise _fail(
                ChainCode.PATH_LENGTH, level, certificate, f"allows only {limit} CA certificates below it in a chain"
            )
        if level > 0 and not certificate.self_issued:
            intermediates += 1


def _extension_rules(level: int, certificate: Certificate, *, is_root: bool) -> Iterable[tuple[ChainCode, bool, str]]:
    is_ca, usage = certificate.is_ca, certificate.key_usage
    unknown = ", ".join(certificate.unknown_critical)
    yield ChainCode.UNKNOWN_CRITICAL, bool(unknown), f"has unknown critical extensions: {unknown}"
    may_sign = certificate.may("key_cert_sign")
    yield ChainCode.NOT_A_CA, level > 0 and not (is_ca and may_sign), "is not a CA certificate that may sign others"
    yield (
        ChainCode.PATH_LENGTH_WITHOUT_CA,
        certificate.path_length is not None and not is_ca,
        "limits the length of a chain but is not a CA certificate",
    )
    yield (
        ChainCode.PATH_LENGTH_WITHOUT_CERT_SIGN,
        certificate.path_length is not None and not (usage is not None and usage.key_cert_sign),
        "limits the length of a chain but its key usage does not allow it to sign certificates",
    )
    yield (
        ChainCode.CA_FLAG_NOT_CRITICAL,
        is_ca and not certificate.ca_flag_critical,
        "does not mark its basic constraints as critical",
    )
    yield ChainCode.NO_KEY_USAGE, is_ca and usage is None, "has no key usage"
    yield (
        ChainCode.CERT_SIGN_WITHOUT_CA,
        not is_ca and usage is not None and usage.key_cert_sign,
        "may sign certificates but is not a CA certificate",
    )
    yield ChainCode.NO_SUBJECT, is_ca and not certificate.subject, "has no subject"
    has_authority_key = certificate.authority is not None and certificate.authority.key_id is not None
    yield (
        ChainCode.NO_AUTHORITY_KEY_ID,
        not is_root and not has_authority_key,
        "has no authority key identifier",
    )
    yield ChainCode.NO_SUBJECT_KEY_ID, is_ca and certificate.key_id is None, "has no subject key identifier"


def _check_strength(chain: Sequence[Certificate]) -> None:
    for level, certificate in enumerate(chain):
        if certificate.strength < MIN_STRENGTH:
            code = ChainCode.WEAK_CA_KEY if level else ChainCode.WEAK_SIGNING_KEY
            raise _fail(
                code, level, certificate, f"has a key of {certificate.strength} bits of security, {MIN_STRENGTH} needed"
            )
        if level < len(chain) - 1 and certificate.weakly_signed:
            raise _fail(ChainCode.WEAK_DIGEST, level, certificate, "is signed over SHA-1 or a weaker digest")


def _in_scope(crl: Crl, certificate: Certificate) -> bool:
    if crl.only_users if certificate.is_ca else crl.only_cas:
        return False
    return crl.points is None or not set(crl.points).isdisjoint(certificate.distribution_points)


def _is_due(crl: Crl, now: datetime) -> bool:
    # unlike in the list for host-key documents, the end may be missing here
    return crl.this_update <= now and (crl.next_update is None or now < crl.next_update)


def _check_revocation(
    level: int, certificate: Certificate, issuer: Certificate, crls: Sequence[Crl], now: datetime
) -> None:
    candidates = [crl for crl in crls if crl.complete and crl.issuer == certificate.issuer and crl.may_be_from(issuer)]
    if not candidates:
        raise _fail(
            ChainCode.NO_CRL, level, certificate, f"cannot be checked: no CRL of {certificate.issuer_label}", _HINT_CRL
        )
    # the first of the best ones: OpenSSL checks only one list
    crl = max(
        candidates,
        key=lambda crl: (not crl.unknown_critical, _in_scope(crl, certificate), _is_due(crl, now), crl.this_update),
    )
    end = crl.next_update
    problems = (
        (ChainCode.NO_CRL_SIGN, not issuer.may("crl_sign"), "its issuer's key may not sign CRLs", _HINT_OTHER),
        (ChainCode.CRL_SCOPE, not _in_scope(crl, certificate), "the CRL is not for this certificate", _HINT_CRL),
        (ChainCode.CRL_NOT_YET_VALID, crl.this_update > now, "the CRL begins in the future", "check this clock"),
        (
            ChainCode.CRL_EXPIRED,
            end is not None and end <= now,
            f"the CRL ended on {when(end) if end else end}",
            _HINT_CRL,
        ),
        (ChainCode.CRL_SIGNATURE, not crl.is_signed_by(issuer.key), "the CRL's signature is not valid", _HINT_CRL),
        (
            ChainCode.CRL_UNKNOWN_CRITICAL,
            bool(crl.unknown_critical),
            "the CRL has unknown critical extensions",
            _HINT_CRL,
        ),
    )
    for code, broken, message, hint in problems:
        if broken:
            raise _fail(code, level, certificate, f"cannot be checked: {message} ({crl.source})", hint)
    # other lists of the same issuer may contain a revocation that this one lacks
    others = (
        other for other in candidates if other is not crl and _is_due(other, now) and other.is_signed_by(issuer.key)
    )
    for listing in (crl, *others):
        if listing.lists(certificate):
            raise _fail(ChainCode.REVOKED, level, certificate, f"was revoked by its issuer ({listing.source})")


def _check_signatures_and_dates(chain: Sequence[Certificate], now: datetime) -> None:
    for level in range(len(chain) - 1, -1, -1):
        certificate, issuer = chain[level], chain[min(level + 1, len(chain) - 1)]
        if not certificate.is_signed_by(issuer.key):
            raise _fail(ChainCode.CERTIFICATE_SIGNATURE, level, certificate, f"was not signed by {issuer.label}")
        if now < certificate.not_before:
            raise _fail(
                ChainCode.NOT_YET_VALID,
                level,
                certificate,
                f"is valid only from {when(certificate.not_before)}",
                "check this computer's clock",
            )
        if now >= certificate.not_after:
            raise _fail(ChainCode.EXPIRED, level, certificate, f"expired on {when(certificate.not_after)}")
