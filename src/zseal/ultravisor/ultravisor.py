"""The software ultravisor of one machine: what hosts, guests, devices and engines talk to."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE, OperandMemory, Storage
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.ipib import IpibComponent
from zseal.formats.uv_codes import Command, Issuer, PageCall
from zseal.formats.uvcb import QuiUvcb
from zseal.ultravisor import access, sie
from zseal.ultravisor.addressspace import AddressSpace
from zseal.ultravisor.calls.configuration import unpack_run
from zseal.ultravisor.calls.machine import query_information
from zseal.ultravisor.calls.storage import PageCalls, frame_of, import_run, page_calls
from zseal.ultravisor.calls.table import installed_rows
from zseal.ultravisor.clearing import clear
from zseal.ultravisor.configuration import Configuration, ConfigurationState, SecureCpu
from zseal.ultravisor.dispatch import execute
from zseal.ultravisor.events import EventLog, Level
from zseal.ultravisor.faults import FaultPlan
from zseal.ultravisor.pagemap import GUEST_KINDS, HOST_KINDS, PageMap, guest_states
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.securestorage import CHUNK
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.snapshot import Snapshot, page_counts, take_snapshot
from zseal.ultravisor.state import HostCpus, HostMemory, MachineState
from zseal.ultravisor.tables import FrameState, Index, PageState, States, blank_states, runs
from zseal.ultravisor.unpack_ahead import UnpackAhead

Data = bytes | bytearray | memoryview
_PIECE = CHUNK << PAGE_SHIFT


class HostOperands:
    """The host's storage as its CPUs see it with DAT off: logical addresses are absolute, secure storage is refused."""

    def __init__(self, ultravisor: Ultravisor) -> None:
        self._ultravisor = ultravisor

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes; raises ProgramInterruption."""
        return self._ultravisor.host_read(address, length)

    def write(self, address: int, data: Data) -> None:
        """Store ``data``; raises ProgramInterruption."""
        self._ultravisor.host_write(address, data)

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access would raise."""
        self._ultravisor.host_check(address, length)

    def absolute(self, address: int, *, write: bool = False) -> int:
        """Return ``address``; raises ProgramInterruption where there is no storage."""
        self.check_storage(address, 1)
        return address

    def check_storage(self, address: int, length: int) -> None:
        """Raise ProgramInterruption where there is no storage for ``length`` bytes at ``address``."""
        self._ultravisor.storage.view(address, length).release()


class GuestOperands:
    """A guest's storage as its CPUs see it with DAT off and prefix 0."""

    def __init__(self, ultravisor: Ultravisor, handle: int) -> None:
        self._ultravisor, self._handle = ultravisor, handle

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes; raises ProgramInterruption."""
        return self._ultravisor.guest_read(self._handle, address, length)

    def write(self, address: int, data: Data) -> None:
        """Store ``data``; raises ProgramInterruption."""
        self._ultravisor.guest_write(self._handle, address, data)

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access would raise."""
        self._ultravisor.guest_read(self._handle, address, length)


