"""Entering and leaving a protected guest (start interpretive execution, format 4), as far as software can see it."""

from __future__ import annotations

import enum

from zseal.arch.psw import Psw
from zseal.errors import ZsealError
from zseal.formats.uv_codes import CpuState
from zseal.ultravisor.access import guest_read
from zseal.ultravisor.configuration import ConfigurationState, SecureCpu
from zseal.ultravisor.events import Level
from zseal.ultravisor.state import MachineState


class Validity(enum.Enum):
    """Why an entry is not valid."""

    CONFIGURATION = "no configuration has this handle"
    CPU = "no CPU of this configuration has this handle"
    STATE = "the configuration is not ready to run"
    STOPPED = "the CPU is stopped"
    RUNNING = "the CPU is already running"


class ValidityIntercept(ZsealError):  # noqa: N818 - the architecture's own word for it
    """An entry that the machine refuses (intercept code 0x20); hypervisors stop the guest then."""

    def __init__(self, reason: Validity) -> None:
        super().__init__(f"the protected guest can't be entered: {reason.value}")
        self.reason = reason


def enter(machine: MachineState, configuration_handle: int, cpu_handle: int) -> SecureCpu:
    """Let a CPU run; the first entry after OPERATING_LOAD loads its PSW.

    That is the PSW of the SE header, after a reset the short PSW at guest absolute 0. Raises ValidityIntercept, and
    ProgramInterruption where the host has to import guest page 0 first.
    """
    configuration = machine.configurations.get(configuration_handle)
    if configuration is None:
        raise ValidityIntercept(Validity.CONFIGURATION)
    cpu = machine.cpus.get(cpu_handle)
    if cpu is None or cpu.configuration is not configuration:
        raise ValidityIntercept(Validity.CPU)
    if configuration.state is not ConfigurationState.SECURE:
        raise ValidityIntercept(Validity.STATE)
    if cpu.running:
        raise ValidityIntercept(Validity.RUNNING)
    if cpu.state is CpuState.OPERATING_LOAD:
        assert configuration.accepted is not None  # noqa: S101 - the configuration is SECURE
        psw = configuration.accepted.psw
        if configuration.was_reset:
            short = guest_read(machine.secure, configuration.guest, 0, 8)
            psw = Psw.from_short(int.from_bytes(short, "big"))
        cpu.registers.psw = psw
        cpu.state = CpuState.OPERATING
    if cpu.state is not CpuState.OPERATING:
        raise ValidityIntercept(Validity.STOPPED)
    cpu.running = True
    return cpu


def leave(machine: MachineState, cpu_handle: int) -> None:
    """The CPU is out of the guest again; no effect where it was not in."""
    if cpu_handle in machine.cpus:
        machine.cpus[cpu_handle].running = False


def request_reset(machine: MachineState, configuration_handle: int) -> None:
    """The guest issued DIAGNOSE 308 subcode 0 or 1: nothing runs until the host has carried the reset through."""
    configuration = machine.configuration(configuration_handle, ConfigurationState.SECURE)
    configuration.state = ConfigurationState.RESETTING
    for cpu in configuration.cpus.values():
        cpu.running = False
    machine.log.add(Level.INFO, "reset requested", configuration=configuration.guest.serial)
