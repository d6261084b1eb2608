"""The machine: its CPUs and everything that they reach, resets, and the traps for the listener."""

from __future__ import annotations

import enum

from zseal.arch.decode import Instruction
from zseal.arch.diag308 import ReturnCode, Subcode
from zseal.arch.instructions import Pattern, classify
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import MASK_64BIT, WAIT, Psw
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.embedded import control, interruptions, sigp
from zseal.engine.embedded.cpu import EmbeddedCpu
from zseal.engine.embedded.load import Program
from zseal.engine.embedded.sclp import Sclp
from zseal.engine.errors import EngineError
from zseal.engine.interface import Action, EngineListener, FirstTouch, Milestone, Stop, StopKind, Trap, TrapKind
from zseal.engine.memory import SharedMemory
from zseal.linux import kernel_file

SLICE_INSTRUCTIONS = 1 << 17
"""The number of instructions that one CPU executes in a row: some milliseconds."""
_POWEROFF_ADDRESS = 0xFFF  # QEMU: a disabled wait there is a power-off
_MINUS_EINVAL = (1 << 64) - 22
_UVC = b"\xb9\xa4"


def _trap_kind(data: bytes) -> TrapKind | None:
    if data[:2] == _UVC:
        return TrapKind.UVC  # also with M fields that are not zero, which the ultravisor refuses
    pattern = classify(data)
    return None if pattern in (None, Pattern.LPSWE) else TrapKind(pattern.value)


class Phase(enum.Enum):
    """Where the guest is on its way from image to protected kernel."""

    IMAGE = enum.auto()
    LOADER = enum.auto()
    KERNEL = enum.auto()
    PROPER = enum.auto()


