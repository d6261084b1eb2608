"""A QEMU that libvirt started: its connections, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lxml import etree

from zseal.coredumps import core_dumps_allowed
from zseal.engine.errors import EngineError
from zseal.engine.interface import Console, EngineHooks
from zseal.engine.libvirt.pty_socket import Terminal
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.memoryfile import LARGE_PAGE
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.process import QemuProcess
from zseal.engine.qemu.qmp import Qmp
from zseal.libvirt.connection import Connection, start_error
from zseal.logs import logger

_LOG = logger(__name__)

CONNECT_SECONDS = 30.0
_LOG_TAIL = 4096
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z ")
_OF_QEMU = re.compile(r"^qemu-[\w-]+: |^ERROR:|^Bail out|Assertion")
_GUARD = Path(__file__).with_name("guard.py")


class LibvirtProcess(QemuProcess):
    """The QEMU of ``domain``. It is not our child, so its exit status is unknown; libvirt ends it."""

    def __init__(self, domain: object, pid: int, log: Path | None, folders: Sequence[Path]) -> None:
        super().__init__(pid, None)
        self._domain = domain
        self._log = log
        command = [sys.executable, "-I", "-S", str(_GUARD), str(pid), *map(str, folders)]
        self._guard = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        if self._guard.stdout is None or not self._guard.stdout.readline():
            raise EngineError("QEMU ended as soon as it was started")

    def collect(self) -> bool:
        """Do nothing: QEMU writes into libvirt's log of the domain, not to us."""
        return False

    def messages(self) -> str:
        """Return QEMU's output at the end of libvirt's log of the domain, if that can be read."""
        if self._log is None:
            return ""
        try:
            with self._log.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL))
                return words_of_qemu(stream.read().decode("utf-8", "replace"))
        except OSError:
            return ""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until QEMU has ended, and return 0, because only libvirt knows its status."""
        if self.pidfd < 0:
            return 0
        ready, _, _ = select.select([self.pidfd], [], [], timeout)
        return 0 if ready else None

    def kill(self) -> int:
        """End QEMU immediately, let libvirt clean up, and release what belongs to it."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            _destroy(self._domain)
            self.wait(CONNECT_SECONDS)
            os.close(self.pidfd)
            self.pidfd = -1
            if self._guard.stdin is not None and self._guard.stdout is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._guard.stdin.write(b"q")  # everything is cleaned up
                    self._guard.stdin.close()
                self._guard.stdout.close()
            self._guard.wait()
        return 0


def words_of_qemu(log: str) -> str:
    """Return the lines that QEMU wrote into libvirt's log of a domain; the others are times, arguments and consoles."""
    lines = (_STAMP.sub("", line) for line in log.splitlines())
    return "\n".join(line for line in lines if _OF_QEMU.search(line))


class DomainToStart(Protocol):
    """A domain as libvirt shall start it."""

    @property
    def name(self) -> str:
        """The name of its document, for messages."""

    @property
    def ends_at_reset(self) -> bool:
        """Whether libvirt destroys it when its guest reboots (``<on_reboot>destroy</on_reboot>``)."""

    def xml(self, arguments: Sequence[str], *, security_models: Sequence[str] | None) -> bytes:
        """Return the domain XML with more ``arguments`` for QEMU.

        If the daemon confines QEMU with ``security_models``, QEMU runs as this process's user, unconfined, because it
        needs memory and sockets that belong to that user.
        """


