"""Entering and leaving a protected guest (start interpretive execution, format 4), as far as software can see it."""

from __future__ import annotations

import enum
import time

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.sie import CPU_TIMER
from zseal.arch.storage import PAGE_SHIFT
from zseal.errors import ZsealError
from zseal.formats.uv_codes import CpuState
from zseal.ultravisor.access import guest_read, host_check
from zseal.ultravisor.configuration import Configuration, ConfigurationState, SecureCpu
from zseal.ultravisor.events import Level
from zseal.ultravisor.state import MachineState

_TIMER_SIZE = 8
_PREFIX_PAGES = 2


class Validity(enum.Enum):
    """Why an entry is not valid."""

    CONFIGURATION = "no configuration has this handle"
    CPU = "no CPU of this configuration has this handle"
    STATE = "the configuration is not ready to run"
    STOPPED = "the CPU is stopped"
    RUNNING = "the CPU is already running"
    ASCE = "the host's primary address space is not the configuration's"
    STATE_DESCRIPTION = "the host cannot access the CPU's state description"
    TIMER = "the CPU timer was moved"


class ValidityIntercept(ZsealError):  # noqa: N818 - the architecture's own word for it
    """An entry that the machine refuses (intercept code 0x20); hypervisors then stop the guest."""

    def __init__(self, reason: Validity) -> None:
        super().__init__(f"the protected guest cannot be entered: {reason.value}")
        self.reason = reason


class PrefixIntercept(ZsealError):  # noqa: N818 - likewise
    """An entry that has to wait (intercept code 0x70): the host imports the CPU's prefix pages and enters again.

    ``addresses`` are those of the pages that are not resident, main storage origin included, as imports take them.
    """

    def __init__(self, addresses: tuple[int, ...]) -> None:
        super().__init__(
            "the protected guest cannot be entered before its prefix pages are imported: "
            + ", ".join(f"{address:#x}" for address in addresses)
        )
        self.addresses = addresses


def timer_clock() -> int:
    """Return the time that a running CPU timer has lost since some moment, in its units: 4096 a microsecond."""
    return time.monotonic_ns() * 4096 // 1000


def enter(machine: MachineState, configuration_handle: int, cpu_handle: int, asce: int) -> SecureCpu:
    """Let a CPU run; the first entry after OPERATING_LOAD loads its PSW. ``asce`` is the host's primary one (CR1).

    That PSW is the SE header's, after a reset the short PSW at guest absolute 0. Raises ValidityIntercept and
    PrefixIntercept, with nothing changed.
    """
    cpu = _entered(machine, configuration_handle, cpu_handle)
    configuration = cpu.configuration
    if asce != configuration.asce:
        raise ValidityIntercept(Validity.ASCE)
    _check_timer(machine, cpu)
    _check_prefix(machine, cpu)
    machine.undo.fields(cpu)
    if cpu.state is CpuState.OPERATING_LOAD:
        machine.undo.fields(cpu.registers)
        cpu.registers.psw = _load_psw(machine, configuration)
        cpu.state = CpuState.OPERATING
    cpu.running = True
    return cpu


def _entered(machine: MachineState, configuration_handle: int, cpu_handle: int) -> SecureCpu:
    """Return the CPU that the handles name, which must be one that may run."""
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
    if cpu.state not in (CpuState.OPERATING, CpuState.OPERATING_LOAD):
        raise ValidityIntercept(Validity.STOPPED)
    return cpu


def _timer(machine: MachineState, cpu: SecureCpu) -> int:
    """Return the CPU timer in the state description, which is the host's storage. Raises ProgramInterruption."""
    address = cpu.sie_block + CPU_TIMER
    host_check(machine.secure, address, _TIMER_SIZE)
    return int.from_bytes(machine.storage.read(address, _TIMER_SIZE), "big", signed=True)


def _check_timer(machine: MachineState, cpu: SecureCpu) -> None:
    """Between two entries the timer may lose at most the time that has passed, and gain nothing."""
    try:
        found = _timer(machine, cpu)
    except ProgramInterruption:
        raise ValidityIntercept(Validity.STATE_DESCRIPTION) from None
    if cpu.timer_at_exit is not None:
        timer, clock = cpu.timer_at_exit
        if not 0 <= timer - found <= timer_clock() - clock:
            raise ValidityIntercept(Validity.TIMER)


def _check_prefix(machine: MachineState, cpu: SecureCpu) -> None:
    guest, first = cpu.configuration.guest, cpu.registers.prefix >> PAGE_SHIFT
    missing = [
        page for page in range(first, first + _PREFIX_PAGES) if not machine.secure.holds(guest, page, guest.frame(page))
    ]
    if missing:
        raise PrefixIntercept(tuple((guest.origin + page) << PAGE_SHIFT for page in missing))


def _load_psw(machine: MachineState, configuration: Configuration) -> Psw:
    if configuration.was_reset:
        return Psw.from_short(int.from_bytes(guest_read(machine.secure, configuration.guest, 0, 8), "big"))
    assert configuration.accepted is not None  # noqa: S101 - the configuration is SECURE
    return configuration.accepted.psw


def leave(machine: MachineState, cpu_handle: int) -> None:
    """Take the CPU out of the guest; no effect if it was not in it."""
    cpu = machine.cpus.get(cpu_handle)
    if cpu is not None and cpu.running:
        _stop(machine, cpu)


def _stop(machine: MachineState, cpu: SecureCpu) -> None:
    machine.undo.fields(cpu)
    cpu.running = False
    try:
        cpu.timer_at_exit = _timer(machine, cpu), timer_clock()
    except ProgramInterruption:
        cpu.timer_at_exit = None


def request_reset(machine: MachineState, configuration_handle: int) -> None:
    """Stop the guest, which issued DIAGNOSE 308 subcode 0 or 1, until the host has carried out the reset."""
    configuration = machine.configuration(configuration_handle, ConfigurationState.SECURE)
    machine.undo.fields(configuration)
    configuration.state = ConfigurationState.RESETTING
    for cpu in configuration.cpus.values():
        if cpu.running:
            _stop(machine, cpu)
    machine.note(Level.INFO, "reset requested", configuration=configuration.guest.serial)
