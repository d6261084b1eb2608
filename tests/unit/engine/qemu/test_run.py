"""The end of QEMU, as its run reports it: how it ended, and its last words."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from zseal.engine.errors import EngineLostError
from zseal.engine.interface import EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.ownership import MachineOwner
from zseal.engine.qemu.process import QemuProcess
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.run import PlainRun

ASSERTION = "../hw/virtio/virtio-qmp.c:698: qmp_decode_features: Assertion `bitmap == 0' failed."


class FakeProcess(QemuProcess):
    """A QEMU that ended with ``status`` (None: it did not) and wrote ``text``."""

    def __init__(self, status: int | None, text: str) -> None:
        super().__init__(os.getpid(), None)
        self.status, self.text = status, text

    def collect(self) -> bool:
        return False

    def messages(self) -> str:
        return self.text

    def wait(self, timeout: float | None = None) -> int | None:
        return self.status

    def kill(self) -> int:
        os.close(self.pidfd)
        return 0


class FakeQmp:
    """Has ``reported`` before it is lost."""

    version = (7, 2, 0)

    def __init__(self, *reported: QmpEvent) -> None:
        self.reported = list(reported)
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def events(self) -> list[QmpEvent]:
        if not self.reported:
            raise EngineLostError("QEMU closed its control connection")
        found, self.reported = self.reported, []
        return found

    def execute(self, command: str) -> None:
        raise EngineLostError("QEMU closed its control connection")


class Rig:
    def __init__(self, status: int | None, text: str = "", *reported: QmpEvent) -> None:
        self.stops: list[Stop] = []
        self.process = FakeProcess(status, text)
        self.qmp = FakeQmp(*reported)
        machine = SimpleNamespace(
            process=self.process, qmp=self.qmp, consoles={}, notice="", await_last_words=lambda: None
        )
        listener = SimpleNamespace(stopped=self.stops.append)
        self.loop = asyncio.new_event_loop()
        self.run = PlainRun(
            cast(QemuMachine, machine),
            cast(SharedMemory, None),
            self.loop,
            cast(EngineListener, listener),
            MachineOwner,
        )

    def lose(self) -> Stop:
        self.run.guarded(self.run.read_events)
        if not self.stops:
            self.run.guarded(self.run.read_events)
        (stop,) = self.stops
        return stop


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.loop.remove_reader(rig.qmp.fileno())
        rig.loop.remove_reader(rig.process.pidfd)
        rig.process.kill()
        rig.qmp.close()
        rig.loop.close()


@pytest.mark.parametrize(
    ("status", "text", "detail"),
    [
        (-6, f"qemu-system-s390x: {ASSERTION}\n", f"QEMU was killed by signal 6: {ASSERTION}"),
        (1, "qemu-system-s390x: no such thing\nUse -help\n", "QEMU ended with exit code 1: no such thing"),
        (1, "", "QEMU ended with exit code 1"),
        (-9, "qemu-system-s390x: warning: slow disk\n", "QEMU was killed by signal 9"),
        (0, f"first\n{ASSERTION}\n", f"QEMU ended: {ASSERTION}"),
        (None, "qemu-system-s390x: stuck\n", "QEMU closed its control connection: stuck"),
    ],
)
def test_a_lost_qemu_has_the_last_word(rigs: list[Rig], status: int | None, text: str, detail: str) -> None:
    rigs.append(Rig(status, text))
    assert rigs[0].lose() == Stop(StopKind.LOST, detail)


def test_what_qemu_reported_before_its_end_is_the_end(rigs: list[Rig]) -> None:
    rigs.append(Rig(-9, "killed\n", QmpEvent("SHUTDOWN", {"reason": "guest-shutdown"})))
    assert rigs[0].lose() == Stop(StopKind.POWEROFF)


def test_a_qemu_that_dies_at_its_first_instruction_has_the_last_word_too(rigs: list[Rig]) -> None:
    rigs.append(Rig(-6, f"qemu-system-s390x: {ASSERTION}\n"))
    with pytest.raises(EngineLostError, match=r"killed by signal 6: .*Assertion"):
        rigs[0].run.begin()


@pytest.mark.parametrize("log", [True, False])
def test_of_libvirts_log_only_the_words_of_qemu_count(tmp_path: Path, log: bool) -> None:
    from zseal.engine.libvirt.machine import words_of_qemu

    text = [
        "2026-01-02 03:04:05.678+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22",
        "LC_ALL=C \\",
        "-msg timestamp=on",
        "char device redirected to /dev/pts/3 (label charconsole0)",
        f"2026-01-02T03:04:06.000000Z qemu-system-s390x: {ASSERTION}" if log else "",
        "2026-01-02 03:04:07.678+0000: shutting down, reason=crashed",
    ]
    assert words_of_qemu("\n".join(text)) == (f"qemu-system-s390x: {ASSERTION}" if log else "")
