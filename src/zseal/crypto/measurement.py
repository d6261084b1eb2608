"""The attestation measurement (HMAC-SHA-512), and the hash of the secret store that can be part of it."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Iterable

from zseal.formats.header_tags import HeaderTags
from zseal.secret import Secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a measurement covers: image, instance, the guest's user data, the request's nonce, additional data."""

    tags: HeaderTags
    cuid: bytes
    user_data: bytes = b""
    nonce: Secret | None = None
    additional: bytes = b""

    def measure(self, key: Secret) -> bytes:
        """Return the measurement, 64 bytes, with the 64-byte measurement ``key``."""
        message = hmac.new(key.reveal(), digestmod=hashlib.sha512)
        message.update(self.tags.pack() + self.cuid)
        message.update(len(self.user_data).to_bytes(2, "big") + bytes(2) + len(self.additional).to_bytes(4, "big"))
        message.update(self.user_data)
        if self.nonce is not None:
            message.update(self.nonce.view())
        message.update(self.additional)
        return message.digest()


def secret_store_hash(request_tags: Iterable[bytes], *, locked: bool) -> bytes:
    """Return the SHA-512 hash of the secret store: the tags of all successful requests in order, then the lock."""
    digest = hashlib.sha512()
    for tag in request_tags:
        digest.update(tag)
    digest.update(bytes([locked]))
    return digest.digest()
