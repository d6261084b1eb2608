"""Handles a CPU that stopped: finds its instruction, completes it, and decides whether QEMU executes it."""

from __future__ import annotations

from collections.abc import Callable

from zseal.arch import lowcore
from zseal.arch.dat import CpuMemory, real_to_absolute
from zseal.arch.instructions import LPSWE_LENGTH, UVC_LENGTH, UVC_OPCODE, classify, storage_operand
from zseal.arch.interruption import ProgramInterruption
from zseal.arch.psw import PSW_SIZE, WAIT, AddressSpace, Psw
from zseal.engine.errors import EngineError
from zseal.engine.interface import Action, EngineListener, Milestone, Trap, TrapKind
from zseal.engine.interruption import present
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.interrupted_cpu import InterruptedCpu
from zseal.engine.qemu.sites import Sites, Stage
from zseal.engine.unicorn.runahead import RunAhead
from zseal.linux import kernel_file

LOADS_LIMIT = 256
"""LPSWEs of one kernel that are looked at, at most: boot code has few, and what is not Linux may never turn DAT on."""


class Traps:
    """Handles stopped CPUs of one machine.

    ``notify`` is asked about a DIAGNOSE 0x500 of a CPU (by number) and returns whether QEMU shall execute it;
    ``kernel_begins`` is called when the kernel proper is about to begin, or is no longer expected to; ``going_on``
    returns whether the machine still runs.
    """

    def __init__(
        self,
        sites: Sites,
        memory: SharedMemory,
        listener: EngineListener,
        *,
        run_ahead: RunAhead | None,
        notify: Callable[[int], bool],
        kernel_begins: Callable[[], None],
        going_on: Callable[[], bool],
    ) -> None:
        self._sites = sites
        self._memory = memory
        self._listener = listener
        self._run_ahead = run_ahead
        self._notify = notify
        self._kernel_begins = kernel_begins
        self._going_on = going_on
        self._kernel_cpu = 0
        self._loads = 0
        self.calls = 0
        """Ultravisor calls completed so far."""
        self.calls_ahead = 0
        """Those for which QEMU did not stop."""
        self.exceptions = 0
        """Those that reached the guest kernel's handler of operation exceptions."""

    def handle(self, cpu: QemuCpu) -> bool:
        """Handle ``cpu`` at a breakpoint; returns whether it has to execute the instruction there itself."""
        address = cpu.psw.address
        if address == self._sites.exception_handler:
            return self._operation_exception(cpu)
        if address == self._sites.user_entry:
            self._sites.user_began()
            return False
        if address == self._sites.unmapped_entry and not cpu.psw.dat:
            self._sites.unmapped_entered()
            return False
        kind = self._sites.kind(address)
        if kind is TrapKind.IMAGE_ENTRY:
            return self._begin(cpu)
        return self._complete(cpu, kind)

    def handle_call(self, cpu: QemuCpu) -> None:
        """Handle ``cpu``, which has just taken the operation exception of a UVC: complete the call instead.

        Raises EngineError if it went on since, because the guest has then seen a wrong exception.
        """
        assigned = self._memory.read(cpu.prefix, lowcore.SIZE)
        old, new = (Psw.unpack(assigned, at) for at in (lowcore.PROGRAM_OLD_PSW, lowcore.PROGRAM_NEW_PSW))
        if self._sites.stage is Stage.IMAGE:
            return  # there are no ultravisor calls
        call = old.advanced(-UVC_LENGTH)  # suppressed, but the old PSW points past it
        if cpu.psw != new:
            raise EngineError(f"CPU {cpu.number} did not stop at its ultravisor call at {call.address:#x}")
        cpu.psw = call
        if self._complete(cpu, TrapKind.UVC):
            cpu.psw = new

    def may_start_kernel(self, cpu: int, address: int) -> bool:
        """Whether the instruction at ``address`` may start the kernel proper on CPU ``cpu``. Any thread may ask.

        Only on the CPU that the kernel began on: others are started later. So those may be stopped and started by the
        guest (SIGP) meanwhile without zseal's stops in between.
        """
        return cpu == self._kernel_cpu and self._sites.may_start_kernel(address)

    def handle_load(self, cpu: QemuCpu, address: int) -> None:
        """Handle ``cpu``, which has just executed the LPSWE at real ``address``: it may have started the kernel proper.

        Raises EngineError if it went on since, because the kernel may then have read its facilities.
        """
        psw = cpu.psw
        if self._sites.stage is not Stage.DECOMPRESSOR:
            return
        if not psw.dat:
            self._count_load()
            return
        try:
            instruction = self._memory.read(real_to_absolute(address, cpu.prefix), LPSWE_LENGTH)
            operand = real_to_absolute(storage_operand(instruction, cpu.gr, psw), cpu.prefix)
            loaded = Psw.unpack(self._memory.read(operand, PSW_SIZE))
        except ProgramInterruption:
            loaded = None
        if loaded != psw:
            raise EngineError(f"CPU {cpu.number} did not stop where the kernel begins")
        self._kernel_proper(cpu, psw)

    def handle_entry(self, cpu: QemuCpu) -> None:
        """Handle ``cpu``, which has executed at most a few instructions since it was at the kernel's entry."""
        if self._sites.stage is Stage.KERNEL and not cpu.psw.dat:  # otherwise a program: see _begin
            self._begin_kernel(cpu.number)

    def _begin(self, cpu: QemuCpu) -> bool:
        """Handle the entry of the image or of the kernel."""
        if cpu.psw.dat:
            return True  # a program that happens to have code at the same virtual address
        if self._sites.stage is Stage.IMAGE:
            self._sites.image_entered(cpu.psw.address)
            self._listener.milestone(Milestone.IMAGE_ENTRY)
        else:
            self._begin_kernel(cpu.number)
        return False

    def _begin_kernel(self, cpu: int) -> None:
        """Note that a kernel begins on CPU ``cpu``: the first one, or the next of a kexec or kdump, which begins the
        same way.
        """
        if self._sites.resets_unseen:
            self._listener.restarted(cpu)
        self._kernel_cpu, self._loads = cpu, 0
        self._sites.kernel_entered(kernel_file.ENTRY)
        self._listener.milestone(Milestone.KERNEL_ENTRY)

    def _complete(self, cpu: QemuCpu, kind: TrapKind | None) -> bool:
        """Let the listener complete a trapped instruction."""
        try:
            instruction = cpu.instruction()
        except ProgramInterruption:
            return True  # the CPU will find the same
        if kind is None or not _is(kind, instruction):
            return True  # other code at the same virtual address, or a late stop
        if kind is TrapKind.LPSWE:
            return self._load_psw(cpu, instruction)
        if kind is TrapKind.DIAG_500:
            return self._notify(cpu.number)
        try:
            answer = self._listener.trap(Trap(kind, cpu, instruction))
        except ProgramInterruption as error:
            present(cpu, self._memory, error, len(instruction))
            return False
        if answer is Action.EXECUTE:
            return True
        if self._sites.stage is Stage.KERNEL:
            # A kernel reads the list once, early, and keeps it; that is long done when it shares pages.
            self._sites.drop_kind(TrapKind.STFLE)
        if kind is TrapKind.UVC:
            self.calls += 1
            self._sites.ultravisor_queried()
            if self._run_ahead is not None:
                ahead = self._run_ahead.run(cpu, self._complete_ahead, self._listener.series)
                self.calls += ahead.calls
                self.calls_ahead += ahead.calls
                for address, length in ahead.changed:
                    cpu.storage_changed(address, length)
        return False

    def _complete_ahead(self, trap: Trap) -> bool:
        """Let the listener complete a call for which QEMU did not stop; returns whether to run on."""
        return self._listener.trap(trap) is Action.DONE and self._going_on()

    def _operation_exception(self, cpu: QemuCpu) -> bool:
        """The kernel is about to handle an instruction that QEMU does not know: is it a UVC?"""
        try:
            before = InterruptedCpu(cpu, self._memory)
            instruction = before.uvc()
            if instruction is None:
                return True
            address = before.psw.address
            if self._listener.trap(Trap(TrapKind.UVC, before, instruction)) is not Action.DONE:
                return True
            before.finish()
        except ProgramInterruption:
            return True  # not a call, or one that cannot be completed here: the kernel reports it
        self.calls += 1
        self.exceptions += 1
        self._sites.drop_kind(TrapKind.STFLE)
        self._sites.add_site(address)
        self._await_user(cpu, address)
        return False

    def _await_user(self, cpu: QemuCpu, address: int) -> None:
        """Watch for the first supervisor call after a call at ``address``, if no user program has run yet."""
        assigned = self._memory.read(cpu.prefix, lowcore.SIZE)
        if Psw.unpack(assigned, lowcore.SVC_OLD_PSW) == Psw(0, 0):
            self._sites.await_user(address, Psw.unpack(assigned, lowcore.SVC_NEW_PSW).address)

    def _load_psw(self, cpu: QemuCpu, instruction: bytes) -> bool:
        """Handle an LPSWE of the boot code: the one that turns on DAT starts the kernel proper."""
        operand = storage_operand(instruction, cpu.gr, cpu.psw)
        try:
            data = CpuMemory(cpu, self._memory, space=None, base=instruction[2] >> 4).read(operand, PSW_SIZE)
        except ProgramInterruption:
            return True
        new = Psw.unpack(data)
        if new.dat and cpu.number == self._kernel_cpu:
            self._kernel_proper(cpu, new)
            return False  # its breakpoint is gone: the CPU executes the LPSWE itself
        if new.mask & WAIT:
            self._sites.drop(cpu.psw.address)  # an idle loop, or the end: it does not start a kernel
            return False
        if not new.valid:
            return True
        if self._count_load():
            return False  # as above
        # QEMU's single step does not stop after an LPSWE, but after the next instruction.
        cpu.psw = new
        return False

    def _count_load(self) -> bool:
        """Count an LPSWE that does not turn DAT on; returns whether it was the last one to look at."""
        self._loads += 1
        if self._loads < LOADS_LIMIT:
            return False
        self._sites.drop_kind(TrapKind.LPSWE)
        self._kernel_begins()
        return True

    def _kernel_proper(self, cpu: QemuCpu, psw: Psw) -> None:
        """Note that the kernel proper begins on ``cpu`` with ``psw``."""
        self._sites.kernel_proper(cpu.cr(13 if psw.address_space is AddressSpace.HOME else 1), psw.address)
        self._kernel_begins()
        self._listener.milestone(Milestone.KERNEL_PROPER)


def _is(kind: TrapKind, instruction: bytes) -> bool:
    """Whether ``instruction`` is of the kind of site ``kind``."""
    if kind is TrapKind.UVC and instruction[:2] == UVC_OPCODE:
        return True
    pattern = classify(instruction)
    return pattern is not None and pattern.value == kind.value
