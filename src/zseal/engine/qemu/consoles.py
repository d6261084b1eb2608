"""The consoles of a QEMU machine: the guest's output and its input."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

from zseal.engine.consoleinput import ConsoleInput
from zseal.engine.interface import Console, EngineListener

_PIECE = 1 << 16


class Consoles:
    """Passes the output of each console to a listener, and input to the terminal as QEMU takes it."""

    def __init__(
        self, connections: Mapping[Console, socket.socket], loop: asyncio.AbstractEventLoop, listener: EngineListener
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._listener = listener
        self._input = ConsoleInput()

    def start(self) -> None:
        """Begin, in the loop's thread. The owner of the non-blocking connections closes them."""
        for console, connection in self._connections.items():
            self._loop.add_reader(connection.fileno(), self._receive, console)

    @property
    def waiting(self) -> int:
        """Bytes of input that QEMU has not taken yet."""
        return len(self._input)

    def type(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``; the part that QEMU does not take immediately follows later."""
        self._input.add(data, when_room)
        if self._input:
            self._send()

    def finish(self) -> None:
        """Pass on the last output of the guest, which has ended, and accept no more input."""
        self._input.close()
        for console, connection in self._connections.items():
            with contextlib.suppress(OSError):
                while data := connection.recv(_PIECE):
                    self._listener.console(console, data)

    def _send(self) -> None:
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
        if data:
            self._listener.console(console, data)
        else:
            self._loop.remove_reader(connection.fileno())
