"""A guest's console for other programs: a pseudo-terminal or a Unix socket, like QEMU's ``-serial pty`` and socket.

A client sees the latest output first, then what follows. Clients are optional: a reader that does not keep up, or is
gone, loses the oldest output and never delays the guest.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import functools
import os
import socket
import stat
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Self

from zseal.engine.interface import Console
from zseal.errors import OutputError, UsageError
from zseal.guest.acceptor import Acceptor
from zseal.guest.events import ConsoleOutput, Event
from zseal.guest.guest import Guest

BACKLOG = 64 << 10
"""Bytes of output kept for a missing or slow reader."""
CLIENT_LIMIT = 8
_PIECE = 1 << 12
_PATH_LIMIT = 107  # bytes in sun_path without its end, unix(7)


class _Reader:
    """One reader of the console on a non-blocking descriptor, in the guest's loop; ``gone`` is called at its end.

    Its input is typed at the console, and only as much is read from it as the guest takes.
    """

    def __init__(
        self, guest: Guest, loop: asyncio.AbstractEventLoop, descriptor: int, gone: Callable[[], None]
    ) -> None:
        self._guest = guest
        self._loop = loop
        self.descriptor = descriptor
        self._gone = gone
        self._backlog = bytearray()
        self._waiting = False
        self._forgotten = False
        self._listen()

    def send(self, data: bytes) -> None:
        """Pass on ``data`` as far as the reader takes it, and keep the end of the rest; raises OSError."""
        self._backlog += data
        with contextlib.suppress(BlockingIOError):
            while self._backlog:
                del self._backlog[: os.write(self.descriptor, self._backlog)]
        del self._backlog[:-BACKLOG]
        if bool(self._backlog) != self._waiting:
            self._waiting = bool(self._backlog)
            if self._waiting:
                self._loop.add_writer(self.descriptor, self._go_on)
            else:
                self._loop.remove_writer(self.descriptor)

    def _go_on(self) -> None:
        try:
            self.send(b"")
        except OSError:
            self._gone()

    def _listen(self) -> None:
        if not self._forgotten:
            self._loop.add_reader(self.descriptor, self._receive)

    def _receive(self) -> None:
        try:
            data = os.read(self.descriptor, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        self._loop.remove_reader(self.descriptor)
        self._guest.engine.write_console(data, when_room=self._listen)

    def forget(self) -> None:
        """Stop watching the descriptor."""
        self._forgotten = True
        self._loop.remove_reader(self.descriptor)
        self._loop.remove_writer(self.descriptor)


class ConsoleServer(abc.ABC):
    """Offers the console of a started guest at ``address``, until the end of a ``with`` block."""

    address: str

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._open = False

    def __enter__(self) -> Self:
        self._guest.in_loop(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._guest.in_loop(self._end)

    def _begin(self) -> None:
        self._open = True
        self._start(asyncio.get_running_loop())
        stream = self._guest.session.events
        for event in stream.read(0):
            self._follow(event)
        stream.follow(self._follow)

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._stop()

    def _follow(self, event: Event) -> None:
        if self._open and isinstance(event, ConsoleOutput) and event.console is Console.TERMINAL:
            self._output(event.data)

    @abc.abstractmethod
    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the place to which others connect."""

    @abc.abstractmethod
    def _stop(self) -> None:
        """Close it, after delivering what can be delivered immediately."""

    @abc.abstractmethod
    def _output(self, data: bytes) -> None:
        """Pass on the guest's output."""


class PtyConsole(ConsoleServer):
    """A pseudo-terminal in raw mode, for its user alone; ``address`` is its device file."""

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            master, self._slave = os.openpty()
        except OSError as error:
            raise OutputError(f"cannot open a pseudo-terminal: {error.strerror}") from error
        tty.setraw(self._slave)  # held open, so that output waits without a reader and nothing is echoed to the guest
        os.fchmod(self._slave, 0o600)
        os.set_blocking(master, False)
        self.address = os.ttyname(self._slave)
        self._reader = _Reader(self._guest, loop, master, self._gone)

    def _gone(self) -> None:
        self._reader.forget()

    def _stop(self) -> None:
        self._reader.forget()
        os.close(self._reader.descriptor)
        os.close(self._slave)

    def _output(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._reader.send(data)


class SocketConsole(ConsoleServer):
    """A Unix stream socket at ``path``, which only its user can connect to and which is removed at the end."""

    def __init__(self, guest: Guest, path: Path) -> None:
        super().__init__(guest)
        self.address = str(path)
        self._path = path
        self._tail = bytearray()
        self._clients: dict[int, tuple[socket.socket, _Reader]] = {}

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
            self._listener.listen(CLIENT_LIMIT)
            self._identity = self._path.lstat()
        except BaseException:
            self._listener.close()
            raise
        self._listener.setblocking(False)
        self._acceptor = Acceptor(self._listener, self._welcome)
        self._acceptor.start(loop)

    def _bind(self) -> None:
        if len(os.fsencode(self._path)) > _PATH_LIMIT:
            raise UsageError(f"the socket's path is longer than {_PATH_LIMIT} bytes", where=self.address)
        self._remove_dead()
        os.fchmod(self._listener.fileno(), 0o600)  # before it has a name, because bind gives the file this mode
        try:
            self._listener.bind(self.address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OutputError("the socket exists", where=self.address, hint="choose another name") from error
            raise OutputError(f"cannot create the socket: {error.strerror}", where=self.address) from error

    def _remove_dead(self) -> None:
        """Remove a socket on which no process listens any longer."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(self.address)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                self._path.unlink()
        except OSError:
            pass  # none exists, or bind will report it

    def _welcome(self, client: socket.socket) -> None:
        if len(self._clients) >= CLIENT_LIMIT:
            client.close()
            return
        client.setblocking(False)
        number = client.fileno()
        reader = _Reader(self._guest, self._loop, number, functools.partial(self._drop, number))
        self._clients[number] = client, reader
        self._send(number, bytes(self._tail))

    def _send(self, number: int, data: bytes) -> None:
        try:
            self._clients[number][1].send(data)
        except OSError:
            self._drop(number)

    def _drop(self, number: int) -> None:
        client, reader = self._clients.pop(number)
        reader.forget()
        client.close()

    def _output(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-BACKLOG]
        for number in list(self._clients):
            self._send(number, data)

    def _stop(self) -> None:
        for number in list(self._clients):
            self._drop(number)
        self._acceptor.stop()
        self._listener.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(self._path.lstat(), self._identity):
                self._path.unlink()


def parse_console(text: str) -> Callable[[Guest], ConsoleServer]:
    """Return a function that makes the server for ``pty`` or ``socket:PATH``; raises UsageError."""
    kind, _, path = text.partition(":")
    if text == "pty":
        return PtyConsole
    if kind == "socket" and path:
        return functools.partial(SocketConsole, path=Path(path))
    raise UsageError(f"{text!r} is not a console", hint="use stdio, pty or socket:PATH")
