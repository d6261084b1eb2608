"""A running QEMU with the connections that the engine uses and releases at the end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence

from zseal.engine.errors import EngineError
from zseal.engine.interface import Console
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.process import QemuProcess
from zseal.engine.qemu.qmp import Qmp

_QUIT_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0


class QemuMachine:
    """A QEMU that was created stopped, and greeted. Its launcher fills in the connections that exist.

    ``gdb`` is None if no traps were asked for. ``plugin`` are the plugin's socket and a QMP connection for its reports;
    the code that takes them over closes them. ``lock`` says whether the plugin may watch QEMU's lock, and ``notice`` is
    a sentence for the user about how QEMU was launched, or empty. The last output of the consoles in ``lingering``
    arrives through another process, shortly after the end of QEMU.
    """

    def __init__(
        self,
        *,
        process: QemuProcess,
        qmp: Qmp,
        consoles: Mapping[Console, socket.socket],
        gdb: GdbRemote | None = None,
        plugin: tuple[socket.socket, Qmp] | None = None,
        lock: bool = False,
        notice: str = "",
        lingering: Sequence[socket.socket] = (),
    ) -> None:
        self.process = process
        self.qmp = qmp
        self.gdb = gdb
        self.plugin = plugin
        self.lock = lock
        self.notice = notice
        self.consoles = consoles
        self._lingering = lingering
        self._closed = False
        for console in consoles.values():
            console.setblocking(False)

    def await_last_words(self) -> None:
        """If QEMU has ended, let reads of lingering consoles wait for the rest of its output."""
        if self._lingering and self.process.wait(0) is not None:
            for console in self._lingering:
                console.settimeout(_LAST_WORDS_SECONDS)

    def end(self, release: Callable[[int], None]) -> None:
        """Let QEMU write out its disks and end, then close; a few seconds at most."""
        if not self._closed:
            with contextlib.suppress(EngineError):
                self.qmp.send("quit")
            self.process.wait(_QUIT_SECONDS)
        self.close(release)

    def close(self, release: Callable[[int], None] = lambda _descriptor: None) -> None:
        """End QEMU now and close all connections; ``release`` is called with each descriptor before it is closed."""
        if self._closed:
            return
        self._closed = True
        connections = (self.qmp, *(() if self.gdb is None else (self.gdb,)), *self.consoles.values())
        for connection in connections:
            release(connection.fileno())
            connection.close()
        release(self.process.pidfd)
        if self.process.output is not None:
            release(self.process.output)
        self.process.kill()
