"""The user's own terminal as a guest's console."""

from __future__ import annotations

import os
import pty
import queue
import termios
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.waiting import PATIENCE
from zseal.cli.keyboard import Keyboard, RawTerminal


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the user's, the program's."""
    user, program = pty.openpty()
    yield user, program
    os.close(user)
    os.close(program)


def test_terminal_is_raw_only_inside(terminal: tuple[int, int]) -> None:
    _, program = terminal
    before = termios.tcgetattr(program)
    with RawTerminal(program):
        inside = termios.tcgetattr(program)
        assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        assert not inside[0] & termios.ICRNL
        assert inside[1] & termios.OPOST
    assert termios.tcgetattr(program) == before


def test_keys_go_to_the_guest_until_the_escape_key(terminal: tuple[int, int]) -> None:
    user, program = terminal
    typed, left = bytearray(), threading.Event()

    def write(data: bytes, when_room: Callable[[], None]) -> None:
        typed.extend(data)  # there is no room, but an escape key

    with RawTerminal(program), Keyboard(program, write, left.set):
        os.write(user, b"root\r\x03")
        os.write(user, b"x\x1dnot this")
        assert left.wait(PATIENCE)
    assert bytes(typed) == b"root\r\x03x"


def test_pipes_have_no_escape_key_and_an_end() -> None:
    reader, writer = os.pipe()
    typed, left, done = bytearray(), threading.Event(), threading.Event()

    def write(data: bytes, when_room: Callable[[], None]) -> None:
        typed.extend(data)
        when_room()
        done.set()

    try:
        with Keyboard(reader, write, left.set):
            os.write(writer, b"a\x1db")
            os.close(writer)
            assert done.wait(PATIENCE)
    finally:
        os.close(reader)
    assert bytes(typed) == b"a\x1db"
    assert not left.is_set()


def test_reading_ends_with_the_session_though_nothing_is_typed(terminal: tuple[int, int]) -> None:
    typed: list[bytes] = []
    with Keyboard(terminal[1], lambda data, _: typed.append(data), typed.clear):
        pass
    assert not typed


def test_pipes_are_read_as_the_guest_has_room() -> None:
    reader, writer = os.pipe()
    written: queue.SimpleQueue[tuple[bytes, Callable[[], None]]] = queue.SimpleQueue()
    piece = b"x" * (1 << 12)
    try:
        os.write(writer, piece * 3)
        with Keyboard(reader, lambda data, when_room: written.put((data, when_room)), lambda: None):
            for _ in range(3):
                data, when_room = written.get(timeout=PATIENCE)
                assert data == piece
                assert written.empty()
                when_room()
            os.write(writer, b"more")
            data, _ = written.get(timeout=PATIENCE)
            assert data == b"more"
            os.write(writer, b"not read")  # nor does the session wait for room at its end
    finally:
        os.close(writer)
        left = os.read(reader, 100)
        os.close(reader)
    assert left == b"not read"
