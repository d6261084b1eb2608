"""A guest's console on a pseudo-terminal and on a socket."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.engine.interface import Console
from zseal.errors import OutputError, UsageError
from zseal.guest import acceptor as accepting
from zseal.guest.console_server import BACKLOG, CLIENT_LIMIT, ConsoleServer, PtyConsole, SocketConsole
from zseal.guest.events import ConsoleOutput, EventStream
from zseal.guest.guest import Guest
from zseal.guest.thread import GuestThread


class FakeGuest:
    """The parts of a guest that a console needs: its loop, its events, its keyboard."""

    def __init__(self) -> None:
        self.thread = GuestThread("test-guest")
        self.thread.start()
        self.typed = bytearray()
        self.session = SimpleNamespace(events=EventStream())
        self.engine = SimpleNamespace(write_console=self.write_console)
        self.full = False
        self.waiting: list[Callable[[], None]] = []

    def write_console(self, data: bytes, when_room: Callable[[], None]) -> None:
        self.typed.extend(data)
        if self.full:
            self.waiting.append(when_room)
        else:
            when_room()

    def has_room(self) -> None:
        self.full = False
        while self.waiting:
            self.thread.call(self.waiting.pop())

    def in_loop(self, function: Callable[[], object]) -> object:
        return self.thread.call(function)

    def says(self, data: bytes, console: Console = Console.TERMINAL) -> None:
        self.thread.call(lambda: self.session.events.add(ConsoleOutput(0.0, console, data)))

    def waits_for(self, data: bytes) -> None:
        wait_until(lambda: data in self.typed, pause=0.005)

    @property
    def guest(self) -> Guest:
        return cast(Guest, self)


@pytest.fixture
def fake() -> Iterator[FakeGuest]:
    guest = FakeGuest()
    yield guest
    guest.thread.close()


def read_until(descriptor: int, end: bytes) -> bytes:
    data = b""
    while end not in data:
        assert select.select([descriptor], [], [], PATIENCE)[0], data
        piece = os.read(descriptor, 1 << 16)
        assert piece, data
        data += piece
    return data


def test_pty_carries_both_directions_and_echoes_nothing(fake: FakeGuest) -> None:
    fake.says(b"early\r\n")
    with PtyConsole(fake.guest) as console:
        assert stat.S_IMODE(Path(console.address).stat().st_mode) == 0o600
        fake.says(b"line mode\r\n", Console.LINE_MODE)
        fake.says(b"login: ")
        terminal = os.open(console.address, os.O_RDWR | os.O_NOCTTY)
        try:
            assert read_until(terminal, b"login: ") == b"early\r\nlogin: "
            os.write(terminal, b"root\r")
            fake.waits_for(b"root\r")
            assert bytes(fake.typed) == b"root\r"
        finally:
            os.close(terminal)


def test_pty_without_reader_never_holds_up_the_guest(fake: FakeGuest) -> None:
    with PtyConsole(fake.guest) as console:
        for number in range(400):
            fake.says(b"%04d" % number * 256)
        terminal = os.open(console.address, os.O_RDWR | os.O_NOCTTY)
        try:
            assert read_until(terminal, b"0399" * 256).endswith(b"0399")
        finally:
            os.close(terminal)


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    return client


def test_socket_is_for_its_user_serves_several_and_goes_away(fake: FakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with SocketConsole(fake.guest, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        fake.says(b"before")
        with connect(path) as one, connect(path) as two:
            for client in (one, two):
                assert read_until(client.fileno(), b"before") == b"before"
            fake.says(b"login: ")
            for client in (one, two):
                assert read_until(client.fileno(), b"login: ") == b"login: "
            one.sendall(b"a")
            two.sendall(b"b")
            fake.waits_for(b"a")
            fake.waits_for(b"b")
        fake.says(b"nobody there")
        with connect(path) as three:
            assert read_until(three.fileno(), b"there") == b"beforelogin: nobody there"
    assert not path.exists()


@pytest.mark.parametrize("kind", ["pty", "socket"])
def test_no_more_is_read_than_the_guest_has_room_for(fake: FakeGuest, tmp_path: Path, kind: str) -> None:
    console: ConsoleServer = PtyConsole(fake.guest) if kind == "pty" else SocketConsole(fake.guest, tmp_path / "c")
    fake.full = True
    with console, contextlib.ExitStack() as files:
        if kind == "pty":
            user = os.open(console.address, os.O_RDWR | os.O_NOCTTY)
            files.callback(os.close, user)
        else:
            user = files.enter_context(connect(tmp_path / "c")).fileno()
        os.write(user, b"a")
        fake.waits_for(b"a")
        os.write(user, b"b")
        for _ in range(20):
            fake.in_loop(lambda: None)
        assert bytes(fake.typed) == b"a"
        fake.full = False
        fake.has_room()
        fake.waits_for(b"ab")
        fake.full = True
        os.write(user, b"c")
        fake.waits_for(b"abc")
    fake.has_room()  # to nobody's harm


def test_slow_reader_loses_the_oldest_output_only(fake: FakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with SocketConsole(fake.guest, path), connect(path) as client:
        for _ in range(20):
            fake.says(b"x" * BACKLOG)
        fake.says(b"end")
        received = read_until(client.fileno(), b"end")
    assert len(received) < 20 * BACKLOG


def test_reader_that_takes_no_more_is_dropped(fake: FakeGuest, tmp_path: Path) -> None:
    with SocketConsole(fake.guest, tmp_path / "console"), connect(tmp_path / "console") as client:
        fake.says(b"hello")
        read_until(client.fileno(), b"hello")
        for _ in range(20):
            fake.says(b"x" * BACKLOG)
        client.shutdown(socket.SHUT_RD)
        while client.recv(1 << 16):
            pass
        for _ in range(20):
            fake.in_loop(lambda: None)
        with pytest.raises(BrokenPipeError):
            client.sendall(b"x")


def test_socket_of_another_guest_is_left_alone(fake: FakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with SocketConsole(fake.guest, path):
        with pytest.raises(OutputError, match="the socket exists"), SocketConsole(fake.guest, path):
            pass
        with connect(path):
            pass
    path.write_text("a file")
    with pytest.raises(OutputError, match="the socket exists"), SocketConsole(fake.guest, path):
        pass
    assert path.read_text() == "a file"


def test_socket_that_nobody_listens_on_is_replaced(fake: FakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with SocketConsole(fake.guest, path), connect(path):
        pass


def test_socket_needs_a_short_path_and_a_folder(fake: FakeGuest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than"), SocketConsole(fake.guest, tmp_path / ("x" * 120)):
        pass
    with pytest.raises(OutputError, match="No such file"), SocketConsole(fake.guest, tmp_path / "none" / "x"):
        pass


def test_number_of_clients_is_limited(fake: FakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with SocketConsole(fake.guest, path), contextlib.ExitStack() as clients:
        fake.says(b"hello")
        for _ in range(CLIENT_LIMIT):
            read_until(clients.enter_context(connect(path)).fileno(), b"hello")
        assert clients.enter_context(connect(path)).recv(100) == b""


def test_loop_does_not_spin_while_nobody_can_be_let_in(
    fake: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[None] = []

    def no_descriptors_left(_listener: socket.socket) -> NoReturn:
        tried.append(None)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(accepting, "RETRY_SECONDS", 60.0)
    with SocketConsole(fake.guest, tmp_path / "console"):
        monkeypatch.setattr(socket.socket, "accept", no_descriptors_left)
        with connect(tmp_path / "console"):
            for _ in range(20):
                fake.in_loop(lambda: None)
        monkeypatch.undo()
    assert len(tried) == 1


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["pty", "socket"])
def test_consoles_leave_no_descriptor_behind(fake: FakeGuest, tmp_path: Path, kind: str) -> None:
    before = open_descriptors()
    for _ in range(3):
        console: ConsoleServer = PtyConsole(fake.guest) if kind == "pty" else SocketConsole(fake.guest, tmp_path / "c")
        with console:
            fake.says(b"x")
    assert open_descriptors() == before
