"""The hypervisor of one guest: it protects the guest as KVM and QEMU do, with the real ultravisor calls.

The order of steps is that of Linux (arch/s390/kvm/pv.c) and QEMU (hw/s390x/pv.c, ipl.c): initialise the ultravisor
once, donate storage, create the configuration and all CPUs, set the parameters, unpack every component, verify, let CPU
0 load. After a failure the configuration is destroyed and its pages with it, so that nothing decrypted remains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from zseal.arch.dat import ASCE_PRIVATE_SPACE
from zseal.arch.diag308 import ReturnCode
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.sclp import PROTECTED_CPU_LIMIT
from zseal.arch.sie import SCA_SIZE
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE, OperandMemory
from zseal.crypto.keyexchange import MachineKeys
from zseal.engine.errors import EngineError
from zseal.engine.interface import Series
from zseal.engine.memory import SharedMemory
from zseal.errors import UsageError
from zseal.formats.ipib import Ipib, IpibComponent
from zseal.formats.uv_codes import Command, CpuState, Generic, describe
from zseal.formats.uvcb import (
    HEADER_SIZE,
    RC_OFFSET,
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    GuestPageUvcb,
    InitUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UvcbHeader,
)
from zseal.hypervisor.diag308 import Refused
from zseal.hypervisor.host_side import HostSide
from zseal.hypervisor.storage import HostStorage
from zseal.hypervisor.uvcalls import CallFailed, CallingHost
from zseal.ultravisor.addressspace import OffsetSpace
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.sie import PrefixIntercept
from zseal.ultravisor.tables import States, blank_states
from zseal.ultravisor.ultravisor import Ultravisor

_SIE_SIZE = PAGE_SIZE
_SIDA_SIZE = PAGE_SIZE
_HEADER_SIZE = 2 * PAGE_SIZE
_SCRATCH_SIZE = PAGE_SIZE
_IMPORT_LIMIT = 16  # more pages than one control block and its operands can occupy
_REGION_THIRD_TABLE = 0x4 | 0x3  # designation type and table length of an ASCE


class Step(enum.IntEnum):
    """The KVM_PV_* command that failed, as the answer of DIAGNOSE 0x308 subcode 10 names it (QEMU 10.1 and newer)."""

    ENABLE = 0
    SET_SEC_PARMS = 2
    UNPACK = 3
    VERIFY = 4


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a guest was not protected: the ``step``, the ultravisor's ``command``, its answer and what that means."""

    step: Step
    command: Command
    rc: int
    rrc: int

    @property
    def packed(self) -> int:
        """The 64-bit answer of DIAGNOSE 0x308 subcode 10: step, rrc, rc and 0x0a02, 16 bits each."""
        return self.step << 48 | self.rrc << 32 | self.rc << 16 | ReturnCode.INVALID_FOR_PV

    @property
    def message(self) -> str:
        """The refusal on one line, for people."""
        return describe(self.command, self.rc, self.rrc)


class StartListener(Protocol):
    """Receives the results of attempts to protect a guest, in the thread of the call that attempts it."""

    def protected(self) -> None:
        """The guest runs protected from now on."""

    def refused(self, refusal: Refusal) -> None:
        """The guest was not protected, and nothing decrypted is left."""


class _Deaf:
    """A listener that ignores everything."""

    def protected(self) -> None:
        pass

    def refused(self, refusal: Refusal) -> None:
        pass