class EmbeddedMachine:
    """``cpus`` CPUs over ``memory`` that run ``program`` and report to ``listener``.

    ``first_touch`` is called with the absolute address of a page before the guest's first access to it in a slice,
    because secure-storage hardware checks each access; it raises the interruption in which the access ends. ``stop`` is
    set at the end.
    """

    def __init__(
        self,
        memory: SharedMemory,
        cpus: int,
        program: Program,
        listener: EngineListener,
        *,
        line_mode: bool,
        first_touch: FirstTouch | None,
    ) -> None:
        self._memory = memory
        self._program = program
        self._listener = listener
        self._first_touch = first_touch
        self._touched: set[int] = set()
        self._phase = Phase.IMAGE
        self._block: bytes | None = None
        self._restart = False
        self._last: EmbeddedCpu | None = None
        self.stop: Stop | None = None
        self.traps = 0
        self.slices = 0
        self.sclp = Sclp(memory, cpus=cpus, line_mode=line_mode, write=listener.console)
        self.cpus: list[EmbeddedCpu] = []
        try:
            for number in range(cpus):
                self.cpus.append(EmbeddedCpu(self, number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the memory; a second call has no effect."""
        for cpu in self.cpus:
            cpu.close()
        self.cpus.clear()

    # --- life ---

    def load(self) -> None:
        """Reset everything, load the program into cleared memory and let CPU 0 begin."""
        self._memory.clear(0, self._memory.size)
        entry = self._program.load(self._memory)
        release = kernel_file.release(self._memory.read) if entry == kernel_file.ENTRY else None
        self._refuse_linux(release)
        self._reset_all(clear=True)
        self._phase = Phase.IMAGE
        self._block = None
        self._start(Psw(MASK_64BIT, entry))
        self._listener.milestone(Milestone.IMAGE_ENTRY)

    def protected(self, _entry: Psw) -> None:
        """Take note that the guest is now protected and its memory was replaced."""
        self._phase = Phase.LOADER
        self._touched.clear()
        self.sclp.reset()
        for cpu in self.cpus:
            cpu.forget_code()
            if cpu is not self._last:
                cpu.reset(clear=True)

    @staticmethod
    def _refuse_linux(release: str | None) -> None:
        if release is not None:
            raise EngineError(
                f"Linux {release} needs QEMU: the embedded engine runs bootloaders and bare-metal guests",
                hint='use `engine="qemu"`',
            )

    def _reset_all(self, *, clear: bool) -> None:
        self.sclp.reset()
        self._touched.clear()
        for cpu in self.cpus:
            cpu.reset(initial=True, clear=clear)
            cpu.forget_code()

    def _start(self, psw: Psw, number: int = 0) -> None:
        cpu = self.cpus[number]
        cpu.psw = psw
        cpu.operating = True

    def run_slice(self) -> bool:
        """Let every CPU that can execute something do so for a while; returns whether any could go on immediately."""
        self.slices += 1
        # The host may have taken pages out, or put them back, since the last slice.
        self._touched.clear()
        for cpu in list(self.cpus):
            if self.stop is not None or not cpu.operating:
                continue
            cpu.forget_translations()
            if self._last is not cpu and self._last is not None:
                cpu.forget_code()  # the other one may have stored some
            self._last = cpu
            cpu.run(SLICE_INSTRUCTIONS)
            if self._restart:
                self._restart = False
                self._listener.reset()
                self.load()
                return True
        if self.stop is None and not any(cpu.operating for cpu in self.cpus):
            self.stop = Stop(StopKind.POWEROFF)
        return self.stop is None and any(
            cpu.operating and (not cpu.psw.mask & WAIT or interruptions.ready(cpu, self.sclp)) for cpu in self.cpus
        )

    def seconds_to_next(self) -> float | None:
        """Return how long all CPUs will wait; None if only the console can wake one."""
        waits = [interruptions.seconds_to_next(cpu) for cpu in self.cpus if cpu.operating]
        return min((wait for wait in waits if wait is not None), default=None)

    # --- what CPUs ask (zseal.engine.embedded.cpu.Machine) ---

    @property
    def memory(self) -> SharedMemory:
        """Main storage."""
        return self._memory

    def touch(self, absolute: int) -> None:
        """Let the owner of the storage check the guest's first access to a page."""
        page = absolute & ~(PAGE_SIZE - 1)
        if page in self._touched:
            return
        if page >= self._memory.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, absolute)
        if self._first_touch is not None and self._phase is not Phase.IMAGE:
            self._first_touch(page)
        self._touched.add(page)

    def interpret(self, cpu: EmbeddedCpu, instruction: Instruction) -> bool:
        """Pass instructions that firmware completes to the listener, and do the others here."""
        kind = _trap_kind(instruction.data)
        if kind is None:
            return control.interpret(cpu, instruction, self)
        if cpu.stepping:
            return self._native(cpu, instruction, kind)
        self.traps += 1
        if kind is TrapKind.UVC:
            self._touch_block(cpu, instruction)
        if self._listener.trap(Trap(kind, cpu, instruction.data)) is Action.EXECUTE:
            return self._native(cpu, instruction, kind)
        return True

    def _touch_block(self, cpu: EmbeddedCpu, instruction: Instruction) -> None:
        """A control block may be in pages that the guest has not touched since they left secure storage."""
        address = cpu.gr(instruction.rre2)
        try:
            cpu.operands().check(address, 8, write=True)
        except ProgramInterruption:
            return  # the code that completes the call finds and presents it again
        cpu.operands().read(address, 8)

    def sensitive(self, data: bytes) -> bool:
        """Whether Unicorn must leave ``data`` to us although it is not privileged."""
        return control.sensitive(data)

    def take_interruption(self, cpu: EmbeddedCpu) -> bool:
        """Let ``cpu`` take an external interruption."""
        return interruptions.take(cpu, self.sclp)

    def halted(self, cpu: EmbeddedCpu) -> None:
        """Note that a CPU waits for nothing; the machine has stopped if no other CPU runs."""
        cpu.operating = False
        if any(other.operating for other in self.cpus):
            return
        psw = cpu.psw
        if psw.disabled_wait and psw.address == _POWEROFF_ADDRESS:
            self.stop = Stop(StopKind.POWEROFF)
        else:
            reason = "disabled-wait" if psw.mask & WAIT else "program-interruption loop"
            self.stop = Stop(StopKind.PANIC, reason, cpu.number, psw)

    # --- what instructions reach (zseal.engine.embedded.control.Hardware) ---

    def servc(self, word: int, block: int, prefix: int) -> int:
        """SERVICE CALL."""
        self.touch(block)
        return self.sclp.service_call(word, block, prefix)

    def sigp(self, cpu: EmbeddedCpu, address: int, order: int, parameter: int) -> tuple[int, int | None]:
        """SIGNAL PROCESSOR."""
        return sigp.signal(self._memory, self.cpus, cpu, address, order, parameter)

    def loaded(self, cpu: EmbeddedCpu, psw: Psw) -> None:
        """Note the boot's progress with a new PSW."""
        if psw.mask & WAIT:
            return
        if self._phase is Phase.LOADER and psw.address == kernel_file.ENTRY and not psw.dat:
            self._phase = Phase.KERNEL
            self._refuse_linux(kernel_file.release(cpu.read_range))
            self._listener.milestone(Milestone.KERNEL_ENTRY)
        elif self._phase is Phase.KERNEL and psw.dat:
            self._phase = Phase.PROPER
            self._listener.milestone(Milestone.KERNEL_PROPER)

    # --- DIAGNOSE and other instructions that the listener leaves to the machine ---

    def _native(self, cpu: EmbeddedCpu, instruction: Instruction, kind: TrapKind) -> bool:
        if kind is TrapKind.STFLE:
            return control.interpret(cpu, instruction, self)
        if kind is TrapKind.UVC:
            raise ProgramInterruption(ProgramCode.OPERATION)  # no facility 158
        if cpu.psw.problem_state:
            raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
        if kind is TrapKind.DIAG_308:
            if self._diag_308(cpu, cpu.gr(instruction.r3), instruction.r1):
                return True
        else:
            cpu.set_gr(2, _MINUS_EINVAL)  # no virtio devices here
        cpu.psw = cpu.psw.advanced(instruction.length)
        return True

    def _diag_308(self, cpu: EmbeddedCpu, subcode: int, r1: int) -> bool:
        """Do the machine's own part of DIAGNOSE 308; returns whether it has set a new PSW."""
        if subcode in (Subcode.MODIFIED_CLEAR, Subcode.LOAD_NORMAL):
            self._reset_all(clear=subcode == Subcode.MODIFIED_CLEAR)
            self._start(Psw.from_short(int.from_bytes(self._read_low(), "big")), cpu.number)
            return True
        if subcode in (Subcode.LOAD_CLEAR, Subcode.LOAD_NORMAL_DUMP):
            self._restart = True
            for other in self.cpus:
                other.operating = False
            return True
        if subcode not in (Subcode.SET_IPL, Subcode.STORE_IPL) or r1 % 2 or cpu.gr(r1) % PAGE_SIZE:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        address = cpu.gr(r1)
        if address + PAGE_SIZE > self._memory.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        self.touch(address)
        cpu.set_gr(r1 + 1, self._set_block(address) if subcode == Subcode.SET_IPL else self._store_block(address))
        return False

    def _read_low(self) -> bytes:
        self.touch(0)
        return self._memory.read(0, 8)

    def _set_block(self, address: int) -> int:
        data = self._memory.read(address, PAGE_SIZE)
        length = int.from_bytes(data[:4], "big")
        if not 8 <= length <= PAGE_SIZE:
            return ReturnCode.INVALID
        self._block = data[:length]
        return ReturnCode.OK

    def _store_block(self, address: int) -> int:
        if self._block is None:
            return ReturnCode.NO_CONFIGURATION
        self._memory.write(address, self._block)
        return ReturnCode.OK
