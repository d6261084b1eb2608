"""The consoles of a QEMU machine: what the guest writes, and what is typed at it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

from zseal.engine.consoleinput import ConsoleInput
from zseal.engine.interface import Console, EngineListener

_PIECE = 1 << 16


class Consoles:
    """Passes on what comes from each console to a listener, and what is typed to the terminal as QEMU takes it."""

    def __init__(self) -> None:
        self._input = ConsoleInput()
        self._connections: Mapping[Console, socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: EngineListener | None = None

    def start(
        self, connections: Mapping[Console, socket.socket], loop: asyncio.AbstractEventLoop, listener: EngineListener
    ) -> None:
        """Begin, in the thread of ``loop``; the non-blocking ``connections`` stay their owner's, who closes them."""
        self._connections, self._loop, self._listener = connections, loop, listener
        for console, connection in connections.items():
            loop.add_reader(connection.fileno(), self._receive, console)

    @property
    def waiting(self) -> int:
        """Bytes that were typed and QEMU has not taken yet."""
        return len(self._input)

    def type(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``; what QEMU does not take at once follows as it does."""
        self._input.add(data, when_room)
        if self._input:
            self._send()

    def finish(self) -> None:
        """The guest has ended: pass on its last words, and take none for it any longer."""
        self._input.close()
        if self._listener is None:
            return
        for console, connection in self._connections.items():
            with contextlib.suppress(OSError):
                while data := connection.recv(_PIECE):
                    self._listener.console(console, data)

    def _send(self) -> None:
        if self._loop is None:
            return
        connection = self._connections[Console.TERMINAL]
        try:
            self._input.take(connection.send(self._input.data))
        except BlockingIOError:
            pass
        except ConnectionError:
            self._input.close()
        if self._input:
            self._loop.add_writer(connection.fileno(), self._send)
        else:
            self._loop.remove_writer(connection.fileno())

    def _receive(self, console: Console) -> None:
        connection = self._connections[console]
        try:
            data = connection.recv(_PIECE)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data and self._listener is not None:
            self._listener.console(console, data)
        elif self._loop is not None:
            self._loop.remove_reader(connection.fileno())
