"""The consoles of a QEMU that has nothing else: all that is typed reaches it, all it writes is passed on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from zseal.arch.storage import MIB
from zseal.engine.consoleinput import INPUT_LIMIT
from zseal.engine.interface import Console, EngineListener
from zseal.engine.qemu.consoles import Consoles


class Setting:
    """Consoles and their loop, and QEMU's end (``qemu``) of the terminal."""

    def __init__(self) -> None:
        self.ours, self.qemu = socket.socketpair()
        for end in (self.ours, self.qemu):
            end.setblocking(False)
        self.loop = asyncio.new_event_loop()
        self.heard: list[tuple[Console, bytes]] = []
        listener = SimpleNamespace(console=lambda console, data: self.heard.append((console, data)))
        self.consoles = Consoles({Console.TERMINAL: self.ours}, self.loop, cast("EngineListener", listener))
        self.consoles.start()

    def turn(self) -> None:
        """Let the loop look once at all that is ready."""
        self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.loop.close()
    made.ours.close()
    made.qemu.close()


def test_qemu_is_given_all_as_it_takes_it(setting: Setting) -> None:
    told: list[int] = []
    text = bytes(range(256)) * (MIB // 256)
    setting.consoles.type(text, lambda: told.append(setting.consoles.waiting))
    assert not told
    received = bytearray()
    while len(received) < len(text):
        received += setting.qemu.recv(1 << 16)
        setting.turn()
    assert received == text
    assert len(told) == 1
    assert told[0] <= INPUT_LIMIT
    assert not setting.loop.remove_writer(setting.ours)


@pytest.mark.parametrize("end", ["of the guest", "of QEMU"])
def test_what_is_typed_after_the_end_is_dropped(setting: Setting, end: str) -> None:
    told: list[str] = []
    setting.consoles.type(bytes(MIB), lambda: told.append("room"))
    if end == "of QEMU":
        setting.qemu.close()
    else:
        setting.consoles.finish()
        setting.qemu.recv(MIB)
    setting.turn()
    assert told == ["room"]
    assert not setting.loop.remove_writer(setting.ours)  # which would keep the loop busy
    setting.consoles.type(bytes(MIB), lambda: told.append("dropped"))
    assert told == ["room", "dropped"]
    assert setting.consoles.waiting == 0


def test_the_last_words_are_passed_on(setting: Setting) -> None:
    setting.qemu.sendall(b"one")
    setting.turn()
    setting.qemu.sendall(b"two")
    setting.consoles.finish()
    assert setting.heard == [(Console.TERMINAL, b"one"), (Console.TERMINAL, b"two")]


def test_a_console_that_ends_is_read_no_longer(setting: Setting) -> None:
    setting.qemu.close()
    setting.turn()
    assert not setting.loop.remove_reader(setting.ours)
    assert setting.heard == []
