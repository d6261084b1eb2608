"""A stopped CPU of QEMU takes whole steps, though QEMU's single step sometimes executes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from zseal.arch.psw import MASK_64BIT, Psw
from zseal.arch.storage import MIB
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu, RegisterFile
from zseal.engine.qemu.gdbremote import GdbRemote, Register, StopReply

NAMES = ["pswm", "pswa", *(f"r{n}" for n in range(16)), *(f"acr{n}" for n in range(16)), *(f"cr{n}" for n in range(16))]


class FakeGdb:
    """A stub whose steps go to the addresses ``places``, one after the other, with ``signal``."""

    def __init__(self, places: Sequence[int], signal: int = StopReply.TRAP) -> None:
        self.registers = [MASK_64BIT, 0x1000, *range(46)]
        self.places = list(places)
        self.signal = signal

    def select(self, thread: int) -> list[bytes]:
        return []

    def requests(self, payloads: Sequence[bytes]) -> list[bytes]:
        return [self._answer(payload) for payload in payloads]

    def _answer(self, payload: bytes) -> bytes:
        if payload == b"g":
            return b"".join(b"%016x" % value for value in self.registers[:18])
        return b"%016x" % self.registers[int(payload[1:], 16)]

    def step(self, thread: int, *commands: bytes) -> StopReply:
        for command in commands:
            number, _, value = command[1:].partition(b"=")
            self.registers[int(number, 16)] = int(value, 16)
        self.registers[1] = self.places.pop(0)
        return StopReply(self.signal, thread)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(MIB)
    yield memory
    memory.close()


def cpu_with(gdb: FakeGdb, memory: SharedMemory) -> QemuCpu:
    registers = RegisterFile({name: Register(name, number, 8) for number, name in enumerate(NAMES)})
    return QemuCpu(cast(GdbRemote, gdb), registers, memory, 1, 0)


def test_a_step_that_executes_nothing_is_taken_again(memory: SharedMemory) -> None:
    gdb = FakeGdb([0x1000, 0x1000, 0x1004, 0x1008])
    cpu = cpu_with(gdb, memory)
    cpu.set_gr(3, 77)
    cpu.step()
    assert cpu.psw == Psw(MASK_64BIT, 0x1004)
    assert cpu.gr(3) == 77
    assert gdb.places == [0x1008]


def test_the_end_of_the_machine_ends_a_step(memory: SharedMemory) -> None:
    gdb = FakeGdb([0x1000, 0x1004], signal=StopReply.INTERRUPT)
    cpu = cpu_with(gdb, memory)
    cpu.step()
    assert gdb.places == [0x1004]
    assert cpu.last_stop == StopReply(StopReply.INTERRUPT, 1)


def test_an_instruction_that_goes_to_itself_is_not_stepped_for_ever(memory: SharedMemory) -> None:
    gdb = FakeGdb([0x1000] * 1000)
    cpu_with(gdb, memory).step()
    assert gdb.places


def test_changed_storage_is_told_before_registers_and_once(memory: SharedMemory) -> None:
    memory.write(0x2FFC, bytes(range(8)))
    memory.write(0x8000, b"x" * 1500)
    cpu = cpu_with(FakeGdb([]), memory)
    cpu.storage_changed(0x2FFC, 8)
    cpu.storage_changed(0x8000, 1500)
    cpu.set_gr(3, 77)
    assert cpu.pending() == [
        b"Qqemu.PhyMemMode:1",
        b"M2ffc,8:0001020304050607",
        b"M8000,400:" + b"78" * 1024,
        b"M8400,1dc:" + b"78" * 476,
        b"Qqemu.PhyMemMode:0",
        b"P5=000000000000004d",
    ]
    assert cpu.pending() == []
