"""Attestation: proving to an owner which image runs in a guest, and on which machine.

An owner creates a request (:func:`create_attestation_request`), the guest has its machine answer it
(:func:`perform_attestation`), the owner verifies the answer (:func:`verify_attestation`) and checks it against a policy
(:func:`check_attestation`). The names below are the interface; they are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.attestation.additional import AdditionalData
    from zseal.attestation.create import (
        AttestationRequestKeys,
        CreatedAttestationRequest,
        create_attestation_request,
    )
    from zseal.attestation.perform import perform_attestation
    from zseal.attestation.policy import (
        ExpectedHostKey,
        HostKeyResult,
        Policy,
        PolicyResult,
        SecretStore,
        check_attestation,
    )
    from zseal.attestation.verify import MeasurementMismatchError, VerifiedAttestation, verify_attestation
    from zseal.formats.attestation_file import RequestFile, ResponseFile
    from zseal.formats.attestation_request import AttestationFlags
    from zseal.formats.header_tags import HeaderTags

__all__ = [
    "AdditionalData",
    "AttestationFlags",
    "AttestationRequestKeys",
    "CreatedAttestationRequest",
    "ExpectedHostKey",
    "HeaderTags",
    "HostKeyResult",
    "MeasurementMismatchError",
    "Policy",
    "PolicyResult",
    "RequestFile",
    "ResponseFile",
    "SecretStore",
    "VerifiedAttestation",
    "check_attestation",
    "create_attestation_request",
    "perform_attestation",
    "verify_attestation",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "zseal.formats.attestation_file": ("RequestFile", "ResponseFile"),
            "zseal.formats.attestation_request": ("AttestationFlags",),
            "zseal.formats.header_tags": ("HeaderTags",),
        },
        additional=("AdditionalData",),
        create=("AttestationRequestKeys", "CreatedAttestationRequest", "create_attestation_request"),
        perform=("perform_attestation",),
        policy=("ExpectedHostKey", "HostKeyResult", "Policy", "PolicyResult", "SecretStore", "check_attestation"),
        verify=("MeasurementMismatchError", "VerifiedAttestation", "verify_attestation"),
    )
