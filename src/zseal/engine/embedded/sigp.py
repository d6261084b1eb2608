"""SIGNAL PROCESSOR: requests between CPUs, with the answers of QEMU's target/s390x/sigp.c."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from zseal.arch.dat import PREFIX_AREA_SIZE, PREFIX_MASK
from zseal.arch.storage import Storage
from zseal.engine.embedded import interruptions
from zseal.engine.embedded.cpu import EmbeddedCpu

_STATUS_MASK = 0xFFFFFFFF


class Order(enum.IntEnum):
    """Order codes."""

    SENSE = 1
    EXTERNAL_CALL = 2
    EMERGENCY_SIGNAL = 3
    START = 4
    STOP = 5
    RESTART = 6
    STOP_AND_STORE_STATUS = 9
    INITIAL_CPU_RESET = 11
    CPU_RESET = 12
    SET_PREFIX = 13
    STORE_STATUS = 14
    SET_ARCHITECTURE = 18
    CONDITIONAL_EMERGENCY_SIGNAL = 19
    SENSE_RUNNING_STATUS = 21


class Status(enum.IntFlag):
    """Status bits."""

    INVALID_ORDER = 0x2
    STOPPED = 0x40
    EXTERNAL_CALL_PENDING = 0x80
    INVALID_PARAMETER = 0x100
    INCORRECT_STATE = 0x200
    NOT_RUNNING = 0x400


ACCEPTED, STATUS_STORED, BUSY, NOT_OPERATIONAL = range(4)


def signal(
    memory: Storage, cpus: Sequence[EmbeddedCpu], sender: EmbeddedCpu, address: int, order: int, parameter: int
) -> tuple[int, Status | None]:
    """Carry out ``order`` for the CPU at ``address``; return the condition code and the status to store, if any."""
    if order == Order.SET_ARCHITECTURE:
        # All CPUs are in z/Architecture mode and stay in it.
        return STATUS_STORED, Status.INVALID_PARAMETER
    if not 0 <= address < len(cpus):
        return NOT_OPERATIONAL, None
    cpu = cpus[address]
    status = Status(0)
    if order == Order.SENSE:
        status |= Status(0) if cpu.operating else Status.STOPPED
        status |= Status(0) if cpu.external_call is None else Status.EXTERNAL_CALL_PENDING
    elif order == Order.SENSE_RUNNING_STATUS:
        status |= Status(0) if cpu.operating else Status.NOT_RUNNING
    elif order == Order.EXTERNAL_CALL:
        if cpu.external_call is None:
            cpu.external_call = sender.number
        else:
            status = Status.EXTERNAL_CALL_PENDING
    elif order in (Order.EMERGENCY_SIGNAL, Order.CONDITIONAL_EMERGENCY_SIGNAL):
        cpu.emergency.add(sender.number)
    elif order == Order.START:
        cpu.operating = True
    elif order in (Order.STOP, Order.STOP_AND_STORE_STATUS):
        cpu.operating = False
        if order == Order.STOP_AND_STORE_STATUS:
            _store_status(memory, cpu, cpu.prefix + 0x1200)
    elif order == Order.RESTART:
        interruptions.restart(cpu)
        cpu.operating = True
    elif order in (Order.INITIAL_CPU_RESET, Order.CPU_RESET):
        cpu.reset(initial=order == Order.INITIAL_CPU_RESET)
    elif order == Order.SET_PREFIX:
        status = _set_prefix(memory, cpu, parameter)
    elif order == Order.STORE_STATUS:
        status = _check_area(memory, cpu, parameter & 0x7FFFFE00, 512)
        if not status:
            _store_status(memory, cpu, parameter & 0x7FFFFE00)
    else:
        status = Status.INVALID_ORDER
    return (STATUS_STORED, status) if status else (ACCEPTED, None)


def store(register: int, status: Status) -> int:
    """Return the status register's new content."""
    return register & ~_STATUS_MASK | status


def _check_area(memory: Storage, cpu: EmbeddedCpu, address: int, length: int) -> Status:
    if cpu.operating:
        return Status.INCORRECT_STATE
    return Status.INVALID_PARAMETER if address + length > memory.size else Status(0)


def _set_prefix(memory: Storage, cpu: EmbeddedCpu, parameter: int) -> Status:
    area = parameter & PREFIX_MASK
    status = _check_area(memory, cpu, area, PREFIX_AREA_SIZE)
    if not status:
        cpu.prefix = area
    return status


def _store_status(memory: Storage, cpu: EmbeddedCpu, area: int) -> None:
    """Store the CPU's status: the 512 bytes at absolute 0x1200 of the architecture's layout."""
    data = bytearray(512)
    for number in range(16):
        data[0x80 + 8 * number : 0x88 + 8 * number] = cpu.gr(number).to_bytes(8, "big")
        data[0x140 + 4 * number : 0x144 + 4 * number] = cpu.ar(number).to_bytes(4, "big")
        data[0x180 + 8 * number : 0x188 + 8 * number] = cpu.cr(number).to_bytes(8, "big")
    data[0x100:0x110] = cpu.psw.pack()
    data[0x118:0x11C] = cpu.prefix.to_bytes(4, "big")
    data[0x128:0x130] = cpu.timer.get().to_bytes(8, "big")
    data[0x131:0x138] = (cpu.clock_comparator >> 8).to_bytes(7, "big")
    memory.write(area, data)
