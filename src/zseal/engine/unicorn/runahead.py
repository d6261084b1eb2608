"""Run-ahead: execute the next instructions of a stopped CPU on the same memory, as long as that is exact.

A guest shares its bounce buffers page by page, one ultravisor call each. Stopping the machine for every one costs far
more than the call. So while the machine is stopped at one, an Emulator executes the following instructions on the same
memory; when they come to the next call it is handled on the spot. The stretch ends before anything whose effect is not
confined to general and access registers, the condition code and storage, and the CPU gets the registers back.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Iterator

import numpy as np

from zseal.arch.dat import CpuMemory, Translations, fetch_absolute
from zseal.arch.instructions import Pattern, classify
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import BA, EA, PROBLEM_STATE, WAIT, AddressSpace, Psw
from zseal.arch.storage import PAGE_SIZE, Storage
from zseal.engine.errors import EngineError
from zseal.engine.interface import Cpu, Series, Trap, TrapKind
from zseal.engine.unicorn.emulator import PSW_ADDRESS, PSW_MASK, Access, Emulator
from zseal.engine.unicorn.runahead_code import Verdict, first_block, judge

STRETCH_SECONDS = 0.02
"""The limit of one stretch: its thread answers no requests meanwhile, and other CPUs wait."""
CHUNK_INSTRUCTIONS = 1 << 16
"""A stretch goes on only if it reaches a call within this many instructions: the CPU executes other code faster."""
WRITTEN_LIMIT = 64
"""The most pages to which a stretch stores: a loop of calls needs its stack, and the engine checks each page."""
CODE_PAGES_LIMIT = 64
PATIENCE_LIMIT = 8
"""A site where run-ahead gains nothing is tried again after twice as many stops each time, at most 256."""
_PER = 1 << 62
_PAGE_MASK = ~(PAGE_SIZE - 1)
_MASK64 = (1 << 64) - 1


class End(enum.Enum):
    """Why a stretch ended."""

    NOT_TRIED = "not tried"
    CODE = "an instruction that run-ahead must not execute"
    ACCESS = "a page that cannot be accessed"
    CALL = "a call that ends the stretch"
    TIME = "the time for one stretch"


@dataclasses.dataclass(frozen=True)
class Stretch:
    """The result of a run-ahead: the ultravisor calls handled, and the logical addresses of the pages to which it
    stored.

    An engine that keeps translated code of its own must learn which bytes ``changed`` (absolute address and length),
    because it did not see those stores.
    """

    calls: int
    end: End
    written: tuple[int, ...] = ()
    changed: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass
class _Seen:
    """The knowledge about code that the emulator has translated."""

    pages: dict[int, bytes] = dataclasses.field(default_factory=dict)
    """Absolute page -> its bytes when it was first executed."""
    access_registers: bool = False
    """Whether any of it uses access registers."""


class _AheadCpu:
    """The CPU as the handler of a call sees it (``zseal.engine.interface.Cpu``), while its copy runs ahead.

    The copy runs in the problem state, though the CPU does not: a second guard against privileged instructions.
    """

    def __init__(self, emulator: Emulator, cpu: Cpu) -> None:
        self._emulator = emulator
        self._registers = emulator.registers
        self._cpu = cpu
        self.number = cpu.number
        self.prefix = cpu.prefix
        self.translations: Translations = {}
        self._controls: dict[int, int] = {}
        self.general_changed = False
        self._access: list[int] | None = None

    @property
    def psw(self) -> Psw:
        return Psw(self._registers[PSW_MASK] & ~PROBLEM_STATE, self._registers[PSW_ADDRESS])

    @psw.setter
    def psw(self, value: Psw) -> None:
        self._registers[PSW_MASK] = value.mask | PROBLEM_STATE
        self._registers[PSW_ADDRESS] = value.address

    def gr(self, number: int) -> int:
        value: int = self._registers[number]
        return value

    def set_gr(self, number: int, value: int) -> None:
        self._registers[number] = value
        self.general_changed = True

    def cr(self, number: int) -> int:
        value = self._controls.get(number)
        if value is None:
            value = self._controls[number] = self._cpu.cr(number)
        return value

    def set_cr(self, number: int, value: int) -> None:
        raise EngineError(f"control register {number} cannot be set to {value:#x} while a CPU runs ahead")

    def ar(self, number: int) -> int:
        self.fetch_access_registers()
        return self._emulator.access_registers()[number]

    def set_ar(self, number: int, value: int) -> None:
        self.fetch_access_registers()
        values = self._emulator.access_registers()
        values[number] = value
        self._emulator.set_access_registers(values)

    def fetch_access_registers(self) -> None:
        """Give the copy the access registers before the first instruction that needs them, because they cost time."""
        if self._access is None:
            self._access = [self._cpu.ar(number) for number in range(16)]
            self._emulator.set_access_registers(self._access)

    def hand_back(self, general: list[int]) -> None:
        """Set the registers of the CPU that have changed; ``general`` are their former values."""
        registers = self._registers
        for number, before in enumerate(general):
            if registers[number] != before:
                self._cpu.set_gr(number, registers[number])
        if self._access is not None:
            for number, (before, after) in enumerate(zip(self._access, self._emulator.access_registers(), strict=True)):
                if after != before:
                    self._cpu.set_ar(number, after)
        self._cpu.psw = self.psw

    def step(self) -> None:
        raise EngineError("a CPU that runs ahead cannot be stepped")


def _no_series(_trap: Trap) -> None:
    """No calls are alike."""


class RunAhead:
    """Runs CPUs of one machine ahead on its ``memory``; make one for each machine and close it before the memory.

    Raises MissingDependencyError if Unicorn is not installed.
    """

    def __init__(self, memory: Storage) -> None:
        self._memory = memory
        self._emulator = Emulator(memory)
        self._seen = _Seen()
        self._failures: dict[int, int] = {}
        self._patience: dict[int, int] = {}

    def close(self) -> None:
        """Release the memory; a second call has no effect."""
        self._emulator.close()

    def run(
        self, cpu: Cpu, handle: Callable[[Trap], bool], series: Callable[[Trap], Series | None] = _no_series
    ) -> Stretch:
        """Execute from the PSW of ``cpu``, whose machine is stopped, and set all registers as at the end of the
        stretch.

        ``handle`` completes an ultravisor call as ``EngineListener.trap`` does and returns whether to go on. If it
        raises ProgramInterruption, the stretch ends before that call, so that the CPU itself reaches it; any other
        exception is raised here, after the CPU got its registers back. ``series`` is called like
        ``EngineListener.series``, so that calls in a loop do not need ``handle`` each. A start at a place that gained
        nothing the last times returns immediately.
        """
        psw = cpu.psw
        if not _possible(psw) or self._impatient(psw.address):
            return Stretch(0, End.NOT_TRIED)
        general = [cpu.gr(number) for number in range(16)]
        emulator = self._emulator
        emulator.registers[:] = [*general, psw.mask | PROBLEM_STATE, psw.address]
        emulator.store_general()
        emulator.store_psw()
        emulator.forget_translations()
        self._forget_changed_code()
        ahead = _AheadCpu(emulator, cpu)
        if self._seen.access_registers:
            ahead.fetch_access_registers()
        client = _Client(self._memory, emulator, ahead, handle, series, self._seen)
        try:
            if client.may_begin(psw.address):
                self._execute(client)
        finally:
            try:
                client.end_series()
            finally:
                ahead.hand_back(general)
        self._learn(psw.address, gained=client.calls > 0)
        return Stretch(client.calls, client.end, tuple(sorted(client.written)), tuple(client.changed()))

    def _execute(self, client: _Client) -> None:
        emulator = self._emulator
        calls = -1
        while client.end is End.TIME and client.calls > calls and not client.late:
            calls = client.calls
            emulator.run(client, instructions=CHUNK_INSTRUCTIONS)
            client.end_series()
            if emulator.stopped_block is not None:
                client.end = End.CODE
            elif emulator.fault is not None:
                client.end = End.ACCESS

    def _impatient(self, address: int) -> bool:
        wait = self._patience.get(address, 0)
        if wait:
            self._patience[address] = wait - 1
        return wait > 0

    def _learn(self, address: int, *, gained: bool) -> None:
        if gained:
            self._failures.pop(address, None)
            return
        failures = min(self._failures.get(address, 0) + 1, PATIENCE_LIMIT)
        self._failures[address] = failures
        self._patience[address] = (1 << failures) - 1

    def _forget_changed_code(self) -> None:
        """Discard translated code that the guest patched or overwrote since it ran here."""
        pages = self._seen.pages
        if len(pages) > CODE_PAGES_LIMIT or any(
            self._memory.read(page, PAGE_SIZE) != code for page, code in pages.items()
        ):
            self._seen = _Seen()
            self._emulator.forget_code()


def _possible(psw: Psw) -> bool:
    if psw.mask & (_PER | WAIT) or psw.problem_state or psw.mask & (EA | BA) != EA | BA:
        return False
    # Elsewhere instructions and operands are in different spaces, which one virtual TLB cannot distinguish.
    return not psw.dat or psw.address_space in (AddressSpace.PRIMARY, AddressSpace.HOME)


class _Client:
    """One stretch: translates for the emulator, judges its code and handles the calls that it reaches."""

    def __init__(
        self,
        memory: Storage,
        emulator: Emulator,
        cpu: _AheadCpu,
        handle: Callable[[Trap], bool],
        series: Callable[[Trap], Series | None],
        seen: _Seen,
    ) -> None:
        self._memory = memory
        self._emulator = emulator
        self._cpu = cpu
        self._handle = handle
        self._series = series
        self._last: tuple[int, int] | None = None  # the call before: where it is, and its control block
        self._seen = seen
        self._storage = CpuMemory(cpu, memory, space=None)
        self._fetched: set[int] = set()
        self._traps: dict[int, Trap] = {}
        self.written: set[int] = set()
        self._stored: dict[int, bytes] = {}  # the same pages by absolute address, with their former content
        self.calls = 0
        self.end = End.TIME
        self.late = False
        self._deadline = time.monotonic() + STRETCH_SECONDS

    def may_begin(self, address: int) -> bool:
        """Judge the emulator's first block."""
        self.end = End.CODE
        try:
            size = first_block(self._code, address)
            # The last instruction may be the next call, which is handled, not executed.
            if classify(self._storage.read(address + size - 4, 4)) is Pattern.UVC:
                size -= 4
            allowed = self._judge(address, size)
        except ProgramInterruption:
            self.end = End.ACCESS
            return False
        if allowed:
            self.end = End.TIME
        return allowed

    def _note_store(self, page: int) -> None:
        if page not in self._stored:
            self._stored[page] = self._memory.read(page, PAGE_SIZE)

    def changed(self) -> Iterator[tuple[int, int]]:
        """Yield for each changed page the place of the first byte that differs, and the number of bytes."""
        for page, before in self._stored.items():
            differ = np.frombuffer(before, np.uint8) != np.frombuffer(self._memory.read(page, PAGE_SIZE), np.uint8)
            places = np.flatnonzero(differ)
            if len(places):
                yield page + int(places[0]), int(places[-1] - places[0]) + 1

    def block(self, address: int, size: int) -> bool:
        try:
            return self._judge(address, size)
        except ProgramInterruption:
            return False

    def _judge(self, address: int, size: int) -> bool:
        verdict = judge(self._code, address, size)
        if verdict is Verdict.ACCESS_REGISTERS:
            self._seen.access_registers = True
            self._cpu.fetch_access_registers()
        return verdict is not Verdict.NO

    def _code(self, address: int, length: int) -> bytes:
        """Read code on which the verdict on a block depends: it is kept for comparison, like executed code."""
        out = b""
        while length > 0:
            size = min(length, PAGE_SIZE - address % PAGE_SIZE)
            absolute = fetch_absolute(self._cpu, self._memory, address)
            self._keep(absolute & _PAGE_MASK)
            out += self._memory.read(absolute, size)
            address, length = address + size & _MASK64, length - size
        return out

    def _keep(self, page: int) -> None:
        if page not in self._seen.pages:
            self._seen.pages[page] = self._memory.read(page, PAGE_SIZE)

    def translate(self, address: int, access: Access) -> int:
        page = address & _PAGE_MASK
        if access is Access.FETCH:
            absolute = fetch_absolute(self._cpu, self._memory, page)
            if absolute in self._stored:
                raise ProgramInterruption(ProgramCode.PROTECTION, page)  # code that was just made: see below
            self._fetched.add(page)
            self._keep(absolute)
            return absolute
        # With low-address protection on, whole pages 0 and 1 are refused to stores, not just their protected parts.
        absolute = self._storage.absolute(page, write=access is Access.WRITE)
        if access is Access.WRITE:
            if absolute in self._seen.pages or len(self.written) == WRITTEN_LIMIT:
                # Code that changes while it runs is left to the CPU.
                raise ProgramInterruption(ProgramCode.PROTECTION, page)
            self.written.add(page)
            self._note_store(absolute)
        return absolute

    def program_check(self) -> bool:
        """Handle a call; anything else that the emulator does not complete ends the stretch."""
        self.end_series()
        emulator, cpu = self._emulator, self._cpu
        address = emulator.registers[PSW_ADDRESS]
        trap = self._traps.get(address)
        if trap is None:
            instruction = self._storage.read(address, 4)
            if classify(instruction) is not Pattern.UVC:
                self.end = End.CODE
                return False
            # The instruction does not change: this stretch stores nothing in pages that it executes.
            trap = self._traps[address] = Trap(TrapKind.UVC, cpu, instruction)
        block = emulator.registers[trap.r2]
        if block & _PAGE_MASK in self._fetched or block + PAGE_SIZE - 1 & _PAGE_MASK in self._fetched:
            self.end = End.CALL  # the answer might change code that is translated
            return False
        cpu.general_changed = False
        try:
            more = self._handle(trap)
        except ProgramInterruption:
            self.end = End.CALL
            return False
        self.calls += 1
        if cpu.general_changed:
            emulator.store_general()
        emulator.store_psw()
        if not more:
            self.end = End.CALL
        self.late = time.monotonic() >= self._deadline
        if not more or self.late:
            return False
        if self._last == (address, block):
            self._begin_series(trap, address, block)
        self._last = address, block
        return True

    def _begin_series(self, trap: Trap, address: int, block: int) -> None:
        """Let calls like ``trap`` be answered without coming here, if it was the second of a loop."""
        series = self._series(trap) if self._emulator.answers_series else None
        if series is None or block % PAGE_SIZE + series.size > PAGE_SIZE:
            return
        absolute = CpuMemory(self._cpu, self._memory).absolute(block, write=True)
        if absolute & _PAGE_MASK in self._seen.pages:
            return  # code: each answer might change it
        self._note_store(absolute & _PAGE_MASK)
        self._emulator.begin_series(series, instruction=address, operand=trap.r2, address=block, absolute=absolute)

    def end_series(self) -> None:
        """Let the calls be carried out that were answered since :meth:`_begin_series`."""
        self.calls += self._emulator.end_series()
