"""One CPU: registers, translation, and the alternation of Unicorn with the interpreter of privileged instructions.

The copy in Unicorn always runs in the problem state with DAT off, so every privileged instruction comes back, and this
module translates all addresses. Before a block of code is executed for the first time, it is searched for instructions
that are not privileged but would show the copy's own state (clocks, facility lists, the PSW).
"""

from __future__ import annotations

from typing import Protocol

from zseal.arch import decode, lowcore
from zseal.arch.controls import initial_controls
from zseal.arch.dat import CpuMemory, fetch_absolute
from zseal.arch.decode import Instruction
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import BA, CONDITION_CODE_SHIFT, EA, PROBLEM_STATE, PSW_SIZE, WAIT, AddressSpace, Psw
from zseal.arch.storage import PAGE_SIZE, Storage
from zseal.engine.embedded.clock import CpuTimer
from zseal.engine.embedded.operands import OwnMemory
from zseal.engine.errors import EngineError
from zseal.engine.interruption import present
from zseal.engine.unicorn.emulator import PSW_ADDRESS, PSW_MASK, Access, Emulator
from zseal.engine.unicorn.runahead_code import always_leaves

_OWN_BITS = 3 << CONDITION_CODE_SHIFT | 0xF << 40 | EA | BA
"""PSW bits that ordinary instructions change, and that the copy in Unicorn therefore has: cc, program mask, mode."""
_LOW_SIZE = 512  # bytes of pages 0 and 1 that low-address protection covers
_AUXILIARY = 0x90  # Unicorn stores a data-exception code at absolute 0x90, whatever the prefix is
_LOOP_LIMIT = 8
_SHORT_RUN = 256
"""The assumed number of instructions of a run that ended early, because the real number is not known."""


class Machine(Protocol):
    """The interface that a CPU needs of its machine."""

    @property
    def memory(self) -> Storage:
        """Main storage."""

    def touch(self, absolute: int) -> None:
        """Make the page at ``absolute`` accessible to the guest; raises ProgramInterruption."""

    def interpret(self, cpu: EmbeddedCpu, instruction: Instruction) -> bool:
        """Carry out ``instruction``; returns False if this engine does not interpret it.

        Advances the PSW or sets a new one. Raises ProgramInterruption.
        """

    def sensitive(self, data: bytes) -> bool:
        """Whether Unicorn must not execute the unprivileged instruction ``data`` by itself."""

    def take_interruption(self, cpu: EmbeddedCpu) -> bool:
        """Let ``cpu`` take one pending interruption that its PSW and CR0 allow; returns whether there was one."""

    def halted(self, cpu: EmbeddedCpu) -> None:
        """``cpu`` has loaded a disabled wait PSW, or can no longer make progress."""


