"""The results of a verification: the rules, a report on each document, and the error for a refusal."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zseal.errors import VerificationError
from zseal.hostkeys.certificates import Certificate
from zseal.hostkeys.document import HostKeyDocument


class HostKeyRule(enum.StrEnum):
    """The rules for a host-key document, in the order in which they are checked."""

    KEY_STRENGTH = "key-strength"
    KEY_TYPE = "key-type"
    SIGNING_KEY = "signing-key"
    CHAIN = "chain"
    VALIDITY = "validity"
    AUTHORITY_KEY = "authority-key"
    SIGNATURE = "signature"
    CRL = "crl"
    REVOCATION = "revocation"


class Reason(enum.StrEnum):
    """Why a document was refused."""

    WEAK_KEY = "weak-key"
    WRONG_KEY_TYPE = "wrong-key-type"
    NO_SIGNING_KEY = "no-signing-key"
    SEVERAL_SIGNING_KEYS = "several-signing-keys"
    CHAIN = "chain"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    OTHER_SIGNING_KEY = "other-signing-key"
    BAD_SIGNATURE = "bad-signature"
    NO_VALID_CRL = "no-valid-crl"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Failure:
    """A rule that failed: what is wrong and what to do.

    A failure of the chain has the ``code`` and ``level`` of OpenSSL: the X509_V_ERR number, and the place in the chain,
    where 0 is the signing key.
    """

    rule: HostKeyRule
    reason: Reason
    message: str
    hint: str
    code: int | None = None
    level: int | None = None


class RuleError(Exception):
    """Ends the checks of a document or of the chain; never leaves this package."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HostKeyVerificationError(VerificationError):
    """A host-key document was refused; ``document`` has the result of every rule, ``failure`` the rule that failed."""

    def __init__(self, document: DocumentReport, failure: Failure) -> None:
        super().__init__(
            f"host-key document refused, rule {failure.rule}: {failure.message}",
            where=document.document.source,
            hint=failure.hint,
        )
        self.document = document
        self.failure = failure


@dataclass(frozen=True)
class Check:
    """A rule that was checked. ``detail`` is what was found."""

    rule: HostKeyRule
    passed: bool
    detail: str


@dataclass(frozen=True)
class DocumentReport:
    """The report on one document: the rules checked, up to the first that failed.

    ``chain`` runs from the signing key to the root; it is empty if the chain was not checked or failed. ``warnings``
    are oddities that no rule forbids. ``software`` is true for a software machine's document.
    """

    document: HostKeyDocument
    checks: tuple[Check, ...]
    chain: tuple[Certificate, ...]
    failure: Failure | None
    warnings: tuple[str, ...]
    software: bool

    @property
    def accepted(self) -> bool:
        """Whether every rule passed."""
        return self.failure is None

    @property
    def refusal(self) -> HostKeyVerificationError | None:
        """The error to raise or print for this document, None if it is accepted."""
        return None if self.failure is None else HostKeyVerificationError(self, self.failure)


@dataclass(frozen=True)
class HostKeyReport:
    """The report on every document, in the order given."""

    documents: tuple[DocumentReport, ...]

    @property
    def accepted(self) -> bool:
        """Whether every rule passed for every document."""
        return all(document.accepted for document in self.documents)

    def raise_for_refusal(self) -> None:
        """Raise HostKeyVerificationError for the first document that was refused, if any."""
        for document in self.documents:
            if document.refusal is not None:
                raise document.refusal
