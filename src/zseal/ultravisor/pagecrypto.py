"""How a page leaves a guest and comes back: encryption, and proof that it is the page that left last.

IBM publishes that an exported page is encrypted under a key of its guest and that an integrity value is kept with page
index and counter, but not how. zseal encrypts with AES-256-XTS, which the published dump format uses too, so that a
page exported long before a dump needs no second encryption. The tweak is the page's *component* (page index and export
counter) or-ed with a nonce of the guest; index and counter never recur together, so a tweak does not either. The
integrity value is a GMAC (AES-256-GCM without plaintext) of the ciphertext under a second key, its IV again index and
counter: three times as fast as an HMAC-SHA256, and only 16 bytes long.
"""

from __future__ import annotations

import hmac
import secrets
from itertools import repeat

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.xts import XtsPages
from zseal.secret import Secret
from zseal.ultravisor.tables import Counters

COUNTER_LIMIT = (1 << 48) - 1
TAG_SIZE = 16
COMPONENT_SIZE = 16
_NONCE_SIZE = 12
# The nonce is where components have zeros, so that or-ing loses nothing.
_NONCE_BYTES = (0, 1, 2, 8, 9)

Buffer = bytes | bytearray | memoryview


def components(pages: NDArray[np.int64], counters: Counters) -> bytes:
    """Return the 16-byte components of pages: bytes 3-7 the page index, 10-15 the export counter, zeros elsewhere."""
    parts = np.empty((len(pages), 2), ">u8")
    parts[:, 0], parts[:, 1] = pages, counters
    return parts.tobytes()


class PageSealer:
    """The export keys of one guest: random, never leaving it.

    Only one thread at a time may use it.
    """

    def __init__(self) -> None:
        self._encryption = Secret(secrets.token_bytes(64))
        self._integrity = Secret(secrets.token_bytes(32))
        nonce = bytearray(COMPONENT_SIZE)
        for at in _NONCE_BYTES:
            nonce[at] = secrets.randbelow(256)
        self._nonce = Secret(nonce)
        self._nonce_words = np.frombuffer(bytes(nonce), ">u8").astype(np.uint64)
        self._xts = XtsPages(self._encryption)
        self._mac = AESGCM(self._integrity.view())
        self._buffer = bytearray()

    def _tweaks(self, pages: NDArray[np.int64], counters: Counters) -> bytes:
        parts = np.empty((len(pages), 2), ">u8")
        parts[:, 0] = pages.astype(np.uint64) | self._nonce_words[0]
        parts[:, 1] = counters | self._nonce_words[1]
        return parts.tobytes()

    def _tags(self, data: Buffer, pages: NDArray[np.int64], counters: Counters) -> bytes:
        # One zero byte, 40 bits of page index, 48 bits of counter: never the same twice under this key.
        numbers = np.zeros((len(pages), 16), np.uint8)
        numbers[:, 3:8] = pages.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:]
        numbers[:, 8:14] = counters.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
        joined, view = numbers.tobytes(), memoryview(data)
        nonces = [joined[at : at + _NONCE_SIZE] for at in range(2, len(joined), 16)]
        signed = [view[at : at + PAGE_SIZE] for at in range(0, len(view), PAGE_SIZE)]
        return b"".join(map(self._mac.encrypt, nonces, repeat(b""), signed))

    def _room(self, data: Buffer) -> bytearray:
        """Return the buffer of the last call if its size fits: new memory would cost a tenth of the time."""
        if len(self._buffer) != len(data):
            self._buffer = bytearray(len(data))
        return self._buffer

    def encrypt(self, plain: Buffer, pages: NDArray[np.int64], counters: Counters) -> bytearray:
        """Return the ciphertext of whole pages; ``counters`` must be new for each of ``pages``.

        The result is valid until the next call, as are those of ``seal`` and ``open``.
        """
        return self._xts.encrypt_pages(plain, self._tweaks(pages, counters), out=self._room(plain))

    def seal(self, plain: Buffer, pages: NDArray[np.int64], counters: Counters) -> tuple[bytearray, bytes]:
        """Return ciphertext and joined 16-byte tags of whole pages; ``counters`` must be new for each of ``pages``."""
        data = self.encrypt(plain, pages, counters)
        return data, self._tags(data, pages, counters)

    def open(
        self,
        data: memoryview,
        pages: NDArray[np.int64],
        counters: Counters,
        tags: bytes,
        target: memoryview,
    ) -> int:
        """Decrypt pages that are what was sealed with these counters and tags, up to the first that is not.

        The plaintext goes into ``target``, of the size of ``data``; returns its number of pages. Nothing else may
        change ``data`` meanwhile.
        """
        found, good = self._tags(data, pages, counters), len(pages)
        if not hmac.compare_digest(found, tags):
            good = next(
                index
                for index, at in enumerate(range(0, len(tags), TAG_SIZE))
                if not hmac.compare_digest(found[at : at + TAG_SIZE], tags[at : at + TAG_SIZE])
            )
        authentic = data[: good * PAGE_SIZE]
        tweaks = self._tweaks(pages[:good], counters[:good])
        self._xts.decrypt_into(authentic, tweaks, target[: len(authentic)])
        return good

    def wipe(self) -> None:
        """Overwrite the keys; the sealer cannot be used afterwards."""
        for secret in (self._encryption, self._integrity, self._nonce, self._xts):
            secret.wipe()
        self._nonce_words[:] = 0
        self._buffer[:] = bytes(len(self._buffer))
        del self._xts, self._mac
