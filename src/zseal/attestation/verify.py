"""Verifies an answer: did a machine of the request measure a guest with this image?"""

from __future__ import annotations

import dataclasses
import hmac

from zseal.attestation.additional import AdditionalData
from zseal.crypto.measurement import Measured
from zseal.crypto.request import decrypt_request
from zseal.errors import VerificationError
from zseal.formats.attestation_file import ResponseFile
from zseal.formats.attestation_request import MEASUREMENT_KEY_SIZE, AttestationFlags, AttestationRequestBlock
from zseal.formats.header_tags import HeaderTags
from zseal.secret import Secret


class MeasurementMismatchError(VerificationError):
    """The measurement differs: another image, instance, user data or additional data, or a forged answer."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class VerifiedAttestation:
    """What a verified answer proves about its guest."""

    cuid: bytes
    """The configuration unique ID of the running guest, 16 bytes."""
    additional: bytes
    """The additional data as received; empty if none were requested."""
    fields: AdditionalData
    user_data: bytes
    """The data that the guest itself added, at most 256 bytes. The guest states them, not the machine."""


def verify_attestation(response: ResponseFile, *, tags: HeaderTags, protection_key: Secret) -> VerifiedAttestation:
    """Return what ``response`` proves: a machine that could open the request measured a guest whose image has ``tags``.

    ``protection_key`` are the 32 bytes kept when the request was created. Raises MeasurementMismatchError if the
    measurement differs, VerificationError if the key is not that of the request or the request was changed, FormatError
    if request or additional data are damaged. Comparison takes constant time.
    """
    block = AttestationRequestBlock.parse(response.arcb)
    try:
        plaintext = decrypt_request(block.request, protection_key)
    except VerificationError as error:
        raise VerificationError(
            "the request in the response cannot be decrypted",
            hint="give the protection key of the request that the guest answered",
        ) from error
    key = Secret(plaintext.view()[:MEASUREMENT_KEY_SIZE])
    nonce = Secret(plaintext.view()[MEASUREMENT_KEY_SIZE:]) if AttestationFlags.NONCE in block.flags else None
    plaintext.wipe()
    measured = Measured(
        tags=tags, cuid=response.cuid, user_data=response.user_data, nonce=nonce, additional=response.additional
    )
    if not hmac.compare_digest(measured.measure(key), response.measurement):
        raise MeasurementMismatchError(
            "the attestation measurement does not match",
            hint="the guest runs another image, or the response was changed",
        )
    fields = AdditionalData.parse(response.additional, block.flags)
    return VerifiedAttestation(response.cuid, response.additional, fields, response.user_data)
