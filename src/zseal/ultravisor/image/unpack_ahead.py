"""Prepares an image that will probably be unpacked soon, while the machine that asks for it is still starting.

Nothing depends on it. Its results are used only if header and pages turn out to be the same, so they change no answer;
work that fails here will fail in its call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from zseal.crypto.digests import ImageDigests
from zseal.crypto.keyexchange import MachineKeys
from zseal.crypto.xts import XtsPages
from zseal.errors import ZsealError
from zseal.formats.ipib import IpibComponent
from zseal.ultravisor.image.acceptance import accept_header
from zseal.ultravisor.image.unpacking import Unpacked
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Settings

_LIMIT = 64 << 20
"""The most bytes of an image to keep twice meanwhile, stored and decrypted; more could not be done in time anyway."""


class UnpackAhead:
    """Unpacks an image in a thread of its own, run by run, until its results are taken or it is stopped.

    ``read`` returns at most the given number of stored bytes from the given offset on; ``piece`` is the number of bytes
    that a run of calls takes.
    """

    def __init__(
        self,
        header: bytes,
        components: Sequence[IpibComponent],
        read: Callable[[int, int], bytes],
        *,
        keys: MachineKeys,
        settings: Settings,
        piece: int,
    ) -> None:
        self._header = header
        self._components = components
        self._read = read
        self._keys = keys
        self._settings = settings
        self._piece = piece
        self._results: list[Unpacked] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="zseal-unpack-ahead", daemon=True)
        self._thread.start()

    def take(self, header: bytes) -> Sequence[Unpacked]:
        """Stop, and return the results for an image with ``header``."""
        self.stop()
        results, self._results = self._results, []
        return results if header == self._header else ()

    def stop(self) -> None:
        """Stop, within the time that one run takes."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            accepted = accept_header(self._header, self._keys, settings=self._settings)
        except UvcRefusal:
            return
        cipher = None
        try:
            cipher = accepted.cipher()
            self._unpack(cipher)
        except (ZsealError, OSError, ValueError):
            return
        finally:
            accepted.wipe()
            if cipher is not None:
                cipher.wipe()

    def _unpack(self, cipher: XtsPages | None) -> None:
        digests, total = ImageDigests(), 0
        for component in self._components:
            for offset in range(0, component.size, self._piece):
                size = min(self._piece, component.size - offset)
                total += size
                if self._stopped.is_set() or total > _LIMIT:
                    return
                address, prefix = component.address + offset, component.tweak_prefix
                stored = self._read(address, size)
                if len(stored) != size:
                    return
                digests = digests.copy()
                digests.update_run(stored, address, prefix, offset)
                plain = cipher.decrypt_run(stored, prefix, offset) if cipher is not None else None
                self._results.append(Unpacked(stored, address, prefix, offset, plain, digests))
