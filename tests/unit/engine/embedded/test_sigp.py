"""What CPUs ask of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zseal.arch.psw import Psw
from zseal.engine.embedded import sigp
from zseal.engine.embedded.sigp import ACCEPTED, NOT_OPERATIONAL, STATUS_STORED, Order, Status

if TYPE_CHECKING:
    from tests.unit.engine.embedded.conftest import Bench

WAIT_MASK = 0x0002000180000000
PLAIN_MASK = 0x0000000180000000
HANDLER = 0x10800


def psw(mask: int, address: int) -> bytes:
    return mask.to_bytes(8, "big") + address.to_bytes(8, "big")


@pytest.fixture
def ask(bench: Bench):  # type: ignore[no-untyped-def] # a function of order, parameter and address
    machine = bench.load("07fe", cpus=2)

    def order(number: int, parameter: int = 0, address: int = 1) -> tuple[int, Status | None]:
        return sigp.signal(bench.memory, machine.cpus, machine.cpus[0], address, number, parameter)

    return order


def test_orders_to_nobody_and_unknown_orders(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask(Order.SENSE, address=7) == (NOT_OPERATIONAL, None)
    assert ask(0x77) == (STATUS_STORED, Status.INVALID_ORDER)
    assert ask(Order.SET_ARCHITECTURE, 1) == (STATUS_STORED, Status.INVALID_PARAMETER)


def test_a_cpu_is_started_sensed_and_stopped(ask) -> None:  # type: ignore[no-untyped-def]
    assert ask(Order.SENSE) == (STATUS_STORED, Status.STOPPED)
    assert ask(Order.SENSE_RUNNING_STATUS) == (STATUS_STORED, Status.NOT_RUNNING)
    assert ask(Order.START) == (ACCEPTED, None)
    assert ask(Order.SENSE) == (ACCEPTED, None)
    assert ask(Order.STOP) == (ACCEPTED, None)
    assert ask(Order.SENSE) == (STATUS_STORED, Status.STOPPED)


def test_the_prefix_is_set_only_while_the_cpu_is_stopped(bench: Bench, ask) -> None:  # type: ignore[no-untyped-def]
    assert ask(Order.SET_PREFIX, 0x20FFF) == (ACCEPTED, None)
    assert bench.machine is not None
    assert bench.machine.cpus[1].prefix == 0x20000
    assert ask(Order.SET_PREFIX, 0x7FFFE000) == (STATUS_STORED, Status.INVALID_PARAMETER)
    ask(Order.START)
    assert ask(Order.SET_PREFIX, 0x20000) == (STATUS_STORED, Status.INCORRECT_STATE)


def test_status_is_stored_where_dump_tools_look(bench: Bench, ask) -> None:  # type: ignore[no-untyped-def]
    assert bench.machine is not None
    cpu = bench.machine.cpus[1]
    cpu.psw = Psw(WAIT_MASK, 0x1234)
    cpu.set_gr(5, 0x55)
    cpu.set_ar(6, 0x66)
    cpu.set_cr(7, 0x77)
    cpu.prefix = 0x20000
    assert ask(Order.STORE_STATUS, 0x12000) == (ACCEPTED, None)
    area = bench.memory.read(0x12000, 512)
    assert area[0x80 + 40 : 0x80 + 48] == (0x55).to_bytes(8, "big")
    assert area[0x100:0x110] == psw(WAIT_MASK, 0x1234)
    assert area[0x118:0x11C] == (0x20000).to_bytes(4, "big")
    assert area[0x140 + 24 : 0x140 + 28] == (0x66).to_bytes(4, "big")
    assert area[0x180 + 56 : 0x180 + 64] == (0x77).to_bytes(8, "big")
    assert ask(Order.STOP_AND_STORE_STATUS) == (ACCEPTED, None)
    assert bench.memory.read(0x21200, 512)[0x80:0x100] == area[0x80:0x100]


def test_resets_clear_what_they_are_to_clear(bench: Bench, ask) -> None:  # type: ignore[no-untyped-def]
    assert bench.machine is not None
    cpu = bench.machine.cpus[1]
    cpu.set_gr(5, 0x55)
    cpu.set_cr(7, 0x77)
    cpu.prefix = 0x20000
    ask(Order.CPU_RESET)
    assert (cpu.gr(5), cpu.cr(7), cpu.prefix) == (0x55, 0x77, 0x20000)
    ask(Order.INITIAL_CPU_RESET)
    assert (cpu.gr(5), cpu.cr(7), cpu.cr(0), cpu.prefix) == (0x55, 0, 0xE0, 0)


def test_calls_interrupt_the_other_cpu_with_the_senders_address(bench: Bench, ask) -> None:  # type: ignore[no-untyped-def]
    assert bench.machine is not None
    memory, cpu = bench.memory, bench.machine.cpus[1]
    memory.write(0x1B0, psw(WAIT_MASK, 0xD0))
    cpu.set_cr(0, 0x6000)
    cpu.psw = Psw(0x0102000180000000, 0x100)
    ask(Order.START)
    assert ask(Order.EXTERNAL_CALL) == (ACCEPTED, None)
    assert ask(Order.EXTERNAL_CALL) == (STATUS_STORED, Status.EXTERNAL_CALL_PENDING)
    assert ask(Order.EMERGENCY_SIGNAL) == (ACCEPTED, None)
    assert bench.machine.take_interruption(cpu)
    assert memory.read(0x84, 4) == bytes.fromhex("00001201")
    cpu.psw = Psw(0x0102000180000000, 0x100)
    assert bench.machine.take_interruption(cpu)
    assert memory.read(0x84, 4) == bytes.fromhex("00001202")
    cpu.psw = Psw(0x0102000180000000, 0x100)
    assert not bench.machine.take_interruption(cpu)


def test_a_restart_begins_at_the_restart_psw(bench: Bench) -> None:
    # CPU 0: sigp restart to CPU 1, then wait for it to write
    code = "a7490001" + "a7590000" + "ae240006" + "b2220060" + "9501" + "0900" + "a774fffe"
    other = "92010900" + "a7180077" + "b2b20e00"
    machine = bench.run(code, {0x1A0: psw(PLAIN_MASK, HANDLER), HANDLER: bytes.fromhex(other)}, cpus=2)
    assert machine.cpus[1].gr(1) == 0x77
    assert machine.cpus[0].gr(6) >> 28 & 3 == 0
