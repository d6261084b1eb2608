"""What a verification reports: the rules, how each document did, and the error that a refusal becomes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zseal.errors import VerificationError
from zseal.hostkeys.certificates import Certificate
from zseal.hostkeys.document import HostKeyDocument


class Rule(enum.StrEnum):
    """The rules a host-key document has to meet, in the order in which they are checked."""

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
    """A rule that does not hold: what is wrong and what to do.

    A failure of the chain has the ``code`` and ``level`` that OpenSSL would give: the X509_V_ERR number, and the place
    in the chain, where 0 is the signing key.
    """

    rule: Rule
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
    """A host-key document was refused; ``document`` says how it did in every rule, ``failure`` is the one it broke."""

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
    """A rule that was checked. ``detail`` says what was found."""

    rule: Rule
    passed: bool
    detail: str


@dataclass(frozen=True)
class DocumentReport:
    """How one document did: the rules checked up to the first that does not hold.

    ``chain`` runs from the signing key to the root; it is empty where the chain was not reached or does not hold.
    ``warnings`` are oddities that no rule forbids. ``software`` is true for a software machine's document.
    """

    document: HostKeyDocument
    checks: tuple[Check, ...]
    chain: tuple[Certificate, ...]
    failure: Failure | None
    warnings: tuple[str, ...]
    software: bool

    @property
    def accepted(self) -> bool:
        """Whether every rule holds."""
        return self.failure is None

    @property
    def refusal(self) -> HostKeyVerificationError | None:
        """What to raise or to tell about this document, None if it is accepted."""
        return None if self.failure is None else HostKeyVerificationError(self, self.failure)


@dataclass(frozen=True)
class Report:
    """How every document did, in the order given."""

    documents: tuple[DocumentReport, ...]

    @property
    def accepted(self) -> bool:
        """Whether every rule holds for every document."""
        return all(document.accepted for document in self.documents)

    def raise_for_refusal(self) -> None:
        """Raise HostKeyVerificationError for the first document that was refused, if any."""
        for document in self.documents:
            if document.refusal is not None:
                raise document.refusal
