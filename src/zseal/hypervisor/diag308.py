"""The firmware's work for a guest at each trap, on any engine: STFLE, DIAGNOSE 0x308, ultravisor calls.

Before protected execution this is QEMU's side of DIAGNOSE 0x308, as in target/s390x/diag.c of QEMU; afterwards it is
the ultravisor's side, which lets a protected guest do less. This module is policy only: the hypervisor
(:mod:`zseal.hypervisor.vmm`) protects the guest, and the ultravisor carries out the calls.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from zseal.arch.controls import initial_controls
from zseal.arch.dat import CpuMemory
from zseal.arch.diag308 import ReturnCode, Subcode
from zseal.arch.facilities import Facility, amend_facility_list
from zseal.arch.instructions import storage_operand
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import CONDITION_CODE_SHIFT, Psw
from zseal.arch.storage import PAGE_SIZE, OperandMemory, Storage
from zseal.engine.interface import Action, Cpu, Engine, Series, Trap, TrapKind
from zseal.errors import FormatError
from zseal.formats.ipib import Ipib
from zseal.ultravisor.dispatch import check_instruction

_CONDITION_CODE = 3 << CONDITION_CODE_SHIFT


_WITH_BLOCK = frozenset({Subcode.SET_IPL, Subcode.STORE_IPL, Subcode.SET_PV, Subcode.STORE_PV})
_PV = frozenset({Subcode.SET_PV, Subcode.STORE_PV, Subcode.START_PV})
_REFUSED_INSIDE = frozenset({Subcode.LOAD_NORMAL_DUMP, 7, *_PV})


class Refused(Exception):  # noqa: N818 - an answer of the ultravisor, not an error of this program
    """The guest was not protected; ``code`` is the answer of DIAGNOSE 0x308 subcode 10."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#018x}")
        self.code = code


