"""Turns a console from libvirt, which is a pseudo-terminal, into a socket like those of other consoles."""

from __future__ import annotations

import contextlib
import os
import socket
import termios
import threading
import tty
from collections.abc import Callable

_PIECE = 1 << 16


class Terminal:
    """The pseudo-terminal at ``path``; ``socket`` is the console.

    Output in a pseudo-terminal is lost when QEMU ends, and libvirt ends QEMU as soon as a guest powers off. So two
    threads copy, independently of the thread of the event loop. They end with QEMU, and so does the socket.
    """

    def __init__(self, path: str) -> None:
        self._terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            tty.setraw(self._terminal, termios.TCSANOW)
        except termios.error:
            os.close(self._terminal)
            raise
        self.socket, self._inner = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="zseal-console", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        typed = threading.Thread(
            target=_copy, args=(lambda: self._inner.recv(_PIECE), self._write), name="zseal-typed", daemon=True
        )
        typed.start()
        _copy(lambda: os.read(self._terminal, _PIECE), self._inner.sendall)
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)
        typed.join()
        self._inner.close()
        os.close(self._terminal)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._terminal, data) :]


def _copy(read: Callable[[], bytes], write: Callable[[bytes], None]) -> None:
    """Copy until either has ended: EIO is the end of a pseudo-terminal, EPIPE that of a socket."""
    with contextlib.suppress(OSError):
        while data := read():
            write(data)
