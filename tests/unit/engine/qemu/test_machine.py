"""A QEMU that starts and says nothing is waited for once, and killed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu import launch, process
from zseal.engine.qemu.launch import start_qemu
from zseal.engine.qemu.process import OwnProcess
from zseal.engine.qemu.qmp import Qmp

SILENT = "exec sleep 1000"
TELLS_VERSION = f'[ "$1" = -version ] && echo "QEMU emulator version 7.2.22" && exit; {SILENT}'
Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(text: str) -> str:
        path = tmp_path / "qemu"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return str(path)

    return write


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[OwnProcess]:
    """Return the processes that were started; none of them may be waited for."""
    found: list[OwnProcess] = []

    class Watched(OwnProcess):
        def collect(self) -> bool:
            if self not in found:
                found.append(self)
            return super().collect()

        def wait(self, timeout: float | None = None) -> int | None:
            raise AssertionError("it was waited for once more")

    monkeypatch.setattr(launch, "OwnProcess", Watched)
    monkeypatch.setattr(launch, "Qmp", functools.partial(Qmp, timeout=0.1))
    return found


def start(program: str) -> None:
    memory = SharedMemory(MIB)
    try:
        start_qemu(MachineConfig(kernel=None, memory=MIB), memory, traps=False, program=program)
    finally:
        memory.close()


def test_a_qemu_that_does_not_answer_is_killed_at_once(program: Program, started: list[OwnProcess]) -> None:
    with pytest.raises(EngineError, match="QEMU did not start: QEMU did not answer for"):
        start(program(TELLS_VERSION))
    assert [each.pidfd for each in started] == [-1]


def test_a_qemu_that_does_not_tell_its_version_is_not_even_started(
    program: Program, started: list[OwnProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_VERSION_SECONDS", 0.1)
    with pytest.raises(EngineError, match="QEMU did not start: it did not print its version"):
        start(program(SILENT))
    assert started == []
