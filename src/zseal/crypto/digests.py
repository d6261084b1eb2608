"""The three running SHA-512 digests over the pages of an image's components."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.xts import page_tweaks


@dataclasses.dataclass(frozen=True)
class DigestValues:
    """Finished digests (64 bytes each) and the number of pages, as the SE header holds them."""

    pld: bytes
    """Page list digest: of the pages as stored."""
    ald: bytes
    """Address list digest: of the absolute addresses, u64 each."""
    tld: bytes
    """Tweak list digest: of the 16-byte tweaks."""
    nep: int
    """Number of pages."""


class ImageDigests:
    """Digests over all pages of all components, in the order of their addresses."""

    def __init__(self) -> None:
        self._pages = hashlib.sha512()
        self._addresses = hashlib.sha512()
        self._tweaks = hashlib.sha512()
        self._count = 0

    def update_run(self, stored: bytes | bytearray | memoryview, address: int, prefix: int, offset: int) -> None:
        """Add successive pages of one component.

        ``stored`` holds the bytes of the pages as they are in the file, ``address`` is the absolute address of the
        first, ``offset`` its byte offset in the component with the tweak prefix ``prefix``. Raises ValueError for a
        broken page.
        """
        pages, rest = divmod(len(stored), PAGE_SIZE)
        if rest:
            raise ValueError(f"{len(stored)} bytes are not whole pages")
        self._pages.update(stored)
        addresses = np.arange(address, address + len(stored), PAGE_SIZE, dtype=np.uint64)
        self._addresses.update(addresses.astype(">u8").tobytes())
        self._tweaks.update(page_tweaks(prefix, offset, pages))
        self._count += pages

    @property
    def count(self) -> int:
        """The number of pages added so far."""
        return self._count

    def copy(self) -> ImageDigests:
        """Return a copy of the digests so far, to which other pages can be added."""
        twin = ImageDigests()
        twin._pages, twin._addresses, twin._tweaks = self._pages.copy(), self._addresses.copy(), self._tweaks.copy()
        twin._count = self._count
        return twin

    def values(self) -> DigestValues:
        """Return the digests of everything added so far."""
        return DigestValues(self._pages.digest(), self._addresses.digest(), self._tweaks.digest(), self._count)
