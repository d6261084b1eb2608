"""The engine in its event loop: start, pause, console, ends, and what it gives back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zseal.arch.storage import MIB
from zseal.engine.consoleinput import INPUT_LIMIT
from zseal.engine.devices import Disk
from zseal.engine.embedded import EmbeddedEngine
from zseal.engine.errors import EngineError
from zseal.engine.interface import Action, Console, Milestone, StopKind, Trap
from zseal.engine.machine import MachineConfig
from zseal.errors import MissingDependencyError, UsageError
from zseal.testguest import kernel

if TYPE_CHECKING:
    from tests.unit.engine.embedded.conftest import Bench, Listener


class Runner:
    """An engine with the test guest, unprotected, and a loop to run it in."""

    def __init__(self, path: Path, listener: Listener) -> None:
        path.write_bytes(kernel())
        self.kernel = os.open(path, os.O_RDONLY)
        self.loop = asyncio.new_event_loop()
        self.listener = listener
        self.engine: EmbeddedEngine | None = None

    def start(self, words: str, *, cpus: int = 1) -> EmbeddedEngine:
        self.engine = EmbeddedEngine(self.kernel, memory=4 * MIB, cpus=cpus, cmdline=words)
        self.engine.start(self.loop, self.listener)
        return self.engine

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def run_to_end(self) -> None:
        for _ in range(2000):
            if self.listener.stops:
                return
            self.run(0.005)
        raise AssertionError(f"not ended: {self.listener.output}")

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.loop.close()
        os.close(self.kernel)


@pytest.fixture
def runner(tmp_path: Path, bench: Bench) -> Iterator[Runner]:
    subject = Runner(tmp_path / "kernel", bench.listener)
    yield subject
    subject.close()


def test_an_unprotected_guest_runs_to_its_power_off(runner: Runner) -> None:
    engine = runner.start("hello facility=158 poweroff")
    runner.run_to_end()
    assert runner.listener.output[Console.TERMINAL].split(b"\r\n")[:2] == [
        b"zseal-test-guest: hello",
        b"zseal-test-guest: facility 158 no",
    ]
    assert [stop.kind for stop in runner.listener.stops] == [StopKind.POWEROFF]
    assert runner.listener.milestones == [Milestone.IMAGE_ENTRY]
    assert engine.statistics()["traps"] == 1
    engine.end()
    engine.close()
    engine.close()
    assert len(runner.listener.stops) == 1


def test_a_waiting_guest_costs_nothing_and_wakes_up(runner: Runner) -> None:
    engine = runner.start("say=ready nap=400 hello poweroff")
    while b"ready" not in runner.listener.output[Console.TERMINAL]:
        runner.run(0.01)
    runner.run(0.1)
    slices = engine.statistics()["slices"]
    runner.run(0.03)
    assert engine.statistics()["slices"] == slices
    runner.run_to_end()
    assert b"hello" in runner.listener.output[Console.TERMINAL]


def test_a_paused_guest_stands_still(runner: Runner) -> None:
    engine = runner.start("loop")
    runner.run(0.05)
    engine.pause()
    engine.pause()
    slices = engine.statistics()["slices"]
    runner.run(0.03)
    assert engine.statistics()["slices"] == slices
    engine.resume()
    runner.run(0.05)
    after = engine.statistics()["slices"]
    assert isinstance(after, int)
    assert isinstance(slices, int)
    assert after > slices
    engine.end()
    assert [stop.kind for stop in runner.listener.stops] == [StopKind.CLOSED]


def test_typing_wakes_the_loop(runner: Runner) -> None:
    engine = runner.start("wait")
    runner.run(0.05)
    slices = engine.statistics()["slices"]
    engine.write_console(b"x")
    runner.run(0.03)
    assert engine.statistics()["slices"] != slices


def test_what_is_typed_after_the_end_is_dropped(runner: Runner) -> None:
    engine = runner.start("wait")
    told: list[str] = []
    engine.write_console(b"x" * (INPUT_LIMIT + 1), lambda: told.append("room"))
    assert not told
    engine.end()
    assert told == ["room"]
    engine.write_console(b"x" * (INPUT_LIMIT + 1), lambda: told.append("dropped"))
    assert told == ["room", "dropped"]


def test_an_error_of_the_listener_ends_the_machine(runner: Runner) -> None:
    def fail(trap: Trap) -> Action:
        raise ZeroDivisionError("ours")

    runner.listener.answer = fail
    runner.start("facility poweroff")
    runner.run_to_end()
    assert [type(error) for error in runner.listener.errors] == [ZeroDivisionError]
    assert [stop.kind for stop in runner.listener.stops] == [StopKind.LOST]


def test_a_reboot_loads_the_image_again(runner: Runner) -> None:
    engine = runner.start("hello reboot")
    for _ in range(500):
        runner.run(0.01)
        if runner.listener.resets >= 3:
            break
    engine.end()
    assert runner.listener.resets >= 3
    assert runner.listener.output[Console.TERMINAL].count(b"hello") >= 3


def test_a_second_cpu_runs(runner: Runner) -> None:
    runner.start("cpu poweroff", cpus=2)
    runner.run_to_end()
    assert b"cpu 1 prefix=0x6000 query program=0001" in runner.listener.output[Console.TERMINAL]


def test_linux_is_refused_before_it_runs(runner: Runner, tmp_path: Path) -> None:
    data = bytearray(kernel())
    data[0x10428:0x10430] = (0x13000).to_bytes(8, "big")
    data[0x13000:0x13008] = b"6.1.0-x\0"
    (tmp_path / "linux").write_bytes(data)
    descriptor = os.open(tmp_path / "linux", os.O_RDONLY)
    engine = EmbeddedEngine(descriptor, memory=4 * MIB)
    try:
        with pytest.raises(EngineError, match=r'^Linux 6\.1\.0-x needs QEMU: .*; use `engine="qemu"`$'):
            engine.start(runner.loop, runner.listener)
    finally:
        engine.close()
        os.close(descriptor)


def test_bad_configurations_are_refused(runner: Runner) -> None:
    with pytest.raises(UsageError, match="1 to 8 CPUs"):
        EmbeddedEngine(runner.kernel, memory=4 * MIB, cpus=9)
    engine = EmbeddedEngine(runner.kernel, memory=4 * MIB, cmdline="x" * 5000)
    with pytest.raises(EngineError, match="characters of command line"):
        engine.start(runner.loop, runner.listener)
    engine.close()


def test_a_machine_for_qemu_is_refused_by_what_it_has(runner: Runner) -> None:
    plain = MachineConfig(kernel=runner.kernel, memory=4 * MIB, cmdline="hello poweroff")
    engine = EmbeddedEngine.for_machine(plain)
    engine.start(runner.loop, runner.listener)
    runner.run_to_end()
    engine.close()
    for changed, what in (
        (dataclasses.replace(plain, disks=(Disk("disk.img"),)), "disks"),
        (dataclasses.replace(plain, extra=("-nodefaults",)), "QEMU arguments"),
        (dataclasses.replace(plain, kernel=None), "boot from a disk"),
    ):
        with pytest.raises(UsageError, match=f"{what}.*use `engine=.qemu.`"):
            EmbeddedEngine.for_machine(changed)


def test_without_unicorn_it_says_what_to_install(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "unicorn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'zseal\[fast\]'"):
        EmbeddedEngine(runner.kernel, memory=4 * MIB)


def test_a_hundred_machines_leave_nothing_behind(runner: Runner) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    runner.start("hello poweroff").close()
    before = descriptors()
    for _ in range(100):
        runner.listener.stops.clear()
        engine = EmbeddedEngine(runner.kernel, memory=4 * MIB, cmdline="poweroff")
        engine.start(runner.loop, runner.listener)
        runner.run(0.001)
        engine.close()
    assert descriptors() == before
