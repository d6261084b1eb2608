"""One s390x CPU on Unicorn Engine over a machine's memory: registers in batches, translation by our own page walk.

Unicorn (PyPI ``unicorn``) is an optional package: it is imported when the first :class:`Emulator` is made.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import struct
from collections.abc import Iterable
from typing import Any, Protocol

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import PAGE_SIZE, Storage
from zseal.engine.errors import EngineError
from zseal.engine.interface import Series
from zseal.engine.unicorn.series import Interrupted, SeriesHook, hook_path
from zseal.errors import MissingDependencyError

PSW_MASK, PSW_ADDRESS = 16, 17
"""Places of the PSW after the sixteen general registers in :attr:`Emulator.registers`."""
_BATCH = 18
_MASK64 = (1 << 64) - 1
_HINT = "pip install 'zseal[fast]'"
_SUPERVISOR_CALL = 2  # EXCP_SVC
_PROBE = (0x0000000180000000, 0x5A5EA1B0075EA1)
_CODE_BEHIND_PSW = 64  # after psw: cc_src, cc_dst, cc_vr, ex_value, __excp_addr, psa; then int_pgm_code


class Access(enum.Enum):
    """The kind of access for which a page is translated."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


@dataclasses.dataclass(frozen=True)
class Interruption:
    """The interruption of an instruction: a program-interruption ``code``, or None for a supervisor call."""

    code: int | None


@dataclasses.dataclass(frozen=True)
class Fault:
    """An access that could not be translated: its page address and the interruption in which it ends."""

    access: Access
    interruption: ProgramInterruption


def emulator_version() -> str:
    """Return Unicorn's version; raises MissingDependencyError if it is not installed."""
    return str(_load()[0].__version__)


def _load() -> Any:  # the package has no types
    try:
        import unicorn
        from unicorn import s390x_const, unicorn_const
        from unicorn.unicorn_py3.unicorn import uclib
    except ImportError as error:
        raise MissingDependencyError("the package 'unicorn' is not installed", hint=_HINT) from error
    except Exception as error:  # the binding raises its own errors if the shared library cannot be loaded
        raise MissingDependencyError(f"the package 'unicorn' cannot be used: {error}", hint=_HINT) from error
    return unicorn, unicorn_const, s390x_const, uclib


class EmulatorClient(Protocol):
    """The questions of a running Emulator. Exceptions end the run and pass through it, except as described below."""

    def translate(self, address: int, access: Access) -> int:
        """Return the absolute address of a page, or raise ProgramInterruption, which ends the run as a fault.

        It is asked once for each page and kind of access, until :meth:`Emulator.forget_translations`.
        """

    def program_check(self) -> bool:
        """Complete an instruction that ended in an interruption (:meth:`Emulator.interruption`).

        The registers are up to date, the PSW points at it; if this returns true, the CPU goes on at the PSW in them.
        """

    def block(self, address: int, size: int) -> bool:
        """Whether a block of code may be executed, asked before its first time; if not, the run ends before it.

        It is not asked for the first block of a run. An instruction that Unicorn does not know is not included.
        """


