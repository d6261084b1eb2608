"""Calls on CPUs: create, destroy, resets, set state."""

from __future__ import annotations

import numpy as np

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.sie import SIE_BLOCK_SIZE
from zseal.arch.storage import PAGE_SIZE
from zseal.formats.uv_codes import CpuState, CreateCpu, Generic, SetState
from zseal.formats.uvcb import CpuStateUvcb, CreateCpuUvcb, HandleUvcb
from zseal.ultravisor.access import host_check
from zseal.ultravisor.configuration import ConfigurationState, SecureCpu
from zseal.ultravisor.donations import InUse, NotInStorage, contiguous, holds_prefix
from zseal.ultravisor.events import Level
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import DONE, MachineState, Reply, Request

_HANDLE_KIND = 0xC1


def create(machine: MachineState, call: Request[CreateCpuUvcb]) -> Reply:
    """CREATE_SEC_CPU: before the header is set or, as hot-plug, once the guest is secure."""
    block = call.uvcb
    configuration = machine.configuration(
        block.guest_handle, ConfigurationState.CREATED, ConfigurationState.PARAMETERS, ConfigurationState.SECURE
    )
    if block.num > machine.settings.max_cpu_number:
        raise UvcRefusal(CreateCpu.NUMBER)
    if block.num in configuration.cpus:
        raise UvcRefusal(CreateCpu.EXISTS)
    frames = contiguous(block.stor_origin, machine.settings.cpu_storage)
    try:
        machine.ledger.check(frames)
    except (NotInStorage, InUse):
        raise UvcRefusal(CreateCpu.STORAGE) from None
    if block.stor_origin % PAGE_SIZE:
        raise UvcRefusal(CreateCpu.STORAGE)
    if holds_prefix(frames, machine.host_cpus.prefixes):
        raise UvcRefusal(CreateCpu.PREFIX)
    try:
        machine.storage.view(block.state_origin, SIE_BLOCK_SIZE).release()
        host_check(machine.secure, block.state_origin, SIE_BLOCK_SIZE)
    except ProgramInterruption:
        raise UvcRefusal(CreateCpu.STATE) from None
    if np.isin(contiguous(block.state_origin, SIE_BLOCK_SIZE), frames).any():
        raise UvcRefusal(CreateCpu.STATE, detail="it lies in the CPU's storage")
    cpu = SecureCpu(
        handle=machine.new_handle(_HANDLE_KIND),
        configuration=configuration,
        number=block.num,
        donation=machine.ledger.donate(frames, configuration.guest.serial),
        sie_block=block.state_origin,
    )
    machine.undo.entry(configuration.cpus, cpu.number)
    machine.undo.entry(machine.cpus, cpu.handle)
    configuration.cpus[cpu.number] = cpu
    machine.cpus[cpu.handle] = cpu
    machine.note(Level.INFO, "CPU created", configuration=configuration.guest.serial, cpu=cpu.number)
    return Reply(fields={"cpu_handle": cpu.handle})


def _idle(machine: MachineState, handle: int) -> SecureCpu:
    cpu = machine.cpu(handle)
    if cpu.running:
        raise UvcRefusal(Generic.INVALID_STATE, detail="the CPU is running")
    return cpu


def destroy(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """DESTROY_SEC_CPU: in any phase, but not while the CPU runs."""
    cpu = _idle(machine, call.uvcb.handle)
    machine.ledger.give_back(cpu.donation)
    machine.undo.entry(cpu.configuration.cpus, cpu.number)
    machine.undo.entry(machine.cpus, cpu.handle)
    machine.undo.afterwards(cpu.registers.clear_reset)
    del cpu.configuration.cpus[cpu.number]
    del machine.cpus[cpu.handle]
    machine.note(Level.INFO, "CPU destroyed", configuration=cpu.configuration.guest.serial, cpu=cpu.number)
    return DONE


def _reset(machine: MachineState, handle: int) -> SecureCpu:
    cpu = _idle(machine, handle)
    machine.configuration(cpu.configuration.handle, ConfigurationState.SECURE)
    machine.undo.fields(cpu)
    machine.undo.fields(cpu.registers)
    cpu.state = CpuState.STOPPED
    return cpu


def reset(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """CPU_RESET: the CPU stops and keeps its registers."""
    _reset(machine, call.uvcb.handle)
    return DONE


def initial_reset(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """CPU_RESET_INITIAL: PSW, prefix, control registers and clocks as well."""
    cpu = _reset(machine, call.uvcb.handle)
    cpu.registers.initial_reset()
    cpu.timer_at_exit = None
    return DONE


def clear_reset(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """CPU_RESET_CLEAR: all registers."""
    cpu = _reset(machine, call.uvcb.handle)
    cpu.registers.clear_reset()
    cpu.timer_at_exit = None
    return DONE


def set_state(machine: MachineState, call: Request[CpuStateUvcb]) -> Reply:
    """CPU_SET_STATE: while a reset is pending CPUs can only be stopped."""
    cpu = _idle(machine, call.uvcb.cpu_handle)
    configuration = cpu.configuration
    try:
        state = CpuState(call.uvcb.state)
    except ValueError:
        raise UvcRefusal(SetState.STATE) from None
    starts = state in (CpuState.OPERATING, CpuState.OPERATING_LOAD)
    phases = [ConfigurationState.SECURE] if starts else [ConfigurationState.SECURE, ConfigurationState.RESETTING]
    machine.configuration(configuration.handle, *phases)
    machine.undo.fields(cpu)
    machine.undo.fields(configuration)
    cpu.state = state
    if starts:
        configuration.unshared = False
    machine.note(
        Level.INFO, "CPU state set", configuration=configuration.guest.serial, cpu=cpu.number, state=state.name
    )
    return DONE
