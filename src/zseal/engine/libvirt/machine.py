"""A QEMU that libvirt started: its connections, and its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lxml import etree

from zseal.engine.errors import EngineError
from zseal.engine.interface import Console
from zseal.engine.libvirt.pty_socket import Terminal
from zseal.engine.memory import SharedMemory
from zseal.engine.memoryfile import LARGE_PAGE
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.process import QemuProcess
from zseal.engine.qemu.qmp import Qmp
from zseal.libvirt.connection import Connection, start_error

CONNECT_SECONDS = 30.0
QUIT_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0
_LOG_TAIL = 4096
_GUARD = Path(__file__).with_name("guard.py")


class LibvirtProcess(QemuProcess):
    """The QEMU of ``domain``: not our child, so its exit status is unknown; libvirt ends it."""

    def __init__(self, domain: object, pid: int, log: Path | None, folders: Sequence[Path]) -> None:
        self._domain = domain
        self._log = log
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.output = None
        command = [sys.executable, "-I", "-S", str(_GUARD), str(pid), *map(str, folders)]
        self._guard = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        if self._guard.stdout is None or not self._guard.stdout.readline():
            raise EngineError("QEMU ended as soon as it was started")

    def messages(self) -> str:
        """Return the end of libvirt's log of the domain, where it can be read."""
        if self._log is None:
            return ""
        try:
            with self._log.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until QEMU has ended; returns 0 then, for its status is libvirt's to know."""
        if self.pidfd < 0:
            return 0
        ready, _, _ = select.select([self.pidfd], [], [], timeout)
        return 0 if ready else None

    def kill(self) -> int:
        """End QEMU at once, let libvirt clear up, and release what belongs to it."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            _destroy(self._domain)
            self.wait(CONNECT_SECONDS)
            os.close(self.pidfd)
            self.pidfd = -1
            if self._guard.stdin is not None and self._guard.stdout is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._guard.stdin.write(b"q")  # all is cleared up
                    self._guard.stdin.close()
                self._guard.stdout.close()
            self._guard.wait()
        return 0


class DomainToStart(Protocol):
    """A domain as libvirt is to start it."""

    @property
    def name(self) -> str:
        """The name of its document, for messages."""

    @property
    def ends_at_reset(self) -> bool:
        """Whether libvirt destroys it when its guest reboots (``<on_reboot>destroy</on_reboot>``)."""

    def xml(self, arguments: Sequence[str], *, security_models: Sequence[str] | None) -> bytes:
        """Return the domain XML with more ``arguments`` for QEMU.

        If the daemon confines QEMU with ``security_models``, QEMU runs as this process's user, unconfined: it has to
        reach memory and sockets that belong to that user.
        """


class LibvirtMachine(QemuMachine):
    """A domain that libvirt created stopped, with the gdb stub and a QMP monitor of our own.

    ``folder`` is where the sockets get a name.
    """

    _terminal: Terminal | None = None

    def __init__(  # the parent starts QEMU itself
        self, connection: Connection, domain: DomainToStart, memory: SharedMemory, *, folder: Path, console: bool
    ) -> None:
        self._closed = False
        libvirt = connection.libvirt
        with contextlib.ExitStack() as undo:
            listeners = {name: _listen(folder / name, undo) for name in ("qmp", "gdb")}
            # the driver in this process runs QEMU as this process's user anyway
            models = None if connection.embedded else connection.security_models()
            xml = domain.xml(_arguments(folder, memory), security_models=models)
            flags = libvirt.VIR_DOMAIN_START_PAUSED
            if not connection.embedded:  # which does not support it; the guard does it then
                flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY
            try:
                self.domain = connection.handle.createXML(xml.decode(), flags)  # type: ignore[attr-defined]
            except libvirt.libvirtError as error:
                raise start_error(str(error), domain.name) from error
            undo.callback(_destroy, self.domain)
            qmp, pid = _accept(listeners["qmp"])
            undo.callback(qmp.close)
            gdb, _ = _accept(listeners["gdb"])
            undo.callback(gdb.close)
            log = connection.root / "log" / "qemu" / f"{self.domain.name()}.log" if connection.root else None
            folders = [folder, connection.root] if connection.temporary and connection.root else [folder]
            self.process = LibvirtProcess(self.domain, pid, log, folders)
            undo.callback(self.process.kill)
            self.qmp, self.gdb = Qmp(qmp), GdbRemote(gdb)
            self.qmp.handshake()
            self.gdb.handshake()
            self.consoles = {Console.TERMINAL: self._console(undo) if console else _silent(undo)}
            for terminal in self.consoles.values():
                terminal.setblocking(False)
            undo.pop_all()
        for listener in listeners.values():
            listener.close()

    def _console(self, undo: contextlib.ExitStack) -> socket.socket:
        """The domain's first console, as the running domain tells it."""
        live = etree.fromstring(self.domain.XMLDesc())
        path = next((console.get("tty") for console in live.iterfind("devices/console") if console.get("tty")), None)
        if path is None:
            return _silent(undo)
        terminal = Terminal(path)
        undo.callback(terminal.socket.close)
        self._terminal = terminal
        return terminal.socket

    def await_last_words(self) -> None:
        """Where QEMU has ended: have reads of the console wait for all that came from it."""
        if self._terminal is not None and self.process.wait(0) is not None:
            self._terminal.socket.settimeout(_LAST_WORDS_SECONDS)

    def end(self, release: Callable[[int], None] = lambda _descriptor: None) -> None:
        """Let QEMU write out its disks and end, then let libvirt clear up; a few seconds at most."""
        if not self._closed:
            with contextlib.suppress(EngineError):
                self.qmp.send("quit")
            self.process.wait(QUIT_SECONDS)
        self.close(release)


def _destroy(domain: object) -> None:
    # a domain that has ended is none any more
    with contextlib.suppress(Exception):
        domain.destroy()  # type: ignore[attr-defined]  # a libvirt.virDomain


def _silent(undo: contextlib.ExitStack) -> socket.socket:
    """The console of a domain that has none: nothing comes, and what is sent is lost."""
    ours, theirs = socket.socketpair()
    undo.callback(ours.close)
    undo.callback(theirs.close)
    return ours


def _listen(path: Path, undo: contextlib.ExitStack) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    undo.callback(listener.close)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(CONNECT_SECONDS)
    return listener


def _accept(listener: socket.socket) -> tuple[socket.socket, int]:
    """Take QEMU's connection; return it and QEMU's process id."""
    try:
        connection, _ = listener.accept()
    except TimeoutError as error:
        raise EngineError("QEMU did not connect to zseal") from error
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return connection, struct.unpack("3i", credentials)[0]


def _arguments(folder: Path, memory: SharedMemory) -> list[str]:
    """What QEMU gets besides what libvirt gives it."""
    path = f"/proc/{os.getpid()}/fd/{memory.descriptor}"
    backend = f"memory-backend-file,id=zseal-ram,mem-path={path},share=on,align={LARGE_PAGE},size={memory.size}"
    arguments = ["-object", backend, "-machine", "memory-backend=zseal-ram"]
    for name in ("qmp", "gdb"):
        arguments += ["-chardev", f"socket,id=zseal-{name},path={folder / name}"]
    return [*arguments, "-mon", "chardev=zseal-qmp,mode=control", "-gdb", "chardev:zseal-gdb"]