class EmbeddedCpu:
    """CPU ``number`` of ``machine`` (``zseal.engine.interface.Cpu``); it is stopped until ``operating`` is set."""

    def __init__(self, machine: Machine, number: int) -> None:
        self._machine = machine
        self._memory = machine.memory
        self._emulator = Emulator(machine.memory)
        self._registers = self._emulator.registers
        self._number = number
        self._prefix = 0
        self._control = 0
        self._controls = [0] * 16
        self._low_allowed = False
        self._trapped: int | None = None
        self._supervisor_call = False
        self._repeated = 0
        self._begun = 0
        self.stepping = False
        self.operating = False
        self.clock_comparator = 0
        self.timer = CpuTimer()
        self.external_call: int | None = None
        self.emergency: set[int] = set()
        self.reset(initial=True)

    def close(self) -> None:
        """Release the memory."""
        self._emulator.close()

    # --- registers ---

    @property
    def number(self) -> int:
        """The CPU address."""
        return self._number

    @property
    def psw(self) -> Psw:
        """The PSW."""
        return Psw(self._control | self._registers[PSW_MASK] & _OWN_BITS, self._registers[PSW_ADDRESS])

    @psw.setter
    def psw(self, value: Psw) -> None:
        self._control = value.mask & ~_OWN_BITS
        self._registers[PSW_MASK] = value.mask & _OWN_BITS | PROBLEM_STATE
        self._registers[PSW_ADDRESS] = value.address

    @property
    def prefix(self) -> int:
        """The prefix register."""
        return self._prefix

    @prefix.setter
    def prefix(self, value: int) -> None:
        self._prefix = value
        self.forget_translations()

    def gr(self, number: int) -> int:
        """Return general register ``number``."""
        value: int = self._registers[number]
        return value

    def set_gr(self, number: int, value: int) -> None:
        """Set general register ``number``."""
        self._registers[number] = value

    def cr(self, number: int) -> int:
        """Return control register ``number``."""
        return self._controls[number]

    def set_cr(self, number: int, value: int) -> None:
        """Set control register ``number``."""
        self._controls[number] = value
        self._emulator.set_control_register(number, value)
        self.forget_translations()

    def ar(self, number: int) -> int:
        """Return access register ``number``."""
        return self._emulator.access_registers()[number]

    def set_ar(self, number: int, value: int) -> None:
        """Set access register ``number``."""
        values = self._emulator.access_registers()
        values[number] = value
        self._emulator.set_access_registers(values)

    def set_condition_code(self, cc: int) -> None:
        """Set the condition code."""
        self.psw = self.psw.with_condition_code(cc)

    def step(self) -> None:
        """Execute the instruction at the PSW as a CPU without firmware does."""
        psw = self.psw
        instruction = decode.resolve(self.fetch, self.gr, psw, decode.read(self.fetch, psw.address))
        self.stepping = True
        try:
            self._machine.interpret(self, instruction)
        except ProgramInterruption as error:
            self.interrupt(error, instruction.length)
        finally:
            self.stepping = False

    # --- resets (Principles of Operation, "Resets") ---

    def reset(self, *, initial: bool = False, clear: bool = False) -> None:
        """CPU reset; ``initial``: also PSW, prefix, control registers, clocks; ``clear``: also the other registers."""
        self.operating = False
        self.external_call = None
        self.emergency.clear()
        if initial or clear:
            self.psw = Psw(0, 0)
            self._prefix = 0
            for number, value in enumerate(initial_controls()):
                self.set_cr(number, value)
            self.clock_comparator = 0
            self.timer.set(0)
        if clear:
            for number in range(16):
                self.set_gr(number, 0)
            self._emulator.set_access_registers([0] * 16)
            self._emulator.clear_floating_point()
        self.forget_translations()

    def forget_translations(self) -> None:
        """Purge the TLB."""
        self._emulator.forget_translations()

    def forget_code(self) -> None:
        """Take note of code that others have stored since it was last executed."""
        self._emulator.forget_code()

    # --- storage ---

    def fetch(self, address: int, length: int) -> bytes:
        """Read an instruction or a part of it; raises ProgramInterruption."""
        out = b""
        while length:
            size = min(length, PAGE_SIZE - address % PAGE_SIZE)
            absolute = fetch_absolute(self, self._memory, address)
            self._machine.touch(absolute)
            out += self._memory.read(absolute, size)
            address, length = address + size, length - size
        return out

    def operands(self, *, base: int = 0) -> OwnMemory:
        """Return storage as this CPU's ordinary operands see it; ``base`` is the register their address comes from."""
        return OwnMemory(self._machine.touch, CpuMemory(self, self._memory, space=None, base=base), self._memory)

    @property
    def storage(self) -> Storage:
        """Main storage, without regard to the owners of its pages."""
        return self._memory

    def exists(self, absolute: int) -> bool:
        """Whether there is storage at ``absolute``."""
        return 0 <= absolute < self._memory.size

    def read_absolute(self, address: int, length: int) -> bytes:
        """Read inside one page; raises ProgramInterruption."""
        if not self.exists(address + length - 1):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        self._machine.touch(address)
        return self._memory.read(address, length)

    def write_absolute(self, address: int, data: bytes) -> None:
        """Write inside one page; raises ProgramInterruption."""
        if not self.exists(address + len(data) - 1):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        self._machine.touch(address)
        self._memory.write(address, data)

    def read_range(self, address: int, length: int) -> bytes:
        """Read absolute storage of any length, as the guest sees it; missing storage reads as zeros."""
        out = b""
        while length and self.exists(address):
            size = min(length, PAGE_SIZE - address % PAGE_SIZE)
            out += self.read_absolute(address, size)
            address, length = address + size, length - size
        return out + bytes(length)

    def lowcore(self, offset: int, length: int) -> bytes:
        """Read the lowcore."""
        return self.read_absolute(self._prefix + offset, length)

    def exchange_psws(self, old: int, new: int, psw: Psw) -> None:
        """Store ``psw`` in the lowcore at ``old`` and go on with the PSW at ``new``, as an interruption does."""
        self.set_lowcore(old, psw.pack())
        self.psw = Psw.unpack(self.lowcore(new, PSW_SIZE))
        self.forget_translations()

    def set_lowcore(self, offset: int, data: bytes) -> None:
        """Write to the lowcore, as the machine itself does."""
        self.write_absolute(self._prefix + offset, data)

    # --- execution ---

    def run(self, instructions: int) -> None:
        """Execute about ``instructions``, until the CPU waits or stops."""
        while instructions > 0 and self.operating:
            if self._machine.take_interruption(self):
                continue
            psw = self.psw
            if psw.mask & WAIT:
                if psw.disabled_wait:
                    self._machine.halted(self)
                return
            instructions -= self._go(instructions)

    def _go(self, limit: int) -> int:
        """Execute instructions up to the next one to interpret, at most ``limit``; returns their number."""
        self._check_space()
        try:
            count, whole = self._before_sensitive(limit)
        except ProgramInterruption as error:
            self.interrupt(error, 2)
            return 1
        if count == 0:
            self._interpret()
            return 1
        start = self._begun = self._registers[PSW_ADDRESS]
        finished = self._execute(count)
        if not whole:
            self._emulator.forget_block(start)  # its translation continues into code that must not be executed
        return count if finished else min(count, _SHORT_RUN)

    def _check_space(self) -> None:
        psw = self.psw
        if psw.dat and psw.address_space in (AddressSpace.SECONDARY, AddressSpace.ACCESS_REGISTER):
            raise EngineError(
                f"the guest turned {psw.address_space.name.lower().replace('_', '-')} mode on, which the embedded "
                "engine does not have",
                hint='run it with `engine="qemu"`',
            )

    def _before_sensitive(self, limit: int) -> tuple[int, bool]:
        """Return how many instructions may be executed, and whether the block at the PSW may be as a whole."""
        address = self._registers[PSW_ADDRESS]
        if address & 1:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        end = (address | PAGE_SIZE - 1) + 1
        code = self.fetch(address, end - address)
        at = count = 0
        while at < len(code):
            data = code[at : at + decode.length(code[at])]
            if len(data) < decode.length(code[at]):
                try:
                    data = decode.read(self.fetch, address + at)
                except ProgramInterruption:
                    return min(count, limit), False
            if self._machine.sensitive(data):
                return min(count, limit), False
            if always_leaves(data):
                break
            at += len(data)
            count += 1
        return limit, True

    def _execute(self, count: int) -> bool:
        """Execute ``count`` instructions and handle events that end them early; returns whether there were none."""
        emulator = self._emulator
        emulator.store_general()
        emulator.store_psw()
        auxiliary = self._memory.read(_AUXILIARY, 4)
        self._forget_interruption()
        emulator.run(self, instructions=count)
        if self._supervisor_call:
            self._call_supervisor()
        elif self._trapped is not None:
            self._complete(self._trapped, auxiliary)
        elif emulator.fault is not None:
            self._fault(emulator.fault.interruption)
        else:
            self._repeated = 0
            return emulator.stopped_block is None
        return False

    def _call_supervisor(self) -> None:
        """Take the interruption of the SVC at the PSW (or of an EXECUTE of one)."""
        psw = self.psw
        instruction = decode.resolve(self.fetch, self.gr, psw, decode.read(self.fetch, psw.address))
        self.set_lowcore(lowcore.SVC_LENGTH, bytes([instruction.length]))
        self.set_lowcore(lowcore.SVC_CODE, bytes([0, instruction.data[1]]))
        self.exchange_psws(lowcore.SVC_OLD_PSW, lowcore.SVC_NEW_PSW, psw.advanced(instruction.length))

    def _forget_interruption(self) -> None:
        self._trapped = None
        self._supervisor_call = False

    def _complete(self, code: int, auxiliary: bytes) -> None:
        """For Unicorn, an instruction ended in program interruption ``code``."""
        if code in (ProgramCode.OPERATION, ProgramCode.PRIVILEGED_OPERATION):
            self._interpret(code)
            return
        if code == ProgramCode.DATA and self._prefix != 0:
            data = self._memory.read(_AUXILIARY, 4)
            self._memory.write(_AUXILIARY, auxiliary)
            self.set_lowcore(_AUXILIARY, data)
        psw = self.psw
        self.interrupt(ProgramInterruption(ProgramCode(code)), len(decode.read(self.fetch, psw.address)))

    def _interpret(self, code: int = ProgramCode.OPERATION) -> None:
        """Carry out the instruction at the PSW; ``code`` is its interruption if no part of the engine can."""
        psw = self.psw
        length = 2
        try:
            data = decode.read(self.fetch, psw.address)
            length = len(data)
            instruction = decode.resolve(self.fetch, self.gr, psw, data)
            if code == ProgramCode.PRIVILEGED_OPERATION and psw.problem_state:
                raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
            if not self._machine.interpret(self, instruction):
                if code == ProgramCode.PRIVILEGED_OPERATION:
                    raise EngineError(
                        f"the guest's instruction {instruction.data.hex()} at {psw.address:#x} is not supported by the "
                        f"embedded engine",
                        hint='run it with `engine="qemu"`',
                    )
                raise ProgramInterruption(ProgramCode.OPERATION)
            self._repeated = 0
        except ProgramInterruption as error:
            self.interrupt(error, length)

    def interrupt(self, error: ProgramInterruption, length: int) -> None:
        """Take a program interruption for the current instruction of ``length`` bytes."""
        before = self.psw
        self._machine.touch(self._prefix)
        present(self, self._memory, error, length)
        self.forget_translations()
        self._repeated += 1
        if self._repeated > _LOOP_LIMIT and self.psw.address == before.address:
            self.operating = False
            self._machine.halted(self)

    def _fault(self, error: ProgramInterruption) -> None:
        if isinstance(error, _LowStore):
            self._store_low(error)
            return
        try:
            length = len(decode.read(self.fetch, self.psw.address))
        except ProgramInterruption as fetching:
            # The instruction itself cannot be read, which comes before any effect of it.
            self.interrupt(fetching, 2)
            return
        self.interrupt(error, length)

    def _store_low(self, error: ProgramInterruption) -> None:
        """Make a store to a page that is partly under low-address protection, and undo it if it is not allowed."""
        pages = [self._low_page(address) for address in (0, PAGE_SIZE)]
        before = [bytes(page) for page in pages]
        registers, control = list(self._registers), self._control
        self._low_allowed = True
        self.forget_translations()
        try:
            self._execute(1)
        finally:
            self._low_allowed = False
            self.forget_translations()
        if all(page[:_LOW_SIZE] == old[:_LOW_SIZE] for page, old in zip(pages, before, strict=True)):
            return
        for page, old in zip(pages, before, strict=True):
            page[:] = old
        self._registers[:], self._control = registers, control
        length = len(decode.read(self.fetch, self.psw.address))
        self.interrupt(ProgramInterruption(ProgramCode.PROTECTION, teid=error.teid), length)

    def _low_page(self, address: int) -> memoryview:
        try:
            at = CpuMemory(self, self._memory, space=None).absolute(address)
        except ProgramInterruption:
            return memoryview(bytearray())
        return self._memory.view(at, PAGE_SIZE)

    # --- called by the emulator ---

    def translate(self, address: int, access: Access) -> int:
        """Return the absolute page, or raise."""
        page = address & ~(PAGE_SIZE - 1)
        if access is Access.FETCH:
            absolute = fetch_absolute(self, self._memory, page)
        else:
            write = access is Access.WRITE
            view = CpuMemory(self, self._memory, space=None)
            if write and page <= PAGE_SIZE and view.low_addresses_protected():
                if not self._low_allowed:
                    raise _LowStore(ProgramCode.PROTECTION, page, teid=page | int(self.psw.address_space))
                absolute = view.page(page, write=True)
            else:
                absolute = view.absolute(page, write=write)
        self._machine.touch(absolute)
        return absolute

    def program_check(self) -> bool:
        """Keep what interrupted the instruction, and stop for it."""
        interruption = self._emulator.interruption()
        if interruption.code is None:
            self._supervisor_call = True
        else:
            self._trapped = interruption.code
        return False

    def block(self, address: int, size: int) -> bool:
        """Whether Unicorn may execute the block by itself."""
        if address == self._begun:
            return True  # only so far as was found to be right
        try:
            code = self.fetch(address, size)
        except ProgramInterruption:
            return True  # it will find the same
        at = 0
        while at < size:
            data = code[at : at + decode.length(code[at])]
            if len(data) < decode.length(data[0]) or self._machine.sensitive(data):
                return False
            at += len(data)
        return True


class _LowStore(ProgramInterruption):
    """A store to a page with low-address protection in it."""
