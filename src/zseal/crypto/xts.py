"""AES-256-XTS over many 4096-byte pages, each a data unit with its own tweak.

A cipher object for every page costs more than the encryption itself. XTS is ECB between two XORs with a sequence of
block tweaks: E(K2, tweak) times 1, x, x**2 … in GF(2**128). Those are computed for a whole run of pages (see
``xts_tweaks``), then one bulk AES-ECB call processes the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.xts_tweaks import BLOCKS, BlockTweaks, Words
from zseal.errors import InputError
from zseal.secret import Secret

TWEAK_SIZE = 16
KEY_SIZE = 64
# pages whose tweaks are prepared together: enough to make numpy's cost per call vanish
_RUN = 512
# pages per pass: few enough for tweaks and both sides of the cipher to stay in the processor's cache
_PASS = 32

# below this, one cipher object for each page is faster
_FEW = 32

Buffer = bytes | bytearray | memoryview
Target = bytearray | memoryview


def page_tweaks(prefix: int, offset: int, pages: int) -> bytes:
    """Return the tweaks of ``pages`` pages from byte ``offset`` of a component: u64 prefix || u64 byte offset each."""
    tweaks = np.empty((pages, 2), dtype=">u8")
    tweaks[:, 0] = prefix
    tweaks[:, 1] = np.arange(offset, offset + pages * PAGE_SIZE, PAGE_SIZE, dtype=np.uint64)
    return tweaks.tobytes()


class XtsPages:
    """AES-256-XTS under one 64-byte key (data key || tweak key). Only one thread at a time may use it.

    The methods that encrypt and decrypt take whole pages. They return a new bytearray, or fill ``out`` (of the same
    size) if given, and raise ValueError for a broken page or a number of tweaks that does not match. They read the data
    once, so it may change meanwhile without harm.
    """

    def __init__(self, key: Secret) -> None:
        """Take the key; raises InputError for a wrong size or two equal halves, which XTS forbids."""
        data = key.view()
        if len(data) != KEY_SIZE:
            raise InputError(f"an AES-256-XTS key has {KEY_SIZE} bytes, not {len(data)}")
        if data[:32] == data[32:]:
            raise InputError("the two halves of the AES-256-XTS key are equal")
        self._secret = Secret(data)
        data = self._secret.view()
        self._key = algorithms.AES(data)
        # ECB is only the building block here: the methods below build XTS from it
        bulk = Cipher(algorithms.AES(data[:32]), modes.ECB())  # noqa: S305
        self._encryptor: CipherContext = bulk.encryptor()
        self._decryptor: CipherContext = bulk.decryptor()
        self._tweaker: CipherContext = Cipher(algorithms.AES(data[32:]), modes.ECB()).encryptor()  # noqa: S305
        self._buffers: tuple[Words, Words, NDArray[np.uint8]] | None = None

    def wipe(self) -> None:
        """Overwrite the key; the object cannot be used afterwards."""
        self._secret.wipe()
        del self._encryptor, self._decryptor, self._tweaker, self._key

    def encrypt_run(self, data: Buffer, prefix: int, offset: int, *, out: bytearray | None = None) -> bytearray:
        """Encrypt successive pages of a component from byte ``offset`` on; their tweaks are ``prefix`` || offset."""
        return self.encrypt_pages(data, page_tweaks(prefix, offset, len(data) // PAGE_SIZE), out=out)

    def decrypt_run(self, data: Buffer, prefix: int, offset: int, *, out: bytearray | None = None) -> bytearray:
        """Undo :meth:`encrypt_run`."""
        return self.decrypt_pages(data, page_tweaks(prefix, offset, len(data) // PAGE_SIZE), out=out)

    def encrypt_pages(
        self, data: Buffer, tweaks: Sequence[bytes] | Buffer, *, out: bytearray | None = None
    ) -> bytearray:
        """Encrypt pages, each under its own 16-byte tweak: a sequence of them, or all of them joined."""
        result = bytearray(len(data)) if out is None else out
        self._crypt(data, tweaks, result, encrypt=True)
        return result

    def decrypt_pages(
        self, data: Buffer, tweaks: Sequence[bytes] | Buffer, *, out: bytearray | None = None
    ) -> bytearray:
        """Undo :meth:`encrypt_pages`."""
        result = bytearray(len(data)) if out is None else out
        self._crypt(data, tweaks, result, encrypt=False)
        return result

    def decrypt_into(self, data: Buffer, tweaks: Sequence[bytes] | Buffer, target: Target) -> None:
        """Undo :meth:`encrypt_pages`, with the result in ``target``, for example the destination storage."""
        self._crypt(data, tweaks, target, encrypt=False)

    def _crypt(self, data: Buffer, tweaks: Sequence[bytes] | Buffer, target: Target, *, encrypt: bool) -> None:
        joined = tweaks if isinstance(tweaks, (bytes, bytearray, memoryview)) else b"".join(tweaks)
        pages, rest = divmod(len(data), PAGE_SIZE)
        if rest or len(joined) != pages * TWEAK_SIZE:
            raise ValueError(
                f"{len(data)} bytes of data and {len(joined)} bytes of tweaks are not pages and their tweaks"
            )
        if len(target) != len(data):
            raise ValueError(f"{len(data)} bytes do not fit a buffer of {len(target)}")
        if pages < _FEW:
            self._few_pages(memoryview(data), joined, memoryview(target), encrypt=encrypt)
        else:
            self._many_pages(data, joined, target, encrypt=encrypt)

    def _few_pages(self, data: memoryview, tweaks: Buffer, result: memoryview, *, encrypt: bool) -> None:
        for page in range(len(data) // PAGE_SIZE):
            span = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
            cipher = Cipher(self._key, modes.XTS(bytes(tweaks[page * TWEAK_SIZE : (page + 1) * TWEAK_SIZE])))
            result[span] = (cipher.encryptor() if encrypt else cipher.decryptor()).update(data[span])

    def _many_pages(self, data: Buffer, tweaks: Buffer, result: Target, *, encrypt: bool) -> None:
        if self._buffers is None:
            shape = (_PASS, BLOCKS, 2)
            # update_into needs room for one more block
            after = np.empty(_PASS * PAGE_SIZE + 16, dtype=np.uint8)
            self._buffers = np.empty(shape, dtype="<u8"), np.empty(shape, dtype="<u8"), after
        all_tweaks, all_before, after = self._buffers
        cipher = self._encryptor if encrypt else self._decryptor
        source = np.frombuffer(data, dtype="<u8").reshape(-1, BLOCKS, 2)
        target = np.frombuffer(result, dtype="<u8").reshape(-1, BLOCKS, 2)
        first = np.frombuffer(self._tweaker.update(tweaks), dtype="<u8").reshape(-1, 2)
        for start in range(0, len(source), _PASS):
            at = start % _RUN
            if not at:
                run_tweaks = BlockTweaks(first[start : start + _RUN])
            span = slice(start, start + _PASS)
            pages = len(source[span])
            block_tweaks, before = all_tweaks[:pages], all_before[:pages]
            run_tweaks.fill(at, block_tweaks)
            np.bitwise_xor(source[span], block_tweaks, out=before)
            cipher.update_into(before.data.cast("B"), after.data)
            crypted = after[: before.nbytes].view("<u8").reshape(before.shape)
            np.bitwise_xor(crypted, block_tweaks, out=target[span])