class LibvirtLauncher:
    """Lets libvirt create ``domain`` stopped, with the gdb stub and a QMP monitor of our own.

    ``console`` False leaves the domain's console to other programs.
    """

    def __init__(self, connection: Connection, domain: DomainToStart, *, console: bool) -> None:
        self._connection = connection
        self._domain = domain
        self._console = console
        self._folder = Path(tempfile.mkdtemp(prefix="zseal-domain-"))  # the directory of the named sockets
        self._created: object | None = None

    @property
    def created(self) -> object:
        """libvirt's domain object (a libvirt.virDomain); raises EngineError before the launch."""
        if self._created is None:
            raise EngineError("the domain is not started")
        return self._created

    def close(self) -> None:
        """Remove the sockets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def launch(self, config: MachineConfig, memory: SharedMemory, *, traps: bool, hooks: EngineHooks) -> QemuMachine:
        """Create the domain; its XML, not ``config``, describes the machine."""
        with contextlib.ExitStack() as undo:
            listeners = {name: undo.enter_context(_listen(self._folder / name)) for name in ("qmp", "gdb")}
            domain = self._created = self._create(_arguments(self._folder, memory))
            undo.callback(_destroy, domain)
            connection, pid = _accept(listeners["qmp"])
            qmp = undo.enter_context(contextlib.closing(Qmp(connection)))
            connection, _ = _accept(listeners["gdb"])
            gdb = undo.enter_context(contextlib.closing(GdbRemote(connection)))
            _LOG.info("libvirt has started QEMU as process %d for the domain %s", pid, self._domain.name)
            process = LibvirtProcess(domain, pid, self._log(domain), self._folders())
            undo.callback(process.kill)
            terminal = _terminal(domain) if self._console else None
            console = _silent() if terminal is None else terminal.socket
            undo.callback(console.close)
            qmp.handshake()
            gdb.handshake()
            machine = QemuMachine(
                process=process,
                qmp=qmp,
                gdb=gdb,
                consoles={Console.TERMINAL: console},
                lingering=() if terminal is None else (console,),
            )
            undo.pop_all()
        for listener in listeners.values():
            listener.close()
        return machine

    def _create(self, arguments: Sequence[str]) -> object:
        connection, libvirt = self._connection, self._connection.libvirt
        # the driver in this process runs QEMU as this process's user anyway
        models = None if connection.embedded else connection.security_models()
        xml = self._domain.xml(arguments, security_models=models)
        flags = libvirt.VIR_DOMAIN_START_PAUSED
        if not connection.embedded:  # which does not support it; the guard does it instead
            flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY
        try:
            created: object = connection.handle.createXML(xml.decode(), flags)  # type: ignore[attr-defined]
        except libvirt.libvirtError as error:
            raise start_error(str(error), self._domain.name) from error
        return created

    def _log(self, domain: object) -> Path | None:
        root = self._connection.root
        return None if root is None else root / "log" / "qemu" / f"{domain.name()}.log"  # type: ignore[attr-defined]

    def _folders(self) -> Sequence[Path]:
        """Return the directories to remove if this process ends without doing so."""
        root = self._connection.root
        return [self._folder, root] if self._connection.temporary and root else [self._folder]


def _terminal(domain: object) -> Terminal | None:
    """Open the domain's first console, which the running domain names; None if it has none."""
    live = etree.fromstring(domain.XMLDesc())  # type: ignore[attr-defined]
    path = next((console.get("tty") for console in live.iterfind("devices/console") if console.get("tty")), None)
    return None if path is None else Terminal(path)


def _destroy(domain: object) -> None:
    # a stopped transient domain no longer exists
    with contextlib.suppress(Exception):
        domain.destroy()  # type: ignore[attr-defined]  # a libvirt.virDomain


def _silent() -> socket.socket:
    """Return a console for a domain that has none: it has no output and drops input."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(CONNECT_SECONDS)
    except BaseException:
        listener.close()
        raise
    return listener


def _accept(listener: socket.socket) -> tuple[socket.socket, int]:
    """Accept QEMU's connection; return it and QEMU's process id."""
    try:
        connection, _ = listener.accept()
    except TimeoutError as error:
        raise EngineError("QEMU did not connect to zseal") from error
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return connection, struct.unpack("3i", credentials)[0]


def _arguments(folder: Path, memory: SharedMemory) -> list[str]:
    """The arguments that QEMU gets in addition to those from libvirt."""
    path = f"/proc/{os.getpid()}/fd/{memory.descriptor}"
    dump = "on" if core_dumps_allowed() else "off"
    size = f"align={LARGE_PAGE},size={memory.size}"
    backend = f"memory-backend-file,id=zseal-ram,mem-path={path},share=on,{size},dump={dump}"
    arguments = ["-object", backend, "-machine", "memory-backend=zseal-ram"]
    for name in ("qmp", "gdb"):
        arguments += ["-chardev", f"socket,id=zseal-{name},path={folder / name}"]
    return [*arguments, "-mon", "chardev=zseal-qmp,mode=control", "-gdb", "chardev:zseal-gdb"]
