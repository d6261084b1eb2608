"""A pseudo-terminal as a socket: nothing is lost at its end, nothing is left behind."""

from __future__ import annotations

import os
import select
import socket
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.engine.libvirt.pty_socket import Terminal

TEXT = bytes(range(256)) * 4096


@pytest.fixture
def pair() -> Iterator[tuple[int, Terminal]]:
    """QEMU's side, and ours."""
    master, slave = os.openpty()
    terminal = Terminal(os.ttyname(slave))
    os.close(slave)
    terminal.socket.settimeout(PATIENCE)
    yield master, terminal
    terminal.socket.close()
    terminal._thread.join(PATIENCE)


def received(connection: socket.socket) -> bytes:
    found = bytearray()
    while data := connection.recv(1 << 16):
        found += data
    return bytes(found)


def send(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.close(descriptor)


def test_what_came_before_the_end_is_all_there(pair: tuple[int, Terminal]) -> None:
    master, terminal = pair
    os.write(master, b"last words\r\n")
    assert select.select([terminal.socket], [], [], PATIENCE)[0]
    os.close(master)
    terminal._thread.join(PATIENCE)
    assert not terminal._thread.is_alive()
    assert received(terminal.socket) == b"last words\r\n"


def test_all_bytes_come_as_they_are_however_many(pair: tuple[int, Terminal]) -> None:
    master, terminal = pair
    writer = threading.Thread(target=send, args=(os.dup(master), TEXT), daemon=True)
    writer.start()
    found = bytearray()
    while len(found) < len(TEXT):
        found += terminal.socket.recv(1 << 16)
    os.close(master)
    assert found == TEXT
    assert received(terminal.socket) == b""


def test_what_is_typed_arrives(pair: tuple[int, Terminal]) -> None:
    master, terminal = pair
    terminal.socket.sendall(b"\x03typed\n")
    found = b""
    while len(found) < 7:
        found += os.read(master, 100)
    assert found == b"\x03typed\n"
    os.close(master)


def test_it_ends_with_the_console_where_qemu_goes_on(pair: tuple[int, Terminal]) -> None:
    master, terminal = pair
    terminal.socket.close()
    os.write(master, b"nobody reads that")
    terminal._thread.join(PATIENCE)
    assert not terminal._thread.is_alive()
    os.close(master)


def test_what_is_no_terminal_is_refused_and_closed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(termios.error):
        Terminal(str(file))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
