"""A guest in Python that lives in secure pages: everything that it reads, writes and shares goes through the
ultravisor.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, describe
from zseal.formats.uvcb import ShareUvcb, UvcbHeader
from zseal.messages.guest_kernel import SECURITY_PANIC
from zseal.model.image import ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.model.pager import GuestKilledError, Pager
from zseal.ultravisor.configuration import SecureCpu
from zseal.ultravisor.sie import PrefixIntercept

_BUSY = 2
_LOOPS = 64
_BLOCK_PAGE = 0x1000  # where the guest builds its control blocks
_DEFAULT_IMAGE = ((0x10000, b"model kernel"), (0x20000, b"model bootloader"))
ResultT = TypeVar("ResultT")


class ModelGuest:
    """A protected guest of the host of ``machine``, started from ``image`` (by default a small one made for this host).

    At most ``limit`` pages are in frames at a time (by default all), the others in ``file`` (by default a buffer).
    """

    def __init__(
        self,
        machine: ModelMachine,
        *,
        memory: int = MIB,
        cpus: int = 1,
        image: ModelImage | None = None,
        limit: int | None = None,
        file: BinaryIO | None = None,
    ) -> None:
        self.machine = machine
        self.host = machine.host
        self._firmware = machine.ultravisor.firmware
        self.image = image or seal_image(_DEFAULT_IMAGE, [machine.public_key])
        self.configuration = self.host.create(memory, cpus)
        self.host.protect(self.configuration, self.image)
        self.pager = Pager(self.host, self.configuration, file or io.BytesIO(), limit=limit or memory // PAGE_SIZE)

    @property
    def handle(self) -> int:
        """The configuration's handle."""
        return self.configuration.handle

    def start(self, cpu: int = 0) -> Psw:
        """Let a CPU run; return the PSW with which it begins."""
        return self._run(lambda: self._enter(self.configuration.cpus[cpu].handle)).registers.psw

    def _enter(self, cpu: int) -> SecureCpu:
        for _ in range(_LOOPS):
            try:
                return self._firmware.enter(self.handle, cpu, asce=self.configuration.asce)
            except PrefixIntercept as intercept:
                for address in intercept.addresses:
                    self.pager.secure(address >> PAGE_SHIFT)
        raise GuestKilledError("the guest is never entered: its host does not keep its prefix pages")

    def _run(self, action: Callable[[], ResultT]) -> ResultT:
        """Do ``action``, for which the host brings in missing pages. Raises GuestKilledError."""
        for _ in range(_LOOPS):
            try:
                return action()
            except ProgramInterruption as interruption:
                self.pager.fault(interruption)
        raise GuestKilledError("the guest makes no progress: its host does not keep the pages it needs")

    def read(self, address: int, length: int) -> bytes:
        """Return what the guest finds at ``address``, one page at a time like a CPU."""
        return b"".join(
            self._run(lambda at=at, size=size: self._firmware.guest_read(self.handle, at, size))  # type: ignore[misc]  # defaults bind the loop's values
            for at, size in _pages(address, length)
        )

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` at ``address``, a page at a time."""
        for at, size in _pages(address, len(data)):
            part = data[at - address : at - address + size]
            self._run(lambda at=at, part=part: self._firmware.guest_write(self.handle, at, part))  # type: ignore[misc]  # likewise

    def issue(self, block: UvcbHeader) -> tuple[int, UvcbHeader]:
        """Issue a guest call; return condition code and answered header."""
        self.write(_BLOCK_PAGE, block.pack())
        cc = self._run(lambda: self._firmware.guest_call(self.handle, _BLOCK_PAGE))
        return cc, UvcbHeader.unpack(self.read(_BLOCK_PAGE, UvcbHeader.SIZE))

    def share(self, address: int, length: int = PAGE_SIZE) -> None:
        """Share whole pages, one call each; raises GuestKilledError if one is refused, as Linux panics."""
        self._each_page(Command.SET_SHARED_ACCESS, address, length)

    def unshare(self, address: int, length: int = PAGE_SIZE) -> None:
        """Unshare whole pages; raises GuestKilledError if one is refused or stays pinned."""
        self._each_page(Command.REMOVE_SHARED_ACCESS, address, length)

    def _each_page(self, command: Command, address: int, length: int) -> None:
        for at in range(address, address + length, PAGE_SIZE):
            for _ in range(_LOOPS):
                cc, answer = self.issue(ShareUvcb.call(command, paddr=at))
                if cc != _BUSY:
                    break
            if cc:
                reason = "stays pinned" if cc == _BUSY else describe(command, answer.rc, answer.rrc)
                raise GuestKilledError(f"{SECURITY_PANIC.text}: page {at:#x}: {reason}")

    def reset(self) -> Psw:
        """Ask for a reset (DIAGNOSE 308 subcode 0), let the host carry it out, and start again."""
        self._firmware.request_reset(self.handle)
        self.host.reset(self.configuration)
        return self.start()

    def stop(self) -> None:
        """End the guest: destroy everything and free its frames."""
        self.host.destroy(self.configuration)


def _pages(address: int, length: int) -> list[tuple[int, int]]:
    """Cut an access into pieces within one page each."""
    pieces, end = [], address + length
    while address < end:
        size = min(end - address, PAGE_SIZE - address % PAGE_SIZE)
        pieces.append((address, size))
        address += size
    return pieces
