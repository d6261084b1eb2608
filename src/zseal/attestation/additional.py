"""Parses the additional data of an answer."""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.attestation_request import ADDITIONAL_SIZES, AttestationFlags

_NAMES = {
    AttestationFlags.IMAGE_PHKH: "image_phkh",
    AttestationFlags.ATTESTATION_PHKH: "attestation_phkh",
    AttestationFlags.SECRET_STORE_HASH: "secret_store_hash",
    AttestationFlags.FIRMWARE_STATE: "firmware_state",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdditionalData:
    """The data that a request asked for in addition to the measurement; None means that it did not."""

    image_phkh: bytes | None = None
    """Hash of the host key that opened the SE header of the running image, 32 bytes."""
    attestation_phkh: bytes | None = None
    """Hash of the host key that opened the request, 32 bytes."""
    secret_store_hash: bytes | None = None
    """SHA-512 hash over the guest's add-secret requests and the lock, 64 bytes."""
    firmware_state: bytes | None = None
    """Opaque to owners, 320 bytes: IBM's service judges it."""
    unrecognized: bytes | None = None
    """The rest, for which no known flag asked."""

    @classmethod
    def parse(cls, data: bytes, flags: AttestationFlags) -> AdditionalData:
        """Parse ``data`` by the request's ``flags``; raises FormatError if it is too short."""
        found: dict[str, bytes] = {}
        for flag, size in ADDITIONAL_SIZES.items():
            if flag in flags:
                if len(data) < size:
                    raise FormatError("the response has less additional data than its request asks for")
                found[_NAMES[flag]], data = data[:size], data[size:]
        if data:
            found["unrecognized"] = data
        return cls(**found)

    def items(self) -> list[tuple[str, bytes]]:
        """Return names and values of the data that exist, in their order."""
        names = [field.name for field in dataclasses.fields(self)]
        return [(name, value) for name in names if (value := getattr(self, name)) is not None]
