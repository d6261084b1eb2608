"""The ultravisor as programs in a guest see it."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from zseal.errors import ZsealError
from zseal.formats.uv_codes import Command, describe


class UltravisorRefusedError(ZsealError):
    """The ultravisor refused a call; ``rc`` and ``rrc`` are its answer."""

    def __init__(self, command: Command, rc: int, rrc: int) -> None:
        super().__init__(describe(command, rc, rrc))
        self.rc, self.rrc = rc, rrc


@dataclasses.dataclass(frozen=True)
class AttestationAnswer:
    """What the ultravisor answers to an attestation request."""

    measurement: bytes
    additional: bytes
    cuid: bytes


class GuestUltravisor(Protocol):
    """The ultravisor as a guest's programs see it: the device, or a played guest."""

    def attest(
        self, arcb: bytes, *, user_data: bytes, measurement_size: int, additional_size: int
    ) -> AttestationAnswer:
        """Have the guest measured; raises UltravisorRefusedError."""

    def add_secret(self, request: bytes) -> None:
        """Add a secret; raises UltravisorRefusedError."""

    def list_secrets(self) -> bytes:
        """Return the list of secrets (``zseal.formats.secret_list``); raises UltravisorRefusedError."""

    def lock_secrets(self) -> None:
        """Lock the secret store; raises UltravisorRefusedError."""

    def retrieve_secret(self, index: int, size: int) -> bytes:
        """Return the secret with this index, ``size`` bytes; raises UltravisorRefusedError."""
