"""The ultravisor as a host sees it: its calls, its CPUs' accesses, and what it may know about guests' pages.

Code in the role of a host (a hypervisor, a pager, a device) gets only this. No method returns a guest's plaintext, a
key, or anything that leads to one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, PageCall
from zseal.ultravisor import access, sie
from zseal.ultravisor.addressspace import AddressSpace
from zseal.ultravisor.calls.configuration import unpack_run
from zseal.ultravisor.calls.storage import frame_of, import_run
from zseal.ultravisor.clearing import clear
from zseal.ultravisor.dispatch import execute
from zseal.ultravisor.pagemap import GUEST_KINDS, HOST_KINDS, PageMap, guest_states
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.securestorage import RUN_SIZE
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.snapshot import page_counts
from zseal.ultravisor.state import HostMemory, MachineState
from zseal.ultravisor.tables import Index, PageState, States

Data = bytes | bytearray | memoryview


class HostOperands:
    """The host's storage as its CPUs see it with DAT off: logical addresses are absolute, secure storage is refused."""

    def __init__(self, machine: MachineState) -> None:
        self._machine = machine

    @property
    def designation(self) -> int | None:
        """None: addresses are absolute."""
        return None

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes; raises ProgramInterruption."""
        access.host_check(self._machine.secure, address, length)
        return self._machine.storage.read(address, length)

    def write(self, address: int, data: Data) -> None:
        """Store ``data``; raises ProgramInterruption."""
        access.host_check(self._machine.secure, address, len(data))
        self._machine.storage.write(address, data)

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access would raise."""
        self.check_storage(address, length)
        access.host_check(self._machine.secure, address, length)

    def absolute(self, address: int, *, write: bool = False) -> int:
        """Return ``address``; raises ProgramInterruption if there is no storage."""
        self.check_storage(address, 1)
        return address

    def check_storage(self, address: int, length: int) -> None:
        """Raise ProgramInterruption unless there is storage for ``length`` bytes at ``address``."""
        self._machine.storage.view(address, length).release()


