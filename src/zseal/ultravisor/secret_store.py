"""The secret store of one guest: what owners gave it, and what they were promised of it."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from zseal.crypto.measurement import secret_store_hash
from zseal.formats.add_secret_request import SecretType
from zseal.formats.secret_list import ENTRIES_IN_PAGE, ListEntry, SecretList, retrieved_size
from zseal.secret import Secret

_COUNTER_SIZE = 16


@dataclasses.dataclass(frozen=True)
class StoredSecret:
    """A secret that the guest can list and, unless it is for association, retrieve."""

    index: int
    type: SecretType
    secret_id: bytes
    value: Secret

    @property
    def entry(self) -> ListEntry:
        """How the list shows it."""
        length = retrieved_size(self.type, len(self.value))
        return ListEntry(index=self.index, type=self.type, length=length, secret_id=self.secret_id)


class SecretStore:
    """Secrets in the order in which they came, the tags of all requests, and the lock; empty at the guest's start.

    Attributes are replaced, never changed inside, so that a call which adds a secret can be taken back.
    """

    def __init__(self) -> None:
        self.stored: list[StoredSecret] = []
        self.locked = False
        self.dump_disabled = False
        self.extension_secret: Secret | None = None
        """The extension secret that every request has to carry; None until the first request fixes it."""
        self._tags: list[bytes] = []
        self.wrapping_key = Secret(secrets.token_bytes(32))
        """What retrieved keys are encrypted with, 32 bytes."""

    @property
    def hash(self) -> bytes:
        """The hash over all requests and the lock, 64 bytes, as attestation reports it."""
        return secret_store_hash(self._tags, locked=self.locked)

    def count(self, *, retrievable: bool) -> int:
        """Return how many secrets there are that can or cannot be retrieved."""
        return sum(each.type.retrievable is retrievable for each in self.stored)

    def record(self, tag: bytes, extension_secret: Secret) -> None:
        """Remember a request that was carried out, by its tag; the first one fixes the extension secret."""
        self._tags = [*self._tags, tag]
        if self.extension_secret is None:
            self.extension_secret = extension_secret

    def add(self, kind: SecretType, secret_id: bytes, value: Secret) -> None:
        """Store a secret under the next index."""
        self.stored = [*self.stored, StoredSecret(len(self.stored), kind, secret_id, value)]

    def page(self, start: int) -> SecretList:
        """Return as much of the list from index ``start`` on as fits a page."""
        entries = [each.entry for each in self.stored[start:]]
        rest = entries[ENTRIES_IN_PAGE:]
        return SecretList(tuple(entries[:ENTRIES_IN_PAGE]), len(self.stored), rest[0].index if rest else 0)

    def retrieved(self, secret: StoredSecret) -> bytes:
        """Return ``secret`` as the guest gets it: plaintext as it is, a key wrapped.

        A wrapped key is encrypted with a key of this guest alone and followed by 32 bytes that name that key. Real
        machines do the same; how they encrypt is not public, and makes no difference outside the machine.
        """
        if secret.type is SecretType.PLAINTEXT:
            return secret.value.reveal()
        counter = secret.index.to_bytes(_COUNTER_SIZE // 2, "big") + bytes(_COUNTER_SIZE // 2)
        cipher = Cipher(algorithms.AES(self.wrapping_key.reveal()), modes.CTR(counter)).encryptor()
        wrapped = cipher.update(secret.value.reveal()) + cipher.finalize()
        return wrapped + hashlib.sha256(b"wrapping key" + self.wrapping_key.reveal()).digest()

    def wipe(self) -> None:
        """Overwrite every secret."""
        for each in self.stored:
            each.value.wipe()
        if self.extension_secret is not None:
            self.extension_secret.wipe()
        self.wrapping_key.wipe()
