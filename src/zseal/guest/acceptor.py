"""Accepts connections of a listening socket in an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

RETRY_SECONDS = 1.0


class Acceptor:
    """Calls ``welcome`` with each connection to the non-blocking ``listener``, from ``start`` to ``stop``."""

    def __init__(self, listener: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._welcome = welcome
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections from now on; called in the thread of ``loop``, as is ``welcome``."""
        self._loop = loop
        self._listen()

    def stop(self) -> None:
        """Accept no more; the listener stays open. It has no effect the second time, or before the start."""
        if self._loop is not None:
            self._loop.remove_reader(self._listener)
            self._loop = None

    def _listen(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        if self._loop is None:
            return
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # gone again
        except OSError:
            # no descriptors left: clients that wait are accepted when there are some, and the loop does not spin until
            # then
            self._loop.remove_reader(self._listener)
            self._loop.call_later(RETRY_SECONDS, self._listen)
            return
        self._welcome(connection)
