"""A started QEMU with its connections: what the engine speaks through, and what it gives back at the end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError, EngineLostError, EngineSilentError
from zseal.engine.interface import Console
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.commandline import Descriptors, arguments, cpu_model
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.plugin_queues import QueueWatch
from zseal.engine.qemu.process import Channel, QemuProcess, find_program, program_version
from zseal.engine.qemu.qmp import Qmp

_QUIT_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""How long QEMU may take to tell its queues: it can't while it waits for the very CPU that waits for us."""


def _ignore(_descriptor: int) -> None:
    """Nobody watches the descriptors."""


class QemuMachine:
    """QEMU, created stopped. ``gdb`` is None where no traps were asked for.

    With ``plugin_file`` its socket and a QMP connection for what it takes are in ``plugin``, for who takes them over;
    it watches ultravisor calls, and notifications of devices where ``notifications`` says so; of those it lets plain
    ones through itself where there are ``queues``.
    Raises ZsealError where QEMU can't be started or refuses its arguments.
    """

    plugin: tuple[socket.socket, Qmp] | None = None

    def __init__(
        self,
        config: MachineConfig,
        memory: SharedMemory,
        *,
        traps: bool,
        program: str | None = None,
        plugin_file: Path | None = None,
        notifications: bool = True,
        queues: QueueWatch | None = None,
    ) -> None:
        with contextlib.ExitStack() as undo:
            qmp = undo.enter_context(contextlib.closing(Channel()))
            terminal = undo.enter_context(contextlib.closing(Channel()))
            line = undo.enter_context(contextlib.closing(Channel())) if config.line_mode_console else None
            gdb = undo.enter_context(contextlib.closing(Channel())) if traps else None
            plugin = undo.enter_context(contextlib.closing(Channel())) if plugin_file else None
            monitor = undo.enter_context(contextlib.closing(Channel())) if plugin_file else None
            given = Descriptors(
                memory=memory.descriptor,
                qmp=qmp.descriptor,
                terminal=terminal.descriptor,
                line_mode=line.descriptor if line else None,
                gdb=gdb.descriptor if gdb else None,
                plugin=plugin_file,
                notifications=notifications,
                plugin_socket=plugin.descriptor if plugin else None,
                queues=queues.descriptor if queues else None,
                monitor=monitor.descriptor if monitor else None,
            )
            inherit = [given.memory, given.qmp, given.terminal]
            for_plugin = (given.plugin_socket, given.monitor, given.queues)
            optional = (given.line_mode, given.gdb, *for_plugin, config.kernel, config.ramdisk)
            inherit += [number for number in optional if number is not None]
            self._closed = False
            cpu = cpu_model(program_version(find_program(program)), audited=config.audited)
            self.process = QemuProcess(arguments(config, given, cpu=cpu), inherit=inherit, program=program)
            undo.callback(self.process.kill)
            for channel in (qmp, terminal, line, gdb, plugin, monitor):
                if channel is not None:
                    channel.remote.close()  # or the end of QEMU would not be the end of the connection
            self.qmp = Qmp(qmp.local)
            self.gdb = GdbRemote(gdb.local) if gdb else None
            if plugin is not None and monitor is not None:
                self.plugin = plugin.local, Qmp(monitor.local, timeout=ANSWER_SECONDS)
            self.consoles = {Console.TERMINAL: terminal.local}
            if line is not None:
                self.consoles[Console.LINE_MODE] = line.local
            self._handshake(config)
            undo.pop_all()

    def _handshake(self, config: MachineConfig) -> None:
        try:
            self.qmp.handshake()
            if self.gdb is not None:
                self.gdb.handshake()
            if self.plugin is not None:
                self.plugin[1].handshake()
        except EngineLostError as error:
            # One that is silent has been waited for; it is killed by who comes next.
            status = None if isinstance(error, EngineSilentError) else self.process.wait(_QUIT_SECONDS)
            reason = self.process.last_message()
            if status == 0:
                reason = "it has only told something, as it does for options like -help and -version"
            if "memory" in reason and config.memory >= 1 << 30:
                reason += f" (the guest is to have {config.memory // MIB} MiB)"
            raise EngineError(f"QEMU did not start: {reason or error.message}") from error
        for console in self.consoles.values():
            console.setblocking(False)

    def end(self, release: Callable[[int], None] = _ignore) -> None:
        """Let QEMU write out its disks and end, then close; a few seconds at most."""
        if not self._closed:
            with contextlib.suppress(EngineError):
                self.qmp.send("quit")
            self.process.wait(_QUIT_SECONDS)
        self.close(release)

    def close(self, release: Callable[[int], None] = _ignore) -> None:
        """End QEMU now and close all connections; ``release`` is told each descriptor before it is closed."""
        if self._closed:
            return
        self._closed = True
        for connection in (self.qmp, self.gdb, *self.consoles.values()):
            if connection is not None:
                release(connection.fileno())
                connection.close()
        release(self.process.pidfd)
        if self.process.output is not None:
            release(self.process.output)
        self.process.kill()