class Ultravisor:
    """One machine's firmware over its host absolute ``storage``, with the private host ``keys``.

    Every method may be called from any thread: calls take effect one after the other; runs of pages let others in
    after every 2 MiB. Guest addresses are guest absolute. Methods that take a configuration's handle raise UvcRefusal
    (rc 0020) for one that does not exist. ``blank_states`` makes the place of a new configuration's page states, for
    who looks at them without asking: zeros, a byte for each of so many pages.
    """

    def __init__(
        self,
        storage: Storage,
        keys: MachineKeys,
        *,
        settings: Settings | None = None,
        log: EventLog | None = None,
        blank_states: Callable[[int], States] = blank_states,
    ) -> None:
        self._lock = threading.RLock()
        self._machine = MachineState(storage, keys, settings or Settings(), log or EventLog())
        self._machine.blank_states = blank_states
        self._machine.host_rows = installed_rows(Issuer.HOST, self._machine.settings)
        self._machine.guest_rows = installed_rows(Issuer.GUEST, self._machine.settings)

    @property
    def storage(self) -> Storage:
        """The machine's storage, unprotected: for engines, which stand where the hardware stands."""
        return self._machine.storage

    @property
    def settings(self) -> Settings:
        """What kind of machine this is."""
        return self._machine.settings

    @property
    def log(self) -> EventLog:
        """What happened so far."""
        return self._machine.log

    @property
    def host(self) -> HostCpus:
        """What is known of the host's own CPUs; to be kept up to date by whoever models them."""
        return self._machine.host

    @property
    def faults(self) -> FaultPlan:
        """Answers to inject."""
        return self._machine.faults

    @property
    def initialised(self) -> bool:
        """Whether INIT_UV was done."""
        return self._machine.initialised

    # ---------------------------------------------------------------- calls

    def host_call(self, address: int, memory: HostMemory | None = None) -> int:
        """Execute a UVC of the host whose control block is at ``address`` of ``memory``; return the condition code.

        Without ``memory`` addresses are absolute. Raises ProgramInterruption, for the caller.
        """
        memory = memory or HostOperands(self)
        with self._lock:
            return execute(self._machine, address, memory, host=memory)

    def guest_call(self, handle: int, address: int, memory: OperandMemory | None = None) -> int:
        """Execute a UVC of a guest, named by the handle of its configuration or of the CPU that issues it.

        Without ``memory`` addresses are guest absolute. Returns the condition code; 2 means that the guest issues the
        call again. Raises ProgramInterruption: 3e for the host, which imports the page and lets the guest try again,
        anything else for the guest.
        """
        with self._lock:
            configuration = self._guest(handle)
            memory = memory or GuestOperands(self, configuration.handle)
            return execute(self._machine, address, memory, caller=configuration)

    def page_calls(self, handle: int, command: int) -> PageCalls | None:
        """Return how the guest's ``command`` is executed for many pages at once.

        None for one that does not share or unshare pages, and where each call has to come to :meth:`guest_call`.
        """
        with self._lock:
            if command not in self._machine.guest_rows:
                return None
            calls = page_calls(self._machine, self._guest(handle), Command(command))
        if calls is None:
            return None
        carry_out = calls.carry_out

        def locked(pages: Index) -> None:
            with self._lock:
                carry_out(pages)

        return dataclasses.replace(calls, carry_out=locked)

    def query(self, issuer: Issuer = Issuer.HOST) -> QuiUvcb:
        """Return what QUI tells ``issuer``."""
        with self._lock:
            return query_information(self._machine, issuer)

    def register_address_space(self, asce: int, space: AddressSpace) -> None:
        """Make known what the host's tables under ``asce`` map, for CREATE_SEC_CONF to find."""
        with self._lock:
            self._machine.spaces[asce] = space

    def forget_address_space(self, asce: int) -> None:
        """Undo :meth:`register_address_space`; configurations created with it keep it."""
        with self._lock:
            self._machine.spaces.pop(asce, None)

    def machine_reset(self) -> None:
        """Load-normal reset of the whole machine: all secure and donated storage is cleared, everything forgotten."""
        with self._lock:
            machine = self._machine
            table = machine.secure.frames
            hidden = np.flatnonzero((table.state == FrameState.SECURE) | (table.state == FrameState.DONATED))
            for _, frame, length in runs(hidden, table.count):
                clear(machine.storage, frame << PAGE_SHIFT, length << PAGE_SHIFT)
            for configuration in machine.configurations.values():
                configuration.wipe()
                machine.secure.detach(configuration.guest)
            machine.forget()
            machine.log.add(Level.INFO, "machine reset")

    # ---------------------------------------------------------------- running guests

    def _guest(self, handle: int) -> Configuration:
        """The configuration that ``handle``, its own or that of one of its CPUs, stands for; it must be running."""
        cpu = self._machine.cpus.get(handle)
        handle = cpu.configuration.handle if cpu else handle
        configuration = self._machine.configuration(handle)
        if configuration.state is not ConfigurationState.SECURE:
            raise sie.ValidityIntercept(sie.Validity.STATE)
        return configuration

    def enter(self, configuration: int, cpu: int) -> SecureCpu:
        """Let the CPU with handle ``cpu`` run; raises ValidityIntercept."""
        with self._lock:
            return sie.enter(self._machine, configuration, cpu)

    def leave(self, cpu: int) -> None:
        """The CPU with handle ``cpu`` does not run any more."""
        with self._lock:
            sie.leave(self._machine, cpu)

    def request_reset(self, handle: int) -> None:
        """The guest asked for a reset (DIAGNOSE 308 subcode 0 or 1)."""
        with self._lock:
            sie.request_reset(self._machine, handle)

    def configuration(self, handle: int) -> Configuration:
        """Return the ultravisor's record of a configuration, for code that stands on the firmware's side."""
        with self._lock:
            return self._machine.configuration(handle)

    # ---------------------------------------------------------------- runs of pages

    def expect_image(
        self, header: bytes, components: Sequence[IpibComponent], read: Callable[[int, int], bytes]
    ) -> None:
        """Begin to work on an image that will probably be unpacked next; no answer of any call depends on it.

        ``components`` in the order in which they will come. ``read`` returns so many stored bytes from an address on;
        it is called in a thread of its own and may raise OSError. One image at a time: the one before is forgotten.
        """
        self.expect_no_image()
        ahead = UnpackAhead(
            header, components, read, keys=self._machine.keys, settings=self._machine.settings, piece=_PIECE
        )
        with self._lock:
            self._machine.unpack_ahead = ahead

    def expect_no_image(self) -> None:
        """Stop what :meth:`expect_image` began."""
        with self._lock:
            ahead, self._machine.unpack_ahead = self._machine.unpack_ahead, None
        if ahead is not None:
            ahead.stop()

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
        """Do one piece of a run, ``offset`` bytes behind its beginning, under the lock; count its pages as calls."""
        with self._lock:
            done = length >> PAGE_SHIFT
            try:
                yield
            except UvcRefusal as refusal:
                done = refusal.done + 1
                refusal.done += offset >> PAGE_SHIFT
                self._machine.refused[command] += 1
                raise
            finally:
                self._machine.calls[command] += done

    def _frames(self, address: int, length: int) -> tuple[int, int]:
        if length % PAGE_SIZE:
            raise UvcRefusal(PageCall.OUTSIDE)
        frame_of(self._machine, address + length - PAGE_SIZE)
        return frame_of(self._machine, address), length >> PAGE_SHIFT

    def adopt_all(self, handle: int) -> int:
        """Make every page that was never used private, as zeros; return their number.

        For engines in which a guest's first touch of a page can't be seen. Storage with a ``clear`` method of its own
        is cleared through it, so that nothing is allocated.
        """
        with self._lock:
            configuration = self._guest(handle)
            return self._machine.secure.adopt(configuration.guest, 0, configuration.guest.pages.count)

    # ---------------------------------------------------------------- accesses

    def host_check(self, address: int, length: int) -> None:
        """Raise what the host gets that touches ``length`` bytes at absolute ``address``: ProgramInterruption 5, 3d."""
        with self._lock:
            self.storage.view(address, length).release()
            access.host_check(self._machine.secure, address, length)

    def host_read(self, address: int, length: int) -> bytes:
        """Return what the host reads; raises ProgramInterruption 3d for secure and donated storage."""
        with self._lock:
            access.host_check(self._machine.secure, address, length)
            return self.storage.read(address, length)

    def host_write(self, address: int, data: Data) -> None:
        """Store for the host, all or nothing; raises ProgramInterruption 3d for secure and donated storage."""
        with self._lock:
            access.host_check(self._machine.secure, address, len(data))
            self.storage.write(address, data)

    def host_view(self, address: int, length: int, *, live: bool = False) -> bytes:
        """Return what a host reads that makes storage accessible first, as Linux does.

        Shared pages come as they are, private ones encrypted; they are exported by that, unless ``live`` is set: then
        the guest keeps running on its plaintext and the host gets what an export would have given. Raises
        ProgramInterruption 3d for donated storage.
        """
        return b"".join(self.host_view_pieces(address, length, live=live))

    def host_view_pieces(self, address: int, length: int, *, live: bool = False) -> Iterator[bytes]:
        """Yield what :meth:`host_view` returns in pieces of 2 MiB or less."""
        for at, size in _pieces(length):
            with self._lock:
                piece = b"".join(access.host_view(self._machine.secure, address + at, size, live=live))
            yield piece

    def peek_export(self, address: int) -> bytes:
        """Return the 4096 bytes that an export of the frame at ``address`` would give, leaving the page where it is."""
        return self.host_view(address, PAGE_SIZE, live=True)

    def guest_read(self, handle: int, address: int, length: int) -> bytes:
        """Return what the guest reads; raises ProgramInterruption 5 for the guest, 11, 3c, 3e and 3f for its host."""
        with self._lock:
            return access.guest_read(self._machine.secure, self._guest(handle).guest, address, length)

    def guest_write(self, handle: int, address: int, data: Data) -> None:
        """Store for the guest, all or nothing; raises as :meth:`guest_read`."""
        with self._lock:
            access.guest_write(self._machine.secure, self._guest(handle).guest, address, data)

    # ---------------------------------------------------------------- looking at it

    def first_unshared(self, handle: int, address: int, length: int) -> int | None:
        """Return the first of ``length`` bytes at guest address ``address`` outside shared pages; None: all are shared.

        What lies outside the guest's storage counts as not shared.
        """
        with self._lock:
            guest = self._machine.configuration(handle).guest
            first, last = address >> PAGE_SHIFT, (address + max(length, 1) - 1) >> PAGE_SHIFT
            if not 0 <= first < guest.pages.count:
                return address
            state = guest.pages.state[first : last + 1]
            private = np.flatnonzero((state != PageState.SHARED) & (state != PageState.SHARED_OUT))
            page = first + (int(private[0]) if private.size else state.size)
            return None if page > last else max(address, page << PAGE_SHIFT)

    def is_shared(self, handle: int, address: int, length: int) -> bool:
        """Whether all ``length`` bytes at guest address ``address`` lie in pages the guest shares."""
        return self.first_unshared(handle, address, length) is None

    def page_counts(self, handle: int) -> dict[str, int]:
        """Return how many of the guest's pages are in each state."""
        with self._lock:
            return page_counts(self._machine, self._machine.configuration(handle))

    def guest_map(self, handle: int) -> PageMap:
        """Return a picture of the guest's pages."""
        with self._lock:
            guest = self._machine.configuration(handle).guest
            frames = self._machine.secure.frames.state
            states = guest_states(guest.pages.state, guest.pages.frame, frames)
            return PageMap(f"guest {guest.serial}", states, GUEST_KINDS)

    def host_map(self, address: int = 0, length: int | None = None) -> PageMap:
        """Return a picture of host frames: all, or those of ``length`` bytes from ``address`` on."""
        first = address >> PAGE_SHIFT
        with self._lock:
            states = self._machine.secure.frames.state
            last = states.size if length is None else first + -(-length // PAGE_SIZE)
            return PageMap("host storage", states[first:last].copy(), HOST_KINDS, first)

    def snapshot(self) -> Snapshot:
        """Return the present state of everything that may be seen."""
        with self._lock:
            return take_snapshot(self._machine)


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    """Cut ``length`` bytes into (offset, size) of as much as is handled at once."""
    return ((at, min(_PIECE, length - at)) for at in range(0, length, _PIECE))