class Emulator:
    """A CPU over ``memory`` that runs until an event that Unicorn leaves to its client."""

    def __init__(self, memory: Storage) -> None:
        unicorn, self._const, names, library = _load()
        self._error_type = unicorn.UcError
        self._client: EmulatorClient = _Nobody()
        self._raised: BaseException | None = None
        self.fault: Fault | None = None
        self.stopped_block: int | None = None
        # Unicorn uses the machine's own bytes; the view keeps them mapped as long as this object lives.
        self._view = memory.view(0, memory.size)
        self._anchor = (ctypes.c_char * memory.size).from_buffer(self._view)
        uc = self._uc = unicorn.Uc(unicorn.UC_ARCH_S390X, unicorn.UC_MODE_BIG_ENDIAN)
        uc.mem_map_ptr(0, memory.size, self._const.UC_PROT_ALL, ctypes.addressof(self._anchor))
        uc.ctl_set_tlb_mode(self._const.UC_TLB_VIRTUAL)
        uc.ctl_exits_enabled(True)  # none is set, so that no address ends a run
        uc.hook_add(self._const.UC_HOOK_TLB_FILL, self._fill)
        uc.hook_add(self._const.UC_HOOK_EDGE_GENERATED, self._edge)
        self._accesses = {
            self._const.UC_MEM_READ: (Access.READ, self._const.UC_PROT_READ),
            self._const.UC_MEM_WRITE: (Access.WRITE, self._const.UC_PROT_READ | self._const.UC_PROT_WRITE),
            self._const.UC_MEM_FETCH: (Access.FETCH, self._const.UC_PROT_READ | self._const.UC_PROT_EXEC),
        }
        # The binding's own batch calls build their arguments each time, which takes 30 us; these are built once.
        self.registers = (ctypes.c_uint64 * _BATCH)()
        self._access_values = (ctypes.c_uint32 * 16)()
        self._handle = ctypes.c_void_p(uc._uch.value if hasattr(uc._uch, "value") else uc._uch)
        functions = ctypes.CDLL(library._name)  # the same library, without the binding's checks of every argument
        self._read_batch = functions.uc_reg_read_batch
        self._write_batch = functions.uc_reg_write_batch
        general = [names.UC_S390X_REG_R0 + i for i in range(16)] + [names.UC_S390X_REG_PSWM, names.UC_S390X_REG_PC]
        self._all = _Batch(general, self.registers, 8)
        self._psw = _Batch(general[PSW_MASK:], self.registers, 8, first=PSW_MASK)
        self._general = _Batch(general[:PSW_MASK], self.registers, 8)
        self._series = self._hook_interruptions(functions)
        self._control0 = names.UC_S390X_REG_CR0
        self._floating = [names.UC_S390X_REG_F0 + i for i in range(16)]
        self._number = 0
        self._context = uc.context_save()
        self._state = self._context.context.value
        self._code_offset = self._find_code(functions)
        self._access = _Batch([names.UC_S390X_REG_A0 + i for i in range(16)], self._access_values, 4)

    def _hook_interruptions(self, functions: ctypes.CDLL) -> SeriesHook | None:
        """Route interruptions to :meth:`_interrupt`, through the compiled hook if it can be used."""
        path = hook_path()
        if path is not None:
            callback = Interrupted(lambda _uc, number, _data: self._interrupt(self._uc, number, None))
            self._interrupted: object = callback  # must live as long as the hook
            with contextlib.suppress(OSError):
                hook = SeriesHook(
                    path,
                    read=_address(functions.uc_reg_read_batch),
                    write=_address(functions.uc_reg_write_batch),
                    names=self._all.names.value or 0,
                    values=self._all.pointers.value or 0,
                    registers=ctypes.addressof(self.registers),
                    otherwise=_address(callback),
                )
                added = functions.uc_hook_add(
                    self._handle,
                    ctypes.byref(ctypes.c_size_t()),
                    ctypes.c_int(self._const.UC_HOOK_INTR),
                    ctypes.c_void_p(hook.function),
                    ctypes.c_void_p(hook.record),
                    ctypes.c_uint64(1),  # from 1 to 0: everywhere
                    ctypes.c_uint64(0),
                )
                if added == self._const.UC_ERR_OK:
                    return hook
        self._uc.hook_add(self._const.UC_HOOK_INTR, self._interrupt)
        return None

    # --- series of calls ---

    @property
    def answers_series(self) -> bool:
        """Whether :meth:`begin_series` has any effect here."""
        return self._series is not None

    def begin_series(self, series: Series, *, instruction: int, operand: int, address: int, absolute: int) -> None:
        """Answer calls of ``series`` without asking the client, until :meth:`end_series`.

        ``instruction`` is the logical address of the UVC, ``operand`` the number of its register with the control
        block's logical ``address``. ``absolute`` is the address of the block of a call like the others, all in one
        page.
        """
        if self._series is not None:
            if not 0 <= absolute <= self._view.nbytes - series.size:
                raise EngineError(f"a control block at {absolute:#x} is outside the machine's storage")
            self._series.begin(
                series,
                instruction=instruction,
                operand=operand,
                address=address,
                block=ctypes.addressof(self._anchor) + absolute,
            )

    def end_series(self) -> int:
        """Let the answered calls be carried out; returns their number. It has no effect without a series."""
        return 0 if self._series is None else self._series.end()

    # --- registers ---

    def load(self) -> None:
        """Refresh :attr:`registers` (sixteen general registers, PSW mask, PSW address) from the CPU."""
        self._read_batch(self._handle, self._all.names, self._all.pointers, self._all.count)

    def store_psw(self) -> None:
        """Give the CPU the PSW in :attr:`registers`; inside a callback it goes on there."""
        self._write_batch(self._handle, self._psw.names, self._psw.pointers, self._psw.count)

    def store_general(self) -> None:
        """Give the CPU the general registers in :attr:`registers`."""
        self._write_batch(self._handle, self._general.names, self._general.pointers, self._general.count)

    def access_registers(self) -> list[int]:
        """Return the sixteen access registers."""
        self._read_batch(self._handle, self._access.names, self._access.pointers, self._access.count)
        return list(self._access_values)

    def set_access_registers(self, values: Iterable[int]) -> None:
        """Set the sixteen access registers."""
        self._access_values[:] = list(values)
        self._write_batch(self._handle, self._access.names, self._access.pointers, self._access.count)

    # --- execution ---

    def run(self, client: EmulatorClient, *, instructions: int = 0) -> None:
        """Execute from the PSW in :attr:`registers`, which the caller has stored, and refresh them at the end.

        The run ends if ``client`` ends it, at an access that cannot be translated (:attr:`fault` has it; the PSW points
        at the instruction), before a refused block (:attr:`stopped_block`), or after ``instructions`` (0: without end).
        An exception of the client is raised here, with the registers as they were before the instruction for which it
        was called.
        """
        self._begin(client)
        start = self.registers[PSW_ADDRESS]
        try:
            self._uc.emu_start(start, 0, count=instructions)
        except self._error_type as error:
            if self.fault is None and self._raised is None:
                self._raised = EngineError(f"Unicorn cannot go on from guest address {start:#x}: {error}")
        self.load()
        if self.stopped_block is not None:
            self.registers[PSW_ADDRESS] = self.stopped_block
            # The block is already translated: if it were kept, the CPU would execute it unasked the next time.
            self.forget_block(self.stopped_block)
        self._client = _Nobody()
        raised = self._taken()
        if raised is not None:
            raise raised

    def _begin(self, client: EmulatorClient) -> None:
        self.fault = self.stopped_block = self._raised = None
        self._client = client

    def _taken(self) -> BaseException | None:
        raised, self._raised = self._raised, None
        return raised

    def interruption(self) -> Interruption:
        """Return the argument of :meth:`EmulatorClient.program_check`.

        Unicorn shows the code in no register; it is in the state of the CPU, after the PSW (CPUS390XState).
        """
        if self._number == _SUPERVISOR_CALL:
            return Interruption(None)
        self._uc.context_update(self._context)
        return Interruption(ctypes.c_uint32.from_address(self._state + self._code_offset).value)

    def _find_code(self, functions: ctypes.CDLL) -> int:
        """Return where in a saved context the program-interruption code is, found by the PSW before it."""
        functions.uc_context_size.restype = ctypes.c_size_t
        size = functions.uc_context_size(self._handle)
        self.registers[PSW_MASK], self.registers[PSW_ADDRESS] = _PROBE
        self.store_psw()
        self._uc.context_update(self._context)
        at = ctypes.string_at(self._state, size).find(struct.pack("=QQ", *_PROBE))
        if at < 0 or at + _CODE_BEHIND_PSW + 4 > size:
            raise MissingDependencyError("this version of the package 'unicorn' is not supported", hint=_HINT)
        return at + _CODE_BEHIND_PSW

    def forget_block(self, address: int) -> None:
        """Discard the translation of the code at ``address``."""
        self._uc.ctl_remove_cache(address, address + 1)

    def set_control_register(self, number: int, value: int) -> None:
        """Set a control register. Unicorn uses only CR0, for floating point and vectors."""
        self._uc.reg_write(self._control0 + number, value)

    def clear_floating_point(self) -> None:
        """Make all floating-point registers zero."""
        for name in self._floating:
            self._uc.reg_write(name, 0)

    def forget_translations(self) -> None:
        """Empty the TLB: every page is translated again when it is used."""
        self._uc.ctl(self._const.UC_CTL_TLB_FLUSH, self._const.UC_CTL_IO_WRITE)

    def forget_code(self) -> None:
        """Discard translated code, so that stores which Unicorn did not see take effect."""
        self._uc.ctl_flush_tb()

    def close(self) -> None:
        """Release the memory; the object can no longer be used. A second call has no effect."""
        if not hasattr(self, "_uc"):
            return
        # The hooks form a reference cycle of the binding's object and this one; without them it is closed immediately.
        self._uc._callbacks.clear()
        self._interrupted = None
        del self._context, self._uc, self._anchor
        self._view.release()

    # --- callbacks; their exceptions must not pass through C ---

    def _fill(self, _uc: object, address: int, kind: int, result: Any, _data: object = None) -> bool:
        access, permissions = self._accesses[kind]
        try:
            result.paddr = self._client.translate(address, access) & ~(PAGE_SIZE - 1)
            result.perms = permissions
        except ProgramInterruption as interruption:
            self.fault = Fault(access, interruption)
            return False
        except BaseException as error:
            self._raised = error
            return False
        return True

    def _interrupt(self, uc: Any, number: int, _data: object) -> None:
        try:
            self._number = number
            self.load()
            if self._client.program_check():
                return
        except BaseException as error:
            self._raised = error
        uc.emu_stop()

    def _edge(self, uc: Any, current: Any, _previous: Any, _data: object) -> None:
        if self.stopped_block is not None:
            return
        try:
            if self._client.block(current.pc & _MASK64, current.size):
                return
        except BaseException as error:
            self._raised = error
        self.stopped_block = current.pc & _MASK64
        uc.emu_stop()


def _address(function: Any) -> int:
    """Return where ``function``, of a library or a callback, is in this process."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class _Nobody:
    """The client of a CPU that does not run."""

    def translate(self, address: int, access: Access) -> int:
        raise ProgramInterruption(ProgramCode.ADDRESSING, address)

    def program_check(self) -> bool:
        return False

    def block(self, address: int, size: int) -> bool:
        return False


class _Batch:
    """The arguments of a batch call: register names, pointers to the places of their values, their number."""

    def __init__(self, names: list[int], values: Any, size: int, *, first: int = 0) -> None:
        base = ctypes.addressof(values) + first * size
        self._names = (ctypes.c_int * len(names))(*names)
        self._pointers = (ctypes.c_void_p * len(names))(*[base + size * i for i in range(len(names))])
        self.names = ctypes.c_void_p(ctypes.addressof(self._names))
        self.pointers = ctypes.c_void_p(ctypes.addressof(self._pointers))
        self.count = ctypes.c_int(len(names))
