"""Digest and output of page runs, in parallel with the encryption: a thread each, because both release Python
meanwhile.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from zseal.crypto.digests import DigestValues, ImageDigests

CHUNK = 2 << 20
"""Bytes in a run: whole pages, large enough that a hand-over costs nothing, small enough for the processor's cache."""
_DEPTH = 4


class Writable(Protocol):
    """The interface of an output: ``write`` takes bytes and returns how many it took."""

    def write(self, data: memoryview, /) -> int | None:
        """Write."""


class PagePipeline:
    """Lets the caller prepare one run of pages while earlier ones are digested and written.

    ``buffer`` hands out buffers of CHUNK bytes in turn, each only once its former content is no longer in use. An error
    of a thread is raised there, or at the end.
    """

    def __init__(self) -> None:
        self._digests = ImageDigests()
        self._buffers: list[bytearray] = []
        self._pending: list[list[Future[object]]] = [[] for _ in range(_DEPTH)]
        self._turn = -1
        self._digester = ThreadPoolExecutor(1, "zseal-digest")
        self._writer = ThreadPoolExecutor(1, "zseal-write")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._digester.shutdown(cancel_futures=error is not None)
        self._writer.shutdown(cancel_futures=error is not None)
        if error is None:
            self._settle()

    def _settle(self) -> None:
        for futures in self._pending:
            self._wait(futures)

    @staticmethod
    def _wait(futures: list[Future[object]]) -> None:
        while futures:
            futures.pop().result()

    def buffer(self) -> bytearray:
        """Return the next buffer; work submitted until the next call uses it."""
        self._turn = (self._turn + 1) % _DEPTH
        self._wait(self._pending[self._turn])
        if self._turn == len(self._buffers):
            self._buffers.append(bytearray(CHUNK))
        return self._buffers[self._turn]

    def digest(self, stored: bytearray | memoryview, address: int, prefix: int, offset: int) -> None:
        """Add stored pages to the digests, see :meth:`ImageDigests.update_run`."""
        self._submit(self._digester, lambda: self._digests.update_run(stored, address, prefix, offset))

    def write(self, stream: Writable, data: bytearray | memoryview) -> None:
        """Append ``data`` to ``stream``."""
        self._submit(self._writer, lambda: _write_all(stream, data))

    def _submit(self, executor: ThreadPoolExecutor, job: Callable[[], object]) -> None:
        self._pending[self._turn].append(executor.submit(job))

    def values(self) -> DigestValues:
        """Return the digests of everything submitted."""
        self._settle()
        return self._digests.values()


def _write_all(stream: Writable, data: bytearray | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]
    _start_writeback(stream, len(data))


def _start_writeback(stream: Writable, size: int) -> None:
    """Start writing the last ``size`` bytes to disk during our work: otherwise the final fsync would wait for all of
    them.

    Linux starts writing dirty pages when it learns that they are no longer needed.
    """
    if isinstance(stream, io.BufferedRandom) and hasattr(os, "posix_fadvise"):
        end = stream.tell()
        os.posix_fadvise(stream.fileno(), max(0, end - size), size, os.POSIX_FADV_DONTNEED)
