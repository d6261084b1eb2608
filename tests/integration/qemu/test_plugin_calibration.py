"""Calibration of the plugin before a guest begins: it works whatever is in storage, and leaves nothing behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.arch import lowcore
from zseal.arch.psw import MASK_64BIT, PROBLEM_STATE, PSW_SIZE, WAIT, Psw
from zseal.arch.storage import MIB
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu import plugin
from zseal.engine.qemu import plugin_calibration as calibration
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.engine import QemuEngine
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

Start = Callable[..., Guest]
State = dict[str, object]
DISABLED_WAIT = Psw(MASK_64BIT | WAIT, lowcore.PROGRAM_NEW_PSW)


def state(cpu: QemuCpu, memory: SharedMemory) -> State:
    found: State = {"psw": cpu.psw, "storage": hashlib.sha256(memory.read(0, memory.size)).hexdigest()}
    for number in range(16):
        found |= {f"gr{number}": cpu.gr(number), f"cr{number}": cpu.cr(number), f"ar{number}": cpu.ar(number)}
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[State, State, int]]:
    """Return, for each guest that was started, its state before and after, and how many instructions it executed."""
    seen: list[tuple[State, State, int]] = []
    steps: list[int] = []
    step = QemuCpu.step

    def counted(cpu: QemuCpu) -> None:
        steps.append(cpu.psw.address)
        step(cpu)

    def watched(cpu: QemuCpu, memory: SharedMemory) -> None:
        before = state(cpu, memory)
        steps.clear()
        calibration.calibrate(cpu, memory)
        number = len(steps)
        cpu._gdb.command(*cpu.pending())
        seen.append((before, state(QemuCpu(cpu._gdb, cpu._registers, memory, cpu.thread, 0), memory), number))

    monkeypatch.setattr(QemuCpu, "step", counted)
    monkeypatch.setattr(plugin, "calibrate", watched)
    return seen


def calls_by(guest: Guest) -> object:
    assert isinstance(guest.engine, QemuEngine)
    return guest.engine.statistics()["calls_by"]


@pytest.mark.parametrize("cpus", [1, 2])
def test_registers_and_storage_are_as_before(start: Start, seen: list[tuple[State, State, int]], cpus: int) -> None:
    with start("hello uvc=4242,8", cpus=cpus) as guest:
        guest.wait(PATIENCE)
        assert calls_by(guest) == "lock"
    ((before, after, steps),) = seen
    assert after == before
    assert steps == 5


def test_an_image_whose_interruptions_end_in_a_disabled_wait(
    seal: Callable[..., Path], machine: Machine, seen: list[tuple[State, State, int]]
) -> None:
    """As those of a kernel do before it begins: a CPU that waits would end no step."""
    image = seal("hello")
    data = bytearray(image.read_bytes())
    data[lowcore.PROGRAM_NEW_PSW : lowcore.PROGRAM_NEW_PSW + PSW_SIZE] = DISABLED_WAIT.pack()
    image.write_bytes(data)
    with Guest(image, machine=machine, memory=64 * MIB, timeout=PATIENCE) as guest:
        result = guest.wait(PATIENCE)
        assert calls_by(guest) == "lock"
    assert result is not None
    assert result.outcome is Outcome.POWEROFF, result.message
    ((before, after, steps),) = seen
    assert after == before
    assert steps == 5


@pytest.mark.parametrize("example", range(5))
def test_without_one_of_the_examples_translations_are_watched(
    start: Start, monkeypatch: pytest.MonkeyPatch, example: int
) -> None:
    monkeypatch.setattr(
        calibration, "_EXAMPLES", calibration._EXAMPLES[:example] + calibration._EXAMPLES[example + 1 :]
    )
    assert_translations_are_watched(start)


@pytest.mark.parametrize("example", [1, 2, 3])
def test_an_instruction_that_takes_no_lock_teaches_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, example: int
) -> None:
    """In the problem state they are privileged operations, and the lock is taken for the exception."""
    refused = Psw(calibration._BEFORE.mask | PROBLEM_STATE, calibration._BEFORE.address)
    step = QemuCpu.step
    count = 0

    def step_refused(cpu: QemuCpu) -> None:
        nonlocal count
        if count == example:
            cpu.psw = refused
        count += 1
        step(cpu)

    monkeypatch.setattr(QemuCpu, "step", step_refused)
    assert_translations_are_watched(start)


def assert_translations_are_watched(start: Start) -> None:
    with start("hello uvc=4242,8") as guest:
        result = guest.wait(PATIENCE)
        console = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput))
        assert calls_by(guest) == "translations"
    assert result is not None
    assert result.outcome is Outcome.POWEROFF, result.message
    assert b"uvc 4242 cc=1 rc=0002 rrc=0000" in console