class HostInterface:
    """The operations of a host on a machine with an ultravisor. Addresses are host absolute, sizes are in bytes.

    Any thread may call any method: calls take effect one after the other; runs of pages let others in after every
    2 MiB. Methods that take a configuration's handle raise UvcRefusal (rc 0020) if it does not exist.
    """

    def __init__(self, machine: MachineState) -> None:
        self._machine = machine
        self._operands = HostOperands(machine)

    @property
    def settings(self) -> Settings:
        """What kind of machine this is, as QUI reports it."""
        return self._machine.settings

    @property
    def initialised(self) -> bool:
        """Whether INIT_UV was done."""
        return self._machine.initialised

    # ---------------------------------------------------------------- calls

    def call(self, address: int, memory: HostMemory | None = None) -> int:
        """Execute a UVC of the host whose control block is at ``address`` of ``memory``; return the condition code.

        Without ``memory`` addresses are absolute. Raises ProgramInterruption, for the caller.
        """
        memory = memory or self._operands
        with self._machine.lock:
            return execute(self._machine, address, memory, host=memory)

    def register_address_space(self, asce: int, space: AddressSpace) -> None:
        """Register what the host's tables under ``asce`` map, for CREATE_SEC_CONF."""
        with self._machine.lock:
            self._machine.spaces[asce] = space

    def forget_address_space(self, asce: int) -> None:
        """Undo :meth:`register_address_space`; configurations created with it keep it."""
        with self._machine.lock:
            self._machine.spaces.pop(asce, None)

    def interrupt(self, cpu: int) -> None:
        """Take the CPU with handle ``cpu`` out of its guest, as any interruption for the host does."""
        with self._machine.whole():
            sie.leave(self._machine, cpu)

    # ---------------------------------------------------------------- runs of pages

    def unpack_run(self, handle: int, gaddr: int, length: int, *, prefix: int, offset: int = 0) -> None:
        """UNPACK_IMG for each page of ``length`` bytes; raises UvcRefusal, ``done`` counting the pages before."""
        for at, size in _pieces(length):
            with self._calls(Command.UNPACK_IMG, at, size):
                unpack_run(self._machine, handle, gaddr + at, size, prefix=prefix, offset=offset + at)

    def import_run(self, handle: int, gaddr: int, length: int) -> None:
        """CONV_TO_SEC_STOR for each page of ``length`` bytes; raises UvcRefusal, ``done`` counting the pages before."""
        for at, size in _pieces(length):
            with self._calls(Command.CONV_TO_SEC_STOR, at, size):
                import_run(self._machine, handle, gaddr + at, size)

    def export_run(self, address: int, length: int) -> None:
        """CONV_FROM_SEC_STOR for each frame of ``length`` bytes; raises UvcRefusal, ``done`` counting those before."""
        for at, size in _pieces(length):
            with self._calls(Command.CONV_FROM_SEC_STOR, at, size):
                frame, count = self._frames(address + at, size)
                self._machine.secure.export_run(frame, count)

    def destroy_run(self, address: int, length: int) -> None:
        """DESTR_SEC_STOR for each frame of ``length`` bytes; raises UvcRefusal, ``done`` counting those before."""
        for at, size in _pieces(length):
            with self._calls(Command.DESTR_SEC_STOR, at, size):
                frame, count = self._frames(address + at, size)
                self._machine.secure.destroy_run(frame, count)

    @contextlib.contextmanager
    def _calls(self, command: Command, offset: int, length: int) -> Iterator[None]:
        """Do one piece of a run, ``offset`` bytes after its beginning, under the lock; count its pages as calls."""
        machine = self._machine
        done = length >> PAGE_SHIFT
        with machine.lock:
            try:
                with machine.whole():
                    yield
            except UvcRefusal as refusal:
                done = refusal.done + 1
                refusal.done += offset >> PAGE_SHIFT
                machine.refused[command] += 1
                raise
            finally:
                machine.calls[command] += done

    def _frames(self, address: int, length: int) -> tuple[int, int]:
        if length % PAGE_SIZE:
            raise UvcRefusal(PageCall.OUTSIDE)
        frame_of(self._machine, address + length - PAGE_SIZE)
        return frame_of(self._machine, address), length >> PAGE_SHIFT

    # ---------------------------------------------------------------- accesses

    def check(self, address: int, length: int) -> None:
        """Raise the interruption of a host that touches ``length`` bytes at ``address``: ProgramInterruption 5, 3d."""
        with self._machine.lock:
            self._operands.check(address, length, write=True)

    def read(self, address: int, length: int) -> bytes:
        """Return what the host reads; raises ProgramInterruption 3d for secure and donated storage."""
        with self._machine.lock:
            return self._operands.read(address, length)

    def write(self, address: int, data: Data) -> None:
        """Store for the host, all or nothing; raises ProgramInterruption 3d for secure and donated storage."""
        with self._machine.lock:
            self._operands.write(address, data)

    def discard(self, address: int, length: int) -> None:
        """Discard ``length`` bytes at ``address``: they become zeros, without memory if storage supports that.

        Raises ProgramInterruption 3d, with nothing changed, for secure and donated storage.
        """
        with self._machine.lock:
            self._operands.check(address, length, write=True)
            clear(self._machine.storage, address, length)

    def view(self, address: int, length: int, *, live: bool = False) -> bytes:
        """Return what a host reads that makes storage accessible first, as Linux does.

        Shared pages come as they are, private ones encrypted. That exports them, unless ``live`` is set: the guest then
        keeps running on its plaintext, and the host gets what an export would give. Raises ProgramInterruption 3d for
        donated storage.
        """
        return b"".join(self.view_pieces(address, length, live=live))

    def view_pieces(self, address: int, length: int, *, live: bool = False) -> Iterator[bytes]:
        """Yield what :meth:`view` returns in pieces of 2 MiB or less."""
        for at, size in _pieces(length):
            with self._machine.whole():
                piece = b"".join(access.host_view(self._machine.secure, address + at, size, live=live))
            yield piece

    # ---------------------------------------------------------------- knowledge about pages

    def first_unshared(self, handle: int, address: int, length: int) -> int | None:
        """Return the first of ``length`` bytes at guest address ``address`` outside shared pages; None: all are shared.

        Bytes outside the guest's storage count as not shared.
        """
        with self._machine.lock:
            pages = self._machine.configuration(handle).guest.pages
            first, last = address >> PAGE_SHIFT, (address + max(length, 1) - 1) >> PAGE_SHIFT
            if not 0 <= first < pages.count:
                return address
            state = pages.state[first : last + 1]
            private = np.flatnonzero((state != PageState.SHARED) & (state != PageState.SHARED_OUT))
            page = first + (int(private[0]) if private.size else state.size)
            return None if page > last else max(address, page << PAGE_SHIFT)

    def is_shared(self, handle: int, address: int, length: int) -> bool:
        """Whether all ``length`` bytes at guest address ``address`` are in pages that the guest shares."""
        return self.first_unshared(handle, address, length) is None

    def page_states(self, handle: int) -> States:
        """Return the guest's PageStates, one byte a page: a view to read only, which changes as they do."""
        with self._machine.lock:
            view = self._machine.configuration(handle).guest.pages.state.view()
        view.setflags(write=False)
        return view

    def private_pages(self, handle: int) -> Index:
        """Return the numbers of the guest's private pages, ascending: those that an export encrypts."""
        with self._machine.lock:
            return np.flatnonzero(self._machine.configuration(handle).guest.pages.state == PageState.PRIVATE)

    def page_counts(self, handle: int) -> dict[str, int]:
        """Return how many of the guest's pages are in each state."""
        with self._machine.lock:
            return page_counts(self._machine, self._machine.configuration(handle))

    def guest_map(self, handle: int) -> PageMap:
        """Return a picture of the guest's pages."""
        with self._machine.lock:
            guest = self._machine.configuration(handle).guest
            frames = self._machine.secure.frames.state
            states = guest_states(guest.pages.state, guest.pages.frame, frames)
            return PageMap(f"guest {guest.serial}", states, GUEST_KINDS)

    def frame_map(self, address: int = 0, length: int | None = None) -> PageMap:
        """Return a picture of host frames: all, or those of ``length`` bytes from ``address`` on."""
        first = address >> PAGE_SHIFT
        with self._machine.lock:
            states = self._machine.secure.frames.state
            last = states.size if length is None else first + -(-length // PAGE_SIZE)
            return PageMap("host storage", states[first:last].copy(), HOST_KINDS, first)


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    """Cut ``length`` bytes into (offset, size) of pieces that are handled together."""
    return ((at, min(RUN_SIZE, length - at)) for at in range(0, length, RUN_SIZE))
