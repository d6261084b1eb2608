"""Checking a verified answer against what its owner expects: host keys, user data, secret store, firmware."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from zseal.attestation.additional import AdditionalData
from zseal.crypto.measurement import secret_store_hash
from zseal.formats.attestation_file import ResponseFile
from zseal.formats.attestation_request import AttestationRequestBlock

FirmwareJudge = Callable[[bytes], str | None]
"""Judges a firmware state of 320 bytes: None if it is good, otherwise the reason; raises ZsealError if it cannot."""


@dataclasses.dataclass(frozen=True)
class ExpectedHostKey:
    """A host key that may have opened image or request: its 32-byte hash, and the name of its document."""

    phkh: bytes
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretStore:
    """The secret store that a guest must have: the tags of its requests in order of execution, and the lock."""

    request_tags: Sequence[bytes]
    request_names: Sequence[str] = ()
    locked: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """What an answer must show; None and empty values are not checked."""

    host_keys: Sequence[ExpectedHostKey] = ()
    require_image_key: bool = False
    """Fail if the answer does not say which host key opened the image."""
    require_attestation_key: bool = False
    """Fail if the answer does not say which host key opened the request."""
    user_data: bytes | None = None
    secret_store: SecretStore | None = None
    firmware: FirmwareJudge | None = None


@dataclasses.dataclass(frozen=True)
class HostKeyResult:
    """The check of one host-key hash: whether the policy requires it, and the document that it belongs to."""

    enforced: bool
    name: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """The outcome; ``issues`` has one line for each check that failed."""

    issues: tuple[str, ...]
    image_host_key: HostKeyResult | None = None
    attestation_host_key: HostKeyResult | None = None
    user_data: bytes | None = None
    secret_store: SecretStore | None = None
    valid_firmware: bool | None = None

    @property
    def successful(self) -> bool:
        """Whether every check passed."""
        return not self.issues


def check_attestation(response: ResponseFile, policy: Policy) -> PolicyResult:
    """Check ``response`` against ``policy``.

    It decrypts nothing and verifies no measurement: first let :func:`verify_attestation` accept the answer. Raises
    FormatError for a damaged answer.
    """
    block = AttestationRequestBlock.parse(response.arcb)
    fields = AdditionalData.parse(response.additional, block.flags)
    issues: list[str] = []
    image = _host_key(fields.image_phkh, "image", policy.host_keys, policy.require_image_key, issues)
    attestation = _host_key(
        fields.attestation_phkh, "attestation request", policy.host_keys, policy.require_attestation_key, issues
    )
    user_data = policy.user_data
    if user_data is not None and user_data != response.user_data:
        issues.append("the user data of the response are not the expected ones")
        user_data = None
    return PolicyResult(
        image_host_key=image,
        attestation_host_key=attestation,
        user_data=user_data,
        secret_store=_secret_store(fields.secret_store_hash, policy.secret_store, issues),
        valid_firmware=_firmware(fields.firmware_state, policy.firmware, issues),
        issues=tuple(issues),
    )


def _host_key(
    phkh: bytes | None, what: str, expected: Sequence[ExpectedHostKey], enforced: bool, issues: list[str]
) -> HostKeyResult | None:
    if not expected and not enforced:
        return None
    if phkh is None:
        if enforced:
            issues.append(f"the response does not say which host key opened the {what}")
            return HostKeyResult(True, None)
        return None
    names = [key.name for key in expected if key.phkh == phkh]
    if len(names) == 1:
        return HostKeyResult(enforced, names[0])
    if names:
        issues.append(f"several of the host-key documents contain the host key that opened the {what}")
    else:
        issues.append(f"none of the host-key documents contains the host key that opened the {what}")
    return HostKeyResult(enforced, None) if enforced else None


def _secret_store(found: bytes | None, expected: SecretStore | None, issues: list[str]) -> SecretStore | None:
    if expected is None:
        return None
    if found is None:
        issues.append("the response has no hash of the secret store")
    elif found != secret_store_hash(expected.request_tags, locked=expected.locked):
        issues.append(
            "the hash of the secret store differs: other requests, another order, or another state of the lock"
        )
    else:
        return expected
    return None


def _firmware(state: bytes | None, judge: FirmwareJudge | None, issues: list[str]) -> bool | None:
    if judge is None:
        return None
    if state is None:
        issues.append("the response has no firmware state")
        return False
    reason = judge(state)
    if reason is not None:
        issues.append(f"the firmware is not valid: {reason}")
    return reason is None
