"""What is typed at a guest: all of it is delivered, and who types is told when there is room."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from zseal.arch.storage import MIB
from zseal.engine.consoleinput import INPUT_LIMIT, ConsoleInput
from zseal.engine.interface import Console
from zseal.engine.qemu.commandline import MachineConfig
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.machine import QemuMachine


def test_there_is_room_while_little_waits() -> None:
    waiting, told = ConsoleInput(), list[str]()
    waiting.add(b"a" * INPUT_LIMIT, lambda: told.append("first"))
    assert told == ["first"]
    waiting.add(b"bc", lambda: told.append("second"))
    assert waiting.take(1) == b"a"
    assert told == ["first"]
    assert waiting.take(1) == b"a"
    assert told == ["first", "second"]
    assert waiting.take(MIB) == b"a" * (INPUT_LIMIT - 2) + b"bc"


def test_who_is_told_may_add_more() -> None:
    waiting = ConsoleInput()
    waiting.add(b"a", lambda: waiting.add(b"b"))
    assert waiting.take(2) == b"ab"


def test_nothing_waits_behind_the_end() -> None:
    waiting, told = ConsoleInput(), list[str]()
    waiting.add(b"a" * (INPUT_LIMIT + 1), lambda: told.append("end"))
    waiting.close()
    assert told == ["end"]
    waiting.add(b"a" * (INPUT_LIMIT + 1), lambda: told.append("dropped"))
    assert told == ["end", "dropped"]
    assert not waiting


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a console: the engine's, QEMU's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def engine(ends: tuple[socket.socket, socket.socket]) -> Iterator[QemuEngine]:
    """An engine in front of a QEMU that has nothing but a console."""
    engine = QemuEngine(MachineConfig(kernel=None, memory=MIB), entry=None)
    engine._loop = asyncio.new_event_loop()
    idle = SimpleNamespace(fileno=lambda: -1)

    def ignore(release: object) -> None: ...

    engine._machine = cast(
        QemuMachine,
        SimpleNamespace(consoles={Console.TERMINAL: ends[0]}, qmp=idle, gdb=None, end=ignore, close=ignore),
    )
    yield engine
    engine.close()
    engine._loop.close()


def turn(engine: QemuEngine) -> None:
    """Let the engine's loop look once at all that is ready."""
    assert engine._loop is not None
    engine._loop.run_until_complete(asyncio.sleep(0))


def test_qemu_is_given_all_as_it_takes_it(engine: QemuEngine, ends: tuple[socket.socket, socket.socket]) -> None:
    told: list[int] = []
    text = bytes(range(256)) * (MIB // 256)
    engine.write_console(text, lambda: told.append(len(engine._input)))
    assert not told
    received = bytearray()
    while len(received) < len(text):
        received += ends[1].recv(1 << 16)
        turn(engine)
    assert received == text
    assert len(told) == 1
    assert told[0] <= INPUT_LIMIT
    assert engine._loop is not None
    assert not engine._loop.remove_writer(ends[0])


@pytest.mark.parametrize("end", ["of the guest", "of QEMU"])
def test_what_is_typed_after_the_end_is_dropped(
    engine: QemuEngine, ends: tuple[socket.socket, socket.socket], end: str
) -> None:
    told: list[str] = []
    engine.write_console(bytes(MIB), lambda: told.append("room"))
    if end == "of QEMU":
        ends[1].close()
    else:
        engine.end()
        ends[1].recv(MIB)
    turn(engine)
    assert told == ["room"]
    assert engine._loop is not None
    assert not engine._loop.remove_writer(ends[0])  # which would keep the loop busy
    engine.write_console(bytes(MIB), lambda: told.append("dropped"))
    assert told == ["room", "dropped"]
    assert not engine._input
