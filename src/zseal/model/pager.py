"""Demand paging of a protected guest: pages leave for a file under memory pressure and come back when touched.

The pager sees ciphertext only. If it or anyone else changes the file's pages, that shows when the guest wants them
back: the ultravisor refuses a page that is not the one that left last.
"""

from __future__ import annotations

import collections
from typing import BinaryIO

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.errors import ZsealError
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import FrameUvcb, GuestPageUvcb
from zseal.hypervisor.uvcalls import CallFailed
from zseal.model.host import HostError, ModelConfiguration, ModelHost


class GuestKilledError(ZsealError):
    """The guest cannot continue, as on a real host, where its VMM would get SIGSEGV."""


class Pager:
    """Keeps at most ``limit`` of a guest's pages in frames; the others are in ``file``, at their page number times
    4096.
    """

    def __init__(self, host: ModelHost, configuration: ModelConfiguration, file: BinaryIO, *, limit: int) -> None:
        self._host = host
        self._configuration = configuration
        self._file = file
        self._limit = limit
        # the one that came in first is first
        self._resident: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._paged_out: set[int] = set()
        self._pinned: set[int] = set()
        self.pages_in = 0
        """Pages read back from the file so far."""
        self.pages_out = 0
        """Pages written to the file so far."""
        self._resident.update(configuration.space.mapped())

    @property
    def handle(self) -> int:
        """The handle of the guest's configuration."""
        return self._configuration.handle

    def frame(self, page: int) -> int:
        """Return the frame of ``page`` for an access of the host itself; if necessary, bring the page back from the
        file.
        """
        if self._configuration.space.resolve(page) < 0:
            self._page_in(page)
        return self._configuration.space.resolve(page)

    def pin(self, page: int) -> int | None:
        """Pin ``page`` if the guest shares it, so that it stays shared and in its frame; return the frame, or None."""
        frame = self.frame(page)
        try:
            self._host.call(FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame << PAGE_SHIFT))
        except CallFailed:
            return None
        self._pinned.add(page)
        return frame

    def unpin(self, page: int) -> None:
        """Undo :meth:`pin`; raises CallFailed if the page is not pinned."""
        gaddr = page << PAGE_SHIFT
        self._host.call(GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=self.handle, gaddr=gaddr))
        self._pinned.discard(page)

    def is_shared(self, page: int) -> bool:
        """Whether the guest shares ``page``."""
        return self._host.uv.is_shared(self.handle, page << PAGE_SHIFT, PAGE_SIZE)

    def page_out(self, page: int) -> None:
        """Make ``page`` accessible, write the result to the file, and free its frame.

        Raises HostError for a pinned page, CallFailed if the ultravisor refuses the export.
        """
        if page in self._pinned:
            raise HostError(f"guest page {page << PAGE_SHIFT:#x} is pinned and cannot be paged out")
        frame = self._resident[page]
        self._host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame << PAGE_SHIFT))
        self._file.seek(page * PAGE_SIZE)
        self._file.write(self._host.uv.read(frame << PAGE_SHIFT, PAGE_SIZE))
        self._paged_out.add(page)
        del self._resident[page]
        self._configuration.space.unmap(page)
        self._host.frames.give_back(frame)
        self.pages_out += 1

    def _page_in(self, page: int) -> None:
        while len(self._resident) >= self._limit:
            victim = next((each for each in self._resident if each not in self._pinned), None)
            if victim is None:
                raise HostError("every page in memory is pinned", hint="raise the limit of resident pages")
            self.page_out(victim)
        frame = self._host.map_page(self._configuration, page)
        self._resident[page] = frame
        if page in self._paged_out:
            self._file.seek(page * PAGE_SIZE)
            self._host.uv.write(frame << PAGE_SHIFT, self._file.read(PAGE_SIZE).ljust(PAGE_SIZE, b"\0"))
            self._paged_out.discard(page)
            self.pages_in += 1

    def fault(self, interruption: ProgramInterruption) -> None:
        """Do what Linux does for a program interruption that the host gets for a guest's access.

        Raises GuestKilledError if the page cannot be brought back, and the interruption itself if it is not for the
        pager.
        """
        if interruption.address is None:
            raise interruption
        page = interruption.address >> PAGE_SHIFT
        if interruption.code not in (ProgramCode.PAGE_TRANSLATION, ProgramCode.NON_SECURE_STORAGE_ACCESS):
            raise interruption
        self.secure(page)

    def secure(self, page: int) -> None:
        """Import ``page``, from the file if it is there; raises GuestKilledError if the ultravisor refuses it."""
        if self._configuration.space.resolve(page) < 0:
            self._page_in(page)
        gaddr = page << PAGE_SHIFT
        try:
            self._host.call(GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=self.handle, gaddr=gaddr))
        except CallFailed as failed:
            raise GuestKilledError(f"guest page {gaddr:#x} cannot be brought back: {failed}") from failed
