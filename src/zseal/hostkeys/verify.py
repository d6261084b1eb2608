"""Decides whether host-key documents are genuine, current and not revoked, as pvverify and pvimg of s390-tools do.

It is stricter than those: the key must be on P-521, CRLs are fetched over http and https only and with a limit, a
revocation in any current CRL of the issuer counts, and a partial CRL does not prove that a document is not revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE
from zseal.hostkeys.certificates import Certificate, Crl, when
from zseal.hostkeys.chain import MIN_STRENGTH, OF_CRLS, validate_chain
from zseal.hostkeys.document import HostKeyDocument, key_kind
from zseal.hostkeys.fetch import Downloader, Fetch, fetch_url
from zseal.hostkeys.names import crl_issuer_names, is_signing_key_name
from zseal.hostkeys.results import Check, DocumentReport, Failure, HostKeyReport, HostKeyRule, Reason, RuleError
from zseal.hostkeys.truststore import system_roots
from zseal.logs import logger

_LOG = logger(__name__)


_HINT_GENERATION = "give the signing key certificate of the document's generation with `certificates`"


def check_host_key_documents(
    documents: Sequence[HostKeyDocument],
    *,
    certificates: Sequence[Certificate],
    crls: Sequence[Crl] = (),
    root_ca: Sequence[Certificate] | None = None,
    offline: bool = False,
    fetch: Fetch = fetch_url,
    now: datetime | None = None,
    choose_signing_key: bool = False,
) -> HostKeyReport:
    """Return the report on ``documents`` without raising for those that are refused.

    ``certificates`` are exactly one signing key and the intermediate CAs. ``root_ca`` are the trusted roots, by default
    the system's. Unless ``offline``, CRLs are also fetched from the distribution points of the documents and of
    ``certificates`` with ``fetch``, which gets an http or https address and returns the body. ``now`` is the time of
    the verification (default: the clock's). With ``choose_signing_key`` there may be several signing keys: each
    document is checked with the one that it names.
    """
    run = _Run(
        certificates=certificates,
        crls=tuple(crls),
        trusted=system_roots() if root_ca is None else root_ca,
        downloader=None if offline else Downloader(fetch),
        now=(datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0),
        choose_signing_key=choose_signing_key,
    )
    return HostKeyReport(tuple(run.check(document) for document in documents))


class _Run:
    """One verification: its inputs, and what was already fetched and found for earlier documents."""

    def __init__(
        self,
        *,
        certificates: Sequence[Certificate],
        crls: tuple[Crl, ...],
        trusted: Sequence[Certificate],
        downloader: Downloader | None,
        now: datetime,
        choose_signing_key: bool,
    ) -> None:
        self._certificates = certificates
        self._signing_keys = [item for item in certificates if is_signing_key_name(item.raw.subject)]
        self._crls = crls
        self._certificates_crls_fetched = False
        self._trusted = trusted
        self._downloader = downloader
        self._now = now
        self._choose = choose_signing_key
        self._chains: dict[int, tuple[Certificate, ...] | RuleError] = {}

    def check(self, document: HostKeyDocument) -> DocumentReport:
        """Return the report on ``document``, up to the first rule that fails."""
        checks: list[Check] = []
        chain: tuple[Certificate, ...] = ()
        failure: Failure | None = None
        try:
            # the key first: refusing another kind needs no network
            checks += _check_key(document)
            signing_key = self._signing_key(document)
            checks.append(Check(HostKeyRule.SIGNING_KEY, True, f"{signing_key.label} ({signing_key.source})"))
            chain = self._chain(signing_key)
            checks.append(Check(HostKeyRule.CHAIN, True, f"leads to the trusted root {chain[-1].label}"))
            checks += _check_issue(document, signing_key, self._now)
            checks += self._check_revocation(document, signing_key)
        except RuleError as error:
            failure = error.failure
            checks.append(Check(failure.rule, False, failure.message))
        for check in checks:
            held = "holds" if check.passed else "does not hold"
            _LOG.info("%s: rule %s %s: %s", document.source, check.rule.value, held, check.detail)
        return DocumentReport(
            document=document,
            checks=tuple(checks),
            chain=chain,
            failure=failure,
            warnings=_warnings(document, chain),
            software=any(item.software for item in (document.certificate, *chain)),
        )

    def _signing_key(self, document: HostKeyDocument) -> Certificate:
        if not self._signing_keys:
            raise _failure(
                HostKeyRule.SIGNING_KEY,
                Reason.NO_SIGNING_KEY,
                "none of the certificates given is an IBM Z signing key",
                "give the certificate of the signing key with `certificates`",
            )
        if len(self._signing_keys) == 1:
            return self._signing_keys[0]
        if not self._choose:
            sources = ", ".join(item.source for item in self._signing_keys)
            raise _failure(
                HostKeyRule.SIGNING_KEY,
                Reason.SEVERAL_SIGNING_KEYS,
                f"{len(self._signing_keys)} of the certificates given are IBM Z signing keys: {sources}",
                "give exactly one, or keep them in a bundle (`Bundle`)",
            )
        authority = document.certificate.authority
        fitting = [item for item in self._signing_keys if authority is None or authority.names(item)]
        signers = [item for item in fitting if document.certificate.is_signed_by(item.key)]
        # a renewed certificate has the same key: one that is valid now, and of those the one that lasts longest
        return max(
            signers or fitting or self._signing_keys,
            key=lambda item: (item.not_before <= self._now < item.not_after, item.not_after),
        )

    def _chain(self, signing_key: Certificate) -> tuple[Certificate, ...]:
        if self._downloader is not None and not self._certificates_crls_fetched:
            self._certificates_crls_fetched = True
            for certificate in self._certificates:
                self._crls += self._downloader.crls_for(certificate)
        _LOG.debug("looking for a chain from %s with %d CRLs", signing_key.source, len(self._crls))
        # several documents share a chain: it is validated once
        known = self._chains.get(id(signing_key))
        if known is None:
            try:
                known = validate_chain(
                    signing_key,
                    trusted=self._trusted,
                    untrusted=[item for item in self._certificates if item is not signing_key],
                    crls=self._crls,
                    now=self._now,
                )
            except RuleError as error:
                known = self._with_search_for_crls(error.failure)
            self._chains[id(signing_key)] = known
        if isinstance(known, RuleError):
            raise known
        return known

    def _with_search_for_crls(self, failure: Failure) -> RuleError:
        """Return the failure of a chain; if it is for lack of a CRL, with what came of looking for one."""
        if failure.code not in OF_CRLS:
            return RuleError(failure)
        if self._downloader is None:
            return RuleError(replace(failure, hint=f"{failure.hint}, or let zseal fetch it (no `offline=True`)"))
        return RuleError(replace(failure, message="; ".join((failure.message, *self._downloader.problems))))

    def _check_revocation(self, document: HostKeyDocument, signing_key: Certificate) -> list[Check]:
        candidates = self._candidates(document.certificate, signing_key)
        valid = [crl for crl in candidates if _why_not(crl, signing_key, self._now) is None]
        for crl in valid:
            if crl.lists(document.certificate):
                raise _failure(
                    HostKeyRule.REVOCATION,
                    Reason.REVOKED,
                    f"the host key was revoked ({crl.source})",
                    "do not use it; ask for a new host-key document",
                )
        complete = [crl for crl in valid if crl.complete and not crl.unknown_critical]
        if not complete:
            known = {id(crl) for crl in candidates}
            strangers = [crl for crl in self._crls if is_signing_key_name(crl.raw.issuer) and id(crl) not in known]
            unfit = [
                f"{crl.source} {_why_not(crl, signing_key, self._now) or _PARTIAL}" for crl in (*candidates, *strangers)
            ]
            problems = self._downloader.problems if self._downloader else []
            raise _failure(
                HostKeyRule.CRL,
                Reason.NO_VALID_CRL,
                "; ".join(("no current, correctly signed CRL of the signing key", *unfit, *problems)),
                "give it with `crls`" + (", or drop `offline=True`" if self._downloader is None else ""),
            )
        best = max(complete, key=lambda crl: crl.this_update)
        until = "" if best.next_update is None else f"valid until {when(best.next_update)} "
        return [
            Check(HostKeyRule.CRL, True, f"{until}({best.source})"),
            Check(HostKeyRule.REVOCATION, True, "not revoked"),
        ]

    def _candidates(self, document: Certificate, signing_key: Certificate) -> tuple[Crl, ...]:
        found: tuple[Crl, ...] = ()
        for name in crl_issuer_names(signing_key.raw.subject):
            found = tuple(crl for crl in self._crls if crl.issuer == name)
            if found:
                break
        # lists from the document's own distribution point count under any name: their signature decides
        return found + (self._downloader.crls_for(document) if self._downloader is not None else ())


_PARTIAL = "does not cover every document and reason"


def _why_not(crl: Crl, signing_key: Certificate, now: datetime) -> str | None:
    """Return why what ``crl`` lists is not what ``signing_key`` has revoked up to now; None if it is."""
    if not crl.is_signed_by(signing_key.key) or not crl.may_be_from(signing_key):
        other = crl.issuer not in {*crl_issuer_names(signing_key.raw.subject)}
        return f"is issued by {crl.label}" if other else "is not signed by this signing key"
    if crl.next_update is None:
        return "has no end"
    if now < crl.this_update:
        return f"begins on {when(crl.this_update)}"
    return f"ended on {when(crl.next_update)}" if now >= crl.next_update else None


def _failure(rule: HostKeyRule, reason: Reason, message: str, hint: str) -> RuleError:
    return RuleError(Failure(rule, reason, message, hint))


def _check_key(document: HostKeyDocument) -> list[Check]:
    certificate = document.certificate
    if certificate.strength < MIN_STRENGTH:
        raise _failure(
            HostKeyRule.KEY_STRENGTH,
            Reason.WEAK_KEY,
            f"{key_kind(certificate)} has {certificate.strength} bits of security, {MIN_STRENGTH} needed",
            "give the host-key document of the machine",
        )
    if document.other_role is not None:
        raise _failure(
            HostKeyRule.KEY_TYPE,
            Reason.WRONG_KEY_TYPE,
            f"this is {document.other_role}, not a host-key document",
            "give the host-key document of the machine",
        )
    key = certificate.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVE):
        raise _failure(
            HostKeyRule.KEY_TYPE,
            Reason.WRONG_KEY_TYPE,
            f"the document contains {key_kind(certificate)}; a host key is one on secp521r1 (P-521)",
            "give the host-key document of the machine",
        )
    return [
        Check(HostKeyRule.KEY_STRENGTH, True, f"{certificate.strength} bits of security"),
        Check(HostKeyRule.KEY_TYPE, True, key_kind(certificate)),
    ]


def _check_issue(document: HostKeyDocument, signing_key: Certificate, now: datetime) -> list[Check]:
    certificate = document.certificate
    if now < certificate.not_before:
        raise _failure(
            HostKeyRule.VALIDITY,
            Reason.NOT_YET_VALID,
            f"the document is valid only from {when(certificate.not_before)}",
            "check this computer's clock",
        )
    if now >= certificate.not_after:
        raise _failure(
            HostKeyRule.VALIDITY,
            Reason.EXPIRED,
            f"the document expired on {when(certificate.not_after)}",
            "get the current host-key document of the machine",
        )
    if certificate.authority is not None and not certificate.authority.names(signing_key):
        names = _other_names(certificate, signing_key)
        raise _failure(
            HostKeyRule.AUTHORITY_KEY,
            Reason.OTHER_SIGNING_KEY,
            f"the document was not issued by the signing key {signing_key.source}{names}",
            _HINT_GENERATION,
        )
    if not certificate.is_signed_by(signing_key.key):
        if names := _other_names(certificate, signing_key):
            # IBM's documents name no key, so the name of their issuer is all there is to go by
            raise _failure(
                HostKeyRule.SIGNATURE,
                Reason.OTHER_SIGNING_KEY,
                f"the signing key {signing_key.source} did not sign the document{names}",
                _HINT_GENERATION,
            )
        raise _failure(
            HostKeyRule.SIGNATURE,
            Reason.BAD_SIGNATURE,
            "the signing key's signature on the document is not valid",
            "do not use it; get the document again from a source you trust",
        )
    return [
        Check(HostKeyRule.VALIDITY, True, f"until {when(certificate.not_after)}"),
        Check(HostKeyRule.AUTHORITY_KEY, True, "names the signing key" if certificate.authority else "names no key"),
        Check(HostKeyRule.SIGNATURE, True, "made by the signing key"),
    ]


def _other_names(document: Certificate, signing_key: Certificate) -> str:
    """Say whom the document names as its issuer instead of the signing key; empty if it names the signing key."""
    if document.issuer in {*crl_issuer_names(signing_key.raw.subject)}:
        return ""
    return f": it was issued by “{document.issuer_label}”, and the signing key given is “{signing_key.label}”"


def _warnings(document: HostKeyDocument, chain: tuple[Certificate, ...]) -> tuple[str, ...]:
    warnings = []
    if document.unused:
        warnings.append(f"only the first of {document.unused + 1} certificates in the file is used")
    if chain:
        subject = chain[0].raw.subject
        names = {*crl_issuer_names(subject)}
        if document.certificate.issuer not in names and not is_signing_key_name(document.certificate.raw.issuer):
            warnings.append(f"the document names another issuer: {document.certificate.issuer_text}")
    return tuple(warnings)
