"""The pages of an image on their way into a guest: digested as they are stored, then decrypted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from zseal.arch.storage import PAGE_SHIFT
from zseal.crypto.digests import ImageDigests
from zseal.crypto.xts import XtsPages

_WORTH_A_THREAD = 64  # pages


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """The result for one run of ``stored`` pages (at most 2 MiB); see ``Unpacking.unpack`` for the other fields."""

    stored: bytes = dataclasses.field(repr=False)
    gaddr: int
    prefix: int
    offset: int
    plain: bytearray | None = dataclasses.field(repr=False)
    """The decrypted pages; None if they are taken as they are."""
    digests: ImageDigests
    """Of all pages up to the last of these."""

    def answers(self, data: memoryview, gaddr: int, prefix: int, offset: int) -> bool:
        """Whether this is the result for exactly these pages."""
        if (self.gaddr, self.prefix, self.offset, len(self.stored)) != (gaddr, prefix, offset, len(data)):
            return False
        return np.array_equal(np.frombuffer(self.stored, np.uint64), np.frombuffer(data, np.uint64))


class Unpacking:
    """Takes the pages of one image in the order of the host's calls. Without ``cipher`` they are taken as they are.

    ``ahead`` has results for the first runs, if those come as expected, so that they are not computed twice.
    ``digested`` are the digests of all pages unpacked so far; the caller replaces them once it has the pages.
    """

    def __init__(self, cipher: XtsPages | None, ahead: Iterable[Unpacked] = ()) -> None:
        self._cipher = cipher
        self._ahead = deque(ahead)
        self.digested = ImageDigests()

    def unpack(self, data: memoryview, gaddr: int, prefix: int, offset: int) -> tuple[bytearray | None, ImageDigests]:
        """Return successive pages decrypted (None if they are taken as they are), and the digests with them added.

        ``data`` (of whole pages) is stored at guest absolute ``gaddr``, ``prefix`` and the byte ``offset`` make
        up the tweak of the first page.
        """
        found = self._ahead.popleft() if self._ahead else None
        if found is not None and found.answers(data, gaddr, prefix, offset):
            return found.plain, found.digests
        self._ahead.clear()
        digests = self.digested.copy()
        with _beside(functools.partial(digests.update_run, data, gaddr, prefix, offset), len(data) >> PAGE_SHIFT):
            return self._cipher.decrypt_run(data, prefix, offset) if self._cipher is not None else None, digests

    @property
    def begun(self) -> bool:
        """Whether any page was unpacked."""
        return self.digested.count > 0

    def wipe(self) -> None:
        """Forget the key, after which nothing can be unpacked."""
        self._ahead.clear()
        if self._cipher is not None:
            self._cipher.wipe()


@contextlib.contextmanager
def _beside(job: Callable[[], None], pages: int) -> Iterator[None]:
    """Do ``job`` in parallel with the block; before it if ``pages`` are few."""
    if pages < _WORTH_A_THREAD:
        job()
        yield
        return
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(job)
        yield
        done.result()
