"""AES-256-XTS over many 4096-byte pages, each a data unit of its own tweak.

A cipher object for every page costs more than the encryption itself. XTS is ECB between two XORs with a sequence of
block tweaks: E(K2, tweak) times 1, x, x**2 … in GF(2**128). Those are computed for a run of pages at once by doubling
(1, 2, 4 … blocks from the ones there), then one bulk AES-ECB call does the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from zseal.errors import InputError
from zseal.secret import Secret

PAGE_SIZE = 4096
TWEAK_SIZE = 16
KEY_SIZE = 64
_BLOCKS = PAGE_SIZE // 16
# pages a pass: data and block tweaks stay in the second-level cache
_RUN = 128

Buffer = bytes | bytearray | memoryview
Words = NDArray[np.uint64]


def page_tweaks(prefix: int, offset: int, pages: int) -> bytes:
    """Return the tweaks of ``pages`` pages from byte ``offset`` of a component: u64 prefix || u64 byte offset each."""
    tweaks = np.empty((pages, 2), dtype=">u8")
    tweaks[:, 0] = prefix
    tweaks[:, 1] = np.arange(offset, offset + pages * PAGE_SIZE, PAGE_SIZE, dtype=np.uint64)
    return tweaks.tobytes()


class XtsPages:
    """AES-256-XTS under one 64-byte key (data key || tweak key). Not for use by several threads at once."""

    def __init__(self, key: Secret) -> None:
        """Take the key; raises InputError for a wrong size or two equal halves, which XTS forbids."""
        data = key.reveal()
        if len(data) != KEY_SIZE:
            raise InputError(f"an AES-256-XTS key has {KEY_SIZE} bytes, not {len(data)}")
        if data[:32] == data[32:]:
            raise InputError("the two halves of the AES-256-XTS key are equal")
        # ECB is only the building block here: XTS is put around it below
        bulk = Cipher(algorithms.AES(data[:32]), modes.ECB())  # noqa: S305
        self._encryptor: CipherContext = bulk.encryptor()
        self._decryptor: CipherContext = bulk.decryptor()
        self._tweaker: CipherContext = Cipher(algorithms.AES(data[32:]), modes.ECB()).encryptor()  # noqa: S305
        self._block_tweaks: Words = np.empty((_RUN, _BLOCKS, 2), dtype="<u8")
        self._before: Words = np.empty((_RUN, _BLOCKS, 2), dtype="<u8")
        # update_into wants room for one block more
        self._after = np.empty(_RUN * PAGE_SIZE + 16, dtype=np.uint8)

    def encrypt_run(self, data: Buffer, prefix: int, offset: int) -> bytearray:
        """Encrypt successive pages of a component from byte ``offset`` on; their tweaks are ``prefix`` || offset."""
        return self.encrypt_pages(data, page_tweaks(prefix, offset, len(data) // PAGE_SIZE))

    def decrypt_run(self, data: Buffer, prefix: int, offset: int) -> bytearray:
        """Undo :meth:`encrypt_run`."""
        return self.decrypt_pages(data, page_tweaks(prefix, offset, len(data) // PAGE_SIZE))

    def encrypt_pages(self, data: Buffer, tweaks: Sequence[bytes] | Buffer) -> bytearray:
        """Encrypt whole pages, each under its own 16-byte tweak (a sequence of them, or all of them joined).

        Raises ValueError where ``data`` is not whole pages or the number of tweaks is another.
        """
        return self._crypt(self._encryptor, data, tweaks)

    def decrypt_pages(self, data: Buffer, tweaks: Sequence[bytes] | Buffer) -> bytearray:
        """Undo :meth:`encrypt_pages`."""
        return self._crypt(self._decryptor, data, tweaks)

    def _crypt(self, cipher: CipherContext, data: Buffer, tweaks: Sequence[bytes] | Buffer) -> bytearray:
        joined = tweaks if isinstance(tweaks, (bytes, bytearray, memoryview)) else b"".join(tweaks)
        pages, rest = divmod(len(data), PAGE_SIZE)
        if rest or len(joined) != pages * TWEAK_SIZE:
            raise ValueError(
                f"{len(data)} bytes of data and {len(joined)} bytes of tweaks are not pages and their tweaks"
            )
        result = bytearray(len(data))
        source = np.frombuffer(data, dtype="<u8").reshape(pages, _BLOCKS, 2)
        target = np.frombuffer(result, dtype="<u8").reshape(pages, _BLOCKS, 2)
        first = np.frombuffer(self._tweaker.update(joined), dtype="<u8").reshape(pages, 2)
        for start in range(0, pages, _RUN):
            end = min(start + _RUN, pages)
            block_tweaks = self._block_tweaks[: end - start]
            before = self._before[: end - start]
            _double(first[start:end], block_tweaks)
            np.bitwise_xor(source[start:end], block_tweaks, out=before)
            cipher.update_into(before.data.cast("B"), self._after.data)
            after = self._after[: before.nbytes].view("<u8").reshape(before.shape)
            np.bitwise_xor(after, block_tweaks, out=target[start:end])
        return result


def _double(first: Words, block_tweaks: Words) -> None:
    """Fill ``block_tweaks`` (pages, 256, 2) with ``first`` (pages, 2) times x**0 … x**255.

    A tweak is a polynomial over GF(2), its byte 0 holding the lowest coefficients: as two little-endian words, low word
    first, multiplying by x**n is a shift left, and what leaves the top comes back times x**7 + x**2 + x + 1.
    """
    block_tweaks[:, 0] = first
    done = 1
    while done < _BLOCKS:
        step = min(done, 32)  # what leaves the top, times x**7, must fit a word: shift by at most 57 at once
        low, high = block_tweaks[:, done - step : done, 0], block_tweaks[:, done - step : done, 1]
        bits, rest = np.uint64(step), np.uint64(64 - step)
        carry = high >> rest
        new = block_tweaks[:, done : done + step]
        new[..., 0] = low << bits ^ carry ^ carry << np.uint64(1) ^ carry << np.uint64(2) ^ carry << np.uint64(7)
        new[..., 1] = high << bits | low >> rest
        done += step