class Hypervisor(Protocol):
    """The interface that firmware needs of the hypervisor."""

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected."""

    def protect(self, block: Ipib) -> Psw:
        """Protect the guest as ``block`` describes it and return the PSW with which it begins; raises Refused."""

    def reset_guest(self, *, cpu: int, clear: bool) -> None:
        """Do the ultravisor's part of a guest's own reset: the guest stays protected, sharing ends."""

    def guest_call(self, cpu: int, memory: OperandMemory, address: int) -> int:
        """Issue the UVC with its control block at ``address`` and return the condition code."""

    def series(self, cpu: int, memory: OperandMemory, address: int) -> Series | None:
        """Return what calls like the completed one at ``address`` have in common; None if nothing is."""


def clear_registers(cpu: Cpu) -> None:
    """Give all registers but the PSW the values of a clear reset (Principles of Operation, "Clear Reset")."""
    for number, control in enumerate(initial_controls()):
        cpu.set_gr(number, 0)
        cpu.set_ar(number, 0)
        cpu.set_cr(number, control)


class Firmware:
    """Completes trapped instructions for the guest of ``hypervisor`` that ``engine`` executes."""

    def __init__(self, engine: Engine, hypervisor: Hypervisor) -> None:
        self._engine = engine
        self._hypervisor = hypervisor
        self._storage: Storage = engine.memory
        self._block: bytes | None = None
        self.complaint = ""
        """The fault in the parameter block that was last refused."""
        self.refused: Counter[int] = Counter()
        """How often a protected guest asked for DIAGNOSE 0x308 functions that it does not have, by subcode."""

    def reset(self) -> None:
        """The machine was reset: the parameter block of the last start is forgotten."""
        self._block = None
        self.complaint = ""

    def trap(self, trap: Trap) -> Action:
        """Complete the instruction of ``trap``; raises ProgramInterruption."""
        kind = trap.kind
        if kind is TrapKind.UVC:  # first, because a guest shares its buffers page by page
            return self._uvc(trap)
        if kind is TrapKind.STFLE:
            return self._stfle(trap)
        if kind is TrapKind.DIAG_308:
            return self._diag_308(trap)
        return Action.EXECUTE

    def _stfle(self, trap: Trap) -> Action:
        cpu, instruction = trap.cpu, trap.instruction
        before = cpu.psw
        wanted = cpu.gr(0)
        operand = storage_operand(instruction, cpu.gr, before)
        memory = CpuMemory(cpu, self._storage, space=None, base=instruction[2] >> 4)
        cpu.step()
        if cpu.psw.address != before.advanced(len(instruction)).address:
            return Action.DONE  # the CPU found a program interruption
        added = Facility.ULTRAVISOR_CALL if self._hypervisor.protected else Facility.UNPACK
        register, cc = amend_facility_list(memory, operand, r0_before=wanted, r0_after=cpu.gr(0), add=[added])
        cpu.set_gr(0, register)
        cpu.psw = cpu.psw.with_condition_code(cc)
        return Action.DONE

    def _uvc(self, trap: Trap) -> Action:
        if not self._hypervisor.protected:
            return Action.EXECUTE  # without facility 158 the CPU presents an operation exception by itself
        cpu = trap.cpu
        psw = cpu.psw
        address = cpu.gr(check_instruction(trap.instruction, psw))
        cc = self._hypervisor.guest_call(cpu.number, CpuMemory(cpu, self._storage), address)
        cpu.psw = Psw(psw.mask & ~_CONDITION_CODE | cc << CONDITION_CODE_SHIFT, psw.address + 4)
        return Action.DONE

    def series(self, trap: Trap) -> Series | None:
        """Return what calls like ``trap``, a UVC that was just completed, have in common; None if nothing is."""
        if not self._hypervisor.protected:
            return None
        cpu = trap.cpu
        return self._hypervisor.series(cpu.number, CpuMemory(cpu, self._storage), cpu.gr(trap.r2))

    def _diag_308(self, trap: Trap) -> Action:
        cpu = trap.cpu
        psw = cpu.psw
        if psw.problem_state:
            raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
        subcode = cpu.gr(trap.r2)
        if self._hypervisor.protected:
            return self._diag_308_inside(cpu, subcode)
        if subcode not in _PV:
            return Action.EXECUTE  # the machine handles it itself
        address = cpu.gr(trap.r1)
        if trap.r1 % 2 or (subcode in _WITH_BLOCK and address % PAGE_SIZE):
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        if subcode in _WITH_BLOCK and address + PAGE_SIZE > self._storage.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        if subcode == Subcode.SET_PV:
            code: int = self._set_block(self._storage.read(address, PAGE_SIZE))
        elif subcode == Subcode.STORE_PV:
            code = self._store_block(address)
        else:
            try:
                self._start(cpu)
            except Refused as refusal:
                code = refusal.code
            else:
                return Action.DONE
        cpu.set_gr(trap.r1 + 1, code)
        cpu.psw = psw.advanced(len(trap.instruction))
        return Action.DONE

    def _diag_308_inside(self, cpu: Cpu, subcode: int) -> Action:
        if subcode in _REFUSED_INSIDE:
            self.refused[subcode] += 1
        if subcode in _REFUSED_INSIDE or subcode > 0xFFFF:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        if subcode in (Subcode.MODIFIED_CLEAR, Subcode.LOAD_NORMAL):
            self._hypervisor.reset_guest(cpu=cpu.number, clear=subcode == Subcode.MODIFIED_CLEAR)
        return Action.EXECUTE

    def _set_block(self, data: bytes) -> ReturnCode:
        try:
            block = Ipib.parse(data)
        except FormatError as error:
            self.complaint = str(error)
            return ReturnCode.INVALID
        self._block = data[: block.header.length]  # a copy, so that later changes by the guest have no effect
        return ReturnCode.OK

    def _store_block(self, address: int) -> ReturnCode:
        if self._block is None:
            return ReturnCode.NO_CONFIGURATION
        self._storage.write(address, self._block)
        return ReturnCode.OK

    def _start(self, cpu: Cpu) -> None:
        if self._block is None:
            raise Refused(ReturnCode.NO_PV_CONFIGURATION)
        entry = self._hypervisor.protect(Ipib.parse(self._block))
        clear_registers(cpu)
        cpu.psw = entry
        self._engine.protected(entry)
