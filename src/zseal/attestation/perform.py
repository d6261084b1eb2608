"""Answers a request inside a guest; needs only Python's standard library."""

from __future__ import annotations

from zseal.errors import InputError
from zseal.formats.attestation_file import RequestFile, ResponseFile
from zseal.formats.attestation_request import MAX_USER_DATA
from zseal.uvdevice.interface import GuestUltravisor


def perform_attestation(request: RequestFile, ultravisor: GuestUltravisor, *, user_data: bytes = b"") -> ResponseFile:
    """Let ``ultravisor`` answer ``request`` and return the response.

    ``user_data``, at most 256 bytes, becomes part of the measurement. Raises InputError if it is longer, and the errors
    of ``ultravisor``.
    """
    if len(user_data) > MAX_USER_DATA:
        raise InputError(f"user data have at most {MAX_USER_DATA} bytes, not {len(user_data)}")
    answer = ultravisor.attest(
        request.arcb,
        user_data=user_data,
        measurement_size=request.measurement_size,
        additional_size=request.additional_size,
    )
    return ResponseFile(
        arcb=request.arcb,
        measurement=answer.measurement,
        additional=answer.additional,
        cuid=answer.cuid,
        user_data=user_data,
    )
