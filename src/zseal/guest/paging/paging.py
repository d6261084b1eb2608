"""Moves pages of a running guest to a file and back: export, a file of ciphertext, import with verification.

On stock QEMU the CPUs access guest RAM without asking, so a page that is out cannot be brought back when it is touched.
The guest is therefore paused from the first page that leaves until all are back. The calls to the ultravisor, and its
refusals, are the same as on a host that pages on demand.

Work on many pages comes as *steps*: iterators over (done, total) pages that do a MiB at each step, so that their caller
stays responsive. An iterator that is closed early undoes (page-out) or keeps (page-in) its work so far.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT
from zseal.engine.errors import EngineError
from zseal.errors import FormatError, InputError, VerificationError
from zseal.files import atomic_output
from zseal.formats.uv_codes import Command, PageCall, describe
from zseal.guest.observation import PagedOut
from zseal.guest.outcome import Outcome, Result
from zseal.guest.paging.page_file import (
    HEADER_SIZE,
    PageFileHeader,
    Pages,
    open_page_file,
    pack_records,
    read_pages,
)
from zseal.hypervisor.host_side import HostSide
from zseal.logs import logger
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.tables import runs

_LOG = logger(__name__)

Steps: TypeAlias = Iterator[tuple[int, int]]
_CHUNK = 256
"""Pages in a step: 1 MiB."""


class PageIntegrityError(VerificationError):
    """The ultravisor refused the page at ``address``: it is not the one that left the guest last."""

    def __init__(self, address: int, reason: str, path: Path) -> None:
        super().__init__(f"integrity check failed for page {address:#x} from {path}: {reason}")
        self.address = address


class Running(Protocol):
    """The run to which the pages belong."""

    @property
    def paused(self) -> bool:
        """Whether the guest is paused."""

    def pause(self) -> None:
        """Stop the CPUs; raises EngineError if the guest has ended."""

    def unpause(self) -> None:
        """Let the CPUs run, even with pages out; it has no effect if the guest has ended."""

    def end(self, result: Result) -> None:
        """End the guest."""


@dataclasses.dataclass
class _Absent:
    """The pages of one file, in the order of its records; the first ``back`` of them are in the guest again."""

    path: Path
    identifier: bytes
    pages: Pages
    back: int = 0


class Paging:
    """Moves the pages of the guest of ``side``; for the thread of the guest's loop."""

    def __init__(self, side: HostSide, run: Running) -> None:
        self._side = side
        self._run = run
        self._absent: list[_Absent] = []
        self._busy = False
        self.pages_out = 0
        """Pages that left so far."""
        self.pages_in = 0
        """Pages that came back so far."""

    @property
    def absent(self) -> list[PagedOut]:
        """The pages that are out now."""
        return [PagedOut(each.path, len(each.pages) - each.back) for each in self._absent]

    @property
    def busy(self) -> bool:
        """Whether pages are being moved."""
        return self._busy

    def forget(self) -> None:
        """Forget all files: the guest's pages are gone."""
        self._absent.clear()

    # --- out ---

    def page_out(self, path: Path, count: int | None = None, *, start: int = 0, overwrite: bool = False) -> Steps:
        """Pause the guest, export ``count`` private pages (None: all) from address ``start`` on and move them to
        ``path``.

        The file gets mode 0600 and appears whole or not at all; if it cannot be written, every page stays and the guest
        goes on. Raises InputError if there is nothing to page out, OutputError for the file.
        """
        if count is not None and count < 1:
            raise InputError("page-out needs a page count of at least 1")
        if any(each.path == path for each in self._absent):
            raise InputError(
                "this file already contains pages that are out", where=str(path), hint="choose another name"
            )
        with self._working():
            was_paused = self._run.paused
            exported: list[tuple[int, int]] = []
            try:
                with atomic_output(path, overwrite=overwrite) as stream:
                    self._run.pause()
                    pages = self._private(start)[:count]
                    if not pages.size:
                        raise InputError(f"the guest has no private pages from {start:#x} on")
                    header = PageFileHeader.new(len(pages))
                    stream.write(header.pack())
                    for done, first, length in runs(pages, _CHUNK):
                        yield done, len(pages)
                        exported.append((first, length))
                        self._export(stream, first, length)
            except BaseException:
                self._take_back(exported)
                if not was_paused:
                    self._run.unpause()
                raise
            for first, length in exported:
                self._side.uv.discard(first << PAGE_SHIFT, length << PAGE_SHIFT)
            self._absent.append(_Absent(path, header.identifier, pages))
            self.pages_out += len(pages)
            _LOG.info("moved %d pages out to %s", len(pages), path)
            yield len(pages), len(pages)

    def _private(self, start: int) -> Pages:
        """Return the indexes of all private pages from address ``start`` on."""
        pages = self._side.uv.private_pages(self._handle())
        return pages[pages << PAGE_SHIFT >= start]

    def _handle(self) -> int:
        handle = self._side.configuration
        if handle is None or not self._side.protected:
            raise InputError("the guest is not protected, so there are no private pages to export")
        return handle

    def _export(self, stream: BinaryIO, first: int, length: int) -> None:
        uv, address, size = self._side.uv, first << PAGE_SHIFT, length << PAGE_SHIFT
        try:
            uv.export_run(address, size)
            data = uv.read(address, size)
        except UvcRefusal as refusal:
            reason = describe(Command.CONV_FROM_SEC_STOR, refusal.rc, refusal.rrc)
            page = (first + refusal.done) << PAGE_SHIFT
            raise EngineError(f"page {page:#x} cannot be exported: {reason}") from refusal
        stream.write(pack_records(np.arange(first, first + length), data))

    def _take_back(self, exported: list[tuple[int, int]]) -> None:
        """Import the exported pages again: the ciphertext is still in their frames."""
        handle = self._side.configuration
        if handle is not None:
            for first, length in exported:
                self._side.uv.import_run(handle, first << PAGE_SHIFT, length << PAGE_SHIFT)

    # --- in ---

    def page_in(self, path: Path) -> Steps:
        """Bring back the pages in ``path``, which may be a copy of their file; the guest stays paused.

        Raises InputError if no pages wait there, and PageIntegrityError, with the guest ended, if a page was changed.
        """
        with self._working():
            _LOG.info("bringing back the pages in %s", path)
            yield from self._bring_back(self._waiting(path), path)

    def page_in_all(self) -> Steps:
        """Bring back every page that is out; raises as :meth:`page_in`."""
        with self._working():
            total, done = sum(each.pages for each in self.absent), 0
            while self._absent:
                each = self._absent[0]
                _LOG.info("bringing back the pages in %s", each.path)
                before, size = done - each.back, len(each.pages)
                for back, _ in self._bring_back(each, each.path):
                    yield before + back, total
                done = before + size

    def _waiting(self, path: Path) -> _Absent:
        """Return the pages of the file at ``path``, found by its name or as the original of a copy."""
        for each in self._absent:
            if each.path == path:
                return each
        with open_page_file(path) as stream:
            try:
                header = PageFileHeader.unpack(stream.read(HEADER_SIZE))
            except FormatError as error:
                error.where = str(path)
                raise
        for each in self._absent:
            if each.identifier == header.identifier:
                return each
        raise InputError("no pages of this guest wait in this file", where=str(path))

    def _bring_back(self, absent: _Absent, path: Path) -> Steps:
        total = len(absent.pages)
        with open_page_file(path) as stream:
            while absent.back < total:
                yield absent.back, total
                pages = absent.pages[absent.back : absent.back + _CHUNK]
                try:
                    data = read_pages(stream, absent.back, len(pages))
                except OSError as error:
                    raise InputError(f"cannot read the page file: {error.strerror}", where=str(path)) from error
                self._import(pages, data, path)
                absent.back += len(pages)
                self.pages_in += len(pages)
        self._absent.remove(absent)
        yield total, total

    def _import(self, pages: Pages, data: bytes, path: Path) -> None:
        uv, handle, view = self._side.uv, self._handle(), memoryview(data)
        for at, first, length in runs(pages, _CHUNK):
            uv.write(first << PAGE_SHIFT, view[at << PAGE_SHIFT : (at + length) << PAGE_SHIFT])
            try:
                uv.import_run(handle, first << PAGE_SHIFT, length << PAGE_SHIFT)
            except UvcRefusal as refusal:
                reason = describe(Command.CONV_TO_SEC_STOR, refusal.rc, refusal.rrc)
                page = (first + refusal.done) << PAGE_SHIFT
                if refusal.answer is not PageCall.INTEGRITY:
                    raise EngineError(f"page {page:#x} cannot be brought back: {reason}") from refusal
                failure = PageIntegrityError(page, reason, path)
                self._run.end(Result(Outcome.INTEGRITY, failure.message))
                raise failure from refusal

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        if self._busy:
            raise EngineError("pages of this guest are already being moved", hint="wait until that is done")
        self._busy = True
        try:
            yield
        except ProgramInterruption as interruption:
            raise EngineError(f"guest memory cannot be reached: {interruption}") from interruption
        finally:
            self._busy = False


def finish(steps: Steps) -> None:
    """Do all of ``steps``."""
    deque(steps, maxlen=0)