class _Layout:
    """The layout of the hypervisor's own memory; all addresses are absolute, all sizes whole pages."""

    def __init__(self, settings: Settings, guest_bytes: int, cpus: int) -> None:
        self._next = 0
        self.base = self._take(settings.uv_base_storage, MIB)
        self.conf_base = self._take(settings.conf_base_storage, MIB)
        self.conf_virtual = self._take(settings.variable_storage(guest_bytes), PAGE_SIZE)
        self.sca = self._take(SCA_SIZE, SCA_SIZE)
        self.cpu_storage = [self._take(settings.cpu_storage, PAGE_SIZE) for _ in range(cpus)]
        self.sie = [self._take(_SIE_SIZE, PAGE_SIZE) for _ in range(cpus)]
        self.sida = [self._take(_SIDA_SIZE, PAGE_SIZE) for _ in range(cpus)]
        self.header = self._take(_HEADER_SIZE, PAGE_SIZE)
        self.scratch = self._take(_SCRATCH_SIZE, PAGE_SIZE)
        self.size = self._next

    def _take(self, size: int, alignment: int) -> int:
        start = -(-self._next // alignment) * alignment
        self._next = start + -(-size // PAGE_SIZE) * PAGE_SIZE
        return start


class Vmm(CallingHost):
    """Protects the guest whose RAM is ``ram`` and whose CPUs are ``cpus`` on a machine with ``keys``.

    ``blank_states`` allocates the guest's page states, see ``Ultravisor``. ``listener`` receives the result of each
    attempt to protect it; ``refusal`` is why the last one failed, and ``seconds`` how long its steps took. Raises
    UsageError for more CPUs than QEMU lets a protected guest have.
    """

    def __init__(
        self,
        ram: SharedMemory,
        cpus: int,
        keys: MachineKeys,
        *,
        settings: Settings | None = None,
        blank_states: Callable[[int], States] = blank_states,
        listener: StartListener | None = None,
    ) -> None:
        if cpus > PROTECTED_CPU_LIMIT:
            raise UsageError(f"a protected guest can have 1 to {PROTECTED_CPU_LIMIT} CPUs, not {cpus}")
        settings = settings or Settings()
        self._ram = ram
        self._cpus = cpus
        layout = _Layout(settings, ram.size, cpus)
        self.storage = HostStorage(ram, layout.size)
        self.ultravisor = Ultravisor(self.storage, keys, settings=settings, blank_states=blank_states)
        super().__init__(self.ultravisor.host, self.storage.base + layout.scratch)
        self.host_side = HostSide(self.uv, ram.size)
        self._listener = listener or _Deaf()
        self._layout = layout
        self._asce = self.storage.base | ASCE_PRIVATE_SPACE | _REGION_THIRD_TABLE
        self._settings = settings
        self._initialised = False
        self._cpu_handles: list[int] = []
        self.refusal: Refusal | None = None
        self.seconds: dict[str, float] = {}

    def close(self) -> None:
        """Forget the guest and return the hypervisor's memory; the guest's own memory goes with its engine."""
        self.ultravisor.firmware.expect_no_image()
        self._end_configuration()
        self.storage.close()

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected."""
        return self.host_side.protected

    @property
    def configuration(self) -> int | None:
        """The handle of the guest's configuration; None while there is none."""
        return self.host_side.configuration

    # --- host calls ---

    def _address(self, offset: int) -> int:
        return self.storage.base + offset

    def _set_state(self, cpu: int, state: CpuState) -> None:
        self.call(CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=self._cpu_handles[cpu], state=state))

    # --- protecting ---

    def expect_image(
        self, header: bytes, components: Sequence[IpibComponent], read: Callable[[int, int], bytes]
    ) -> None:
        """Let the ultravisor begin with the image that the machine will load when it starts.

        ``header`` is its SE header, ``read`` returns ``length`` bytes of it from an absolute address on.
        """
        self.ultravisor.firmware.expect_image(header, components, read)

    def protect(self, block: Ipib) -> Psw:
        """Protect the guest as its parameter block says; raises Refused, with nothing decrypted left."""
        self.refusal = None
        step = Step.ENABLE
        try:
            with self._timed("create"):
                self._create()
            step = Step.SET_SEC_PARMS
            with self._timed("set-parameters"):
                self._set_parameters(block)
            step = Step.UNPACK
            with self._timed("unpack"):
                self._unpack(block)
            step = Step.VERIFY
            with self._timed("verify"):
                self.call_handle(Command.VERIFY_IMG, self._handle())
            with self._timed("adopt"):
                # Everything else in guest RAM is from before: the guest must find zeros there.
                self.ultravisor.firmware.adopt_all(self._handle())
                self._set_state(0, CpuState.OPERATING_LOAD)
        except CallFailed as failed:
            self.refusal = Refusal(step, failed.command, failed.rc, failed.rrc)
            self.destroy()
            self._listener.refused(self.refusal)
            raise Refused(self.refusal.packed) from None
        self.host_side.protected = True
        entry = self._enter(0)
        self._listener.protected()
        return entry

    def _enter(self, cpu: int) -> Psw:
        """Enter a CPU once, for the PSW that it loads; engines keep its registers from then on."""
        handle, firmware = self._cpu_handles[cpu], self.ultravisor.firmware
        while True:
            try:
                psw = firmware.enter(self._handle(), handle, asce=self._asce).registers.psw
            except PrefixIntercept as intercept:
                for address in intercept.addresses:
                    self.import_page(address)
            else:
                firmware.leave(handle)
                return psw

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the time spent in a block to the entry ``name`` of ``seconds``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _handle(self) -> int:
        if self.configuration is None:
            raise EngineError("there is no secure configuration")
        return self.configuration

    def _create(self) -> None:
        layout, settings = self._layout, self._settings
        if not self._initialised:
            self.call(
                InitUvcb.call(
                    Command.INIT_UV,
                    stor_origin=self._address(layout.base),
                    stor_len=settings.uv_base_storage,
                )
            )
            self._initialised = True
        self.uv.register_address_space(self._asce, OffsetSpace(0, self._ram.size >> PAGE_SHIFT))
        handle = self.host_side.configuration = self.create_configuration(
            CreateConfUvcb.call(
                Command.CREATE_SEC_CONF,
                conf_base_stor_origin=self._address(layout.conf_base),
                conf_stor_origin_virt=self._address(layout.conf_virtual),
                guest_stor_len=self._ram.size,
                guest_sca=self._address(layout.sca),
                guest_asce=self._asce,
            )
        )
        for number in range(self._cpus):
            cpu = self.call(
                CreateCpuUvcb.call(
                    Command.CREATE_SEC_CPU,
                    guest_handle=handle,
                    stor_origin=self._address(layout.cpu_storage[number]),
                    num=number,
                    state_origin=self._address(layout.sie[number]),
                )
            )
            self._cpu_handles.append(cpu.cpu_handle)

    def _set_parameters(self, block: Ipib) -> None:
        address, size = block.header.header_address, block.header.header_size
        # QEMU hands KVM a copy of the header from guest memory.
        if size > _HEADER_SIZE or address + size > self._ram.size:
            raise CallFailed(Command.SET_SEC_CONF_PARAMS, 0x0103, 0)
        own = self._address(self._layout.header)
        self.storage.write(own, self._ram.read(address, size))
        self.call(
            SetParametersUvcb.call(
                Command.SET_SEC_CONF_PARAMS,
                guest_handle=self._handle(),
                sec_header_origin_virt=own,
                sec_header_len=size,
            )
        )

    def _unpack(self, block: Ipib) -> None:
        for component in block.components:
            try:
                self.uv.unpack_run(self._handle(), component.address, component.size, prefix=component.tweak_prefix)
            except UvcRefusal as refusal:
                raise CallFailed(Command.UNPACK_IMG, refusal.rc, refusal.rrc) from None

    # --- life of a protected guest ---

    def guest_call(self, cpu: int, memory: OperandMemory, address: int) -> int:
        """Issue a UVC of the guest; returns the condition code, raises ProgramInterruption for the guest."""
        for _ in range(_IMPORT_LIMIT):
            try:
                return self.ultravisor.firmware.guest_call(self._cpu_handles[cpu], address, memory)
            except ProgramInterruption as error:
                if error.code is not ProgramCode.NON_SECURE_STORAGE_ACCESS or error.address is None:
                    raise
                self.import_page(error.address)
        raise EngineError("the guest's pages leave secure storage faster than they come back")

    def series(self, cpu: int, memory: OperandMemory, address: int) -> Series | None:
        """Return what guest calls like the completed one at ``address`` have in common; None if nothing is."""
        header = UvcbHeader.unpack(memory.read(address, HEADER_SIZE))
        answer = Generic.EXECUTED
        if (header.length, header.rc) != (ShareUvcb.SIZE, answer.rc):
            return None
        calls = self.ultravisor.firmware.page_calls(self._cpu_handles[cpu], header.command)
        if calls is None:
            return None
        return Series(
            size=ShareUvcb.SIZE,
            field=ShareUvcb.FIELDS["paddr"].offset,
            answer_offset=RC_OFFSET,
            answer=answer.rc.to_bytes(2, "big") + bytes(2),
            condition_code=0,
            ready=calls.ready,
            complete=calls.carry_out,
        )

    def import_page(self, address: int) -> None:
        """Bring the guest's page at ``address`` back into secure storage; raises CallFailed if it was changed."""
        page = address & ~(PAGE_SIZE - 1)
        self.call(GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=self._handle(), gaddr=page))

    def touch(self, address: int) -> None:
        """Make the page at ``address`` secure, which a CPU of the guest is about to use; no effect while unprotected.

        This is the hypervisor's reaction to a non-secure-storage-access exception. Raises CallFailed if the page was
        changed.
        """
        if not self.protected:
            return
        for _ in range(_IMPORT_LIMIT):
            try:
                self.ultravisor.firmware.guest_read(self._handle(), address, 1)
            except ProgramInterruption as error:
                if error.code is not ProgramCode.NON_SECURE_STORAGE_ACCESS:
                    raise
                self.import_page(address)
            else:
                return
        raise EngineError("the guest's pages leave secure storage faster than they come back")

    def page_counts(self) -> dict[str, int]:
        """Return how many of the guest's pages are in each state; empty if it is not protected."""
        return self.uv.page_counts(self.configuration) if self.configuration is not None else {}

    def reset_guest(self, *, cpu: int, clear: bool) -> None:
        """Carry out a reset that the guest asked for (DIAGNOSE 0x308 subcodes 0 and 1): it stays protected."""
        self.ultravisor.firmware.request_reset(self._handle())
        for number in range(self._cpus):
            self._set_state(number, CpuState.STOPPED)
        self.call_handle(Command.SET_UNSHARE_ALL, self._handle())
        self.call_handle(Command.PREPARE_RESET, self._handle())
        for number, handle in enumerate(self._cpu_handles):
            if clear:
                command = Command.CPU_RESET_CLEAR
            else:
                command = Command.CPU_RESET_INITIAL if number == cpu else Command.CPU_RESET
            self.call_handle(command, handle)
        self._set_state(cpu, CpuState.OPERATING_LOAD)
        self._enter(cpu)

    def destroy(self) -> None:
        """End protection: destroy CPUs, configuration and every page that was secure, the content of which is then
        gone.
        """
        if self._end_configuration():
            self.uv.destroy_run(0, self._ram.size)

    def _end_configuration(self) -> bool:
        """Destroy CPUs and configuration; returns whether there was one."""
        self.host_side.protected = False
        handle, self.host_side.configuration = self.configuration, None
        cpus = self._cpu_handles.copy()
        self._cpu_handles.clear()
        if handle is None:
            return False
        for cpu in cpus:
            self.call_handle(Command.DESTROY_SEC_CPU, cpu)
        self.call_handle(Command.DESTROY_SEC_CONF, handle)
        return True
