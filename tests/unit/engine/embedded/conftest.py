"""A machine for small programs written in machine code."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator

import pytest

from zseal.arch.storage import MIB
from zseal.engine.embedded.load import Program
from zseal.engine.embedded.machine import EmbeddedMachine
from zseal.engine.interface import Action, Console, Milestone, Series, Stop, Trap
from zseal.engine.memory import SharedMemory

CODE = 0x10000
STOP = "b2b20e00"  # LPSWE of the disabled wait at 0xe00
DONE, UNEXPECTED = 0xD0, 0xBAD
WAIT_MASK = 0x0002000180000000
PLAIN_MASK = 0x0000000180000000


class Listener:
    """Completes no trap by itself; keeps what happens."""

    def __init__(self) -> None:
        self.output: dict[Console, bytes] = dict.fromkeys(Console, b"")
        self.milestones: list[Milestone] = []
        self.traps: list[str] = []
        self.resets = 0
        self.stops: list[Stop] = []
        self.errors: list[BaseException] = []
        self.answer: Callable[[Trap], Action] = lambda trap: Action.EXECUTE

    def trap(self, trap: Trap) -> Action:
        self.traps.append(trap.kind.value)
        return self.answer(trap)

    def series(self, trap: Trap) -> Series | None:
        return None

    def restarted(self, cpu: int) -> None:
        raise AssertionError

    def milestone(self, milestone: Milestone) -> None:
        self.milestones.append(milestone)

    def console(self, console: Console, data: bytes) -> None:
        self.output[console] += data

    def reset(self) -> None:
        self.resets += 1

    def stopped(self, stop: Stop) -> None:
        self.stops.append(stop)

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


def image(code: str, places: dict[int, bytes]) -> bytes:
    """An image that begins at 0x10000 with ``code``; every interruption it does not expect ends in 0xbad."""
    data = bytearray(0x14000)
    data[0:8] = (0x0008000180000000 | CODE).to_bytes(8, "big")
    for new_psw in (0x1A0, 0x1B0, 0x1C0, 0x1D0):
        data[new_psw : new_psw + 16] = psw(WAIT_MASK, UNEXPECTED)
    data[0xE00:0xE10] = psw(WAIT_MASK, DONE)
    body = bytes.fromhex(code)
    data[CODE : CODE + len(body)] = body
    for address, content in places.items():
        data[address : address + len(content)] = content
    return bytes(data)


def psw(mask: int, address: int) -> bytes:
    return mask.to_bytes(8, "big") + address.to_bytes(8, "big")


@dataclasses.dataclass
class Bench:
    """Loads programs into a machine and runs them to their end."""

    memory: SharedMemory
    listener: Listener
    machine: EmbeddedMachine | None = None
    files: list[int] = dataclasses.field(default_factory=list)

    def load(self, code: str, places: dict[int, bytes] | None = None, *, cpus: int = 1) -> EmbeddedMachine:
        with tempfile.TemporaryFile() as stream:
            stream.write(image(code, places or {}))
            stream.flush()
            descriptor = os.dup(stream.fileno())
        self.files.append(descriptor)
        self.machine = EmbeddedMachine(
            self.memory, cpus, Program(descriptor), self.listener, line_mode=True, first_touch=None
        )
        self.machine.load()
        return self.machine

    def run(
        self, code: str, places: dict[int, bytes] | None = None, *, cpus: int = 1, end: int = DONE
    ) -> EmbeddedMachine:
        """Run ``code`` followed by the regular end; the disabled wait it ends in must be ``end``."""
        machine = self.load(code + STOP, places, cpus=cpus)
        for _ in range(1000):
            if not machine.run_slice():
                break
        assert machine.stop is not None, f"still running at {machine.cpus[0].psw.address:#x}"
        assert machine.stop.psw is not None
        code_at = int.from_bytes(self.memory.read(0x8E, 2), "big")
        where = int.from_bytes(self.memory.read(0x158, 8), "big")
        assert machine.stop.psw.address == end, f"interruption {code_at:#x} at {where:#x}"
        return machine

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "big")


@pytest.fixture
def bench() -> Iterator[Bench]:
    memory = SharedMemory(4 * MIB)
    subject = Bench(memory, Listener())
    yield subject
    if subject.machine is not None:
        subject.machine.close()
    for descriptor in subject.files:
        os.close(descriptor)
    memory.close()
