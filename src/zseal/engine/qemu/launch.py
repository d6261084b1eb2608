"""How an engine gets its QEMU: launchers, and the one that starts a process of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from zseal.arch.storage import MIB
from zseal.coredumps import core_dumps_allowed
from zseal.engine.errors import EngineError, EngineLostError, EngineSilentError
from zseal.engine.interface import Console, EngineHooks
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.commandline import Descriptors, arguments, cpu_model
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.plugin import Plugin, find_plugin, plugin_environment, plugin_is_off
from zseal.engine.qemu.process import Channel, OwnProcess, find_program, knows_sandbox, program_version
from zseal.engine.qemu.qmp import Qmp
from zseal.logs import logger

_LOG = logger(__name__)

_QUIT_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""How long QEMU may take to report its queues: it cannot while it waits for the CPU that waits for us."""
_SLOWER = "so breakpoints see the guest's requests, and the guest runs slower"
_T = TypeVar("_T")


class Launcher(Protocol):
    """Starts the QEMU of one engine."""

    def launch(self, config: MachineConfig, memory: SharedMemory, *, traps: bool, hooks: EngineHooks) -> QemuMachine:
        """Return the machine ``config`` with ``memory`` as its RAM, created stopped; called once.

        With ``traps`` it has a gdb stub. Raises ZsealError if it cannot be created, and leaves nothing of it.
        """

    def close(self) -> None:
        """Release what the launch used; called after the machine's end, also if there was no machine."""


class LocalLauncher:
    """Starts QEMU as a process of ours that leaves nothing behind; ``program`` replaces the default program."""

    def __init__(self, program: str | None = None) -> None:
        self._program = program

    def launch(self, config: MachineConfig, memory: SharedMemory, *, traps: bool, hooks: EngineHooks) -> QemuMachine:
        """Start QEMU; with the plugin if there are traps."""

        def start(plugin: Plugin | None, notice: str = "") -> QemuMachine:
            return start_qemu(
                config,
                memory,
                traps=traps,
                program=self._program,
                plugin=plugin,
                notifications=hooks.notification is not None,
                queues=hooks.queues,
                notice=notice,
            )

        return with_plugin(start) if traps else start(None)

    def close(self) -> None:
        """Nothing is left."""


def with_plugin(create: Callable[[Plugin | None, str], _T]) -> _T:
    """Return the machine that ``create`` makes with the plugin, or without it if there is none or QEMU refuses it.

    In that case ``create`` gets a sentence for the user, unless the user switched the plugin off. Raises UsageError if
    the environment asks for an unknown use of the plugin.
    """
    plugin = find_plugin()
    if plugin is None:
        return create(None, "" if plugin_is_off() else f"zseal has no plugin for this computer's QEMU, {_SLOWER}")
    try:
        return create(plugin, "")
    except EngineError as error:
        if "plugin" not in error.message.lower():
            raise
        _LOG.info("QEMU does not take the plugin, so breakpoints see what the guest does: %s", error.message)
        return create(None, f"QEMU does not take zseal's plugin, {_SLOWER} ({error.message})")


def start_qemu(
    config: MachineConfig,
    memory: SharedMemory,
    *,
    traps: bool,
    program: str | None = None,
    plugin: Plugin | None = None,
    notifications: bool = True,
    queues: int | None = None,
    notice: str = "",
) -> QemuMachine:
    """Start QEMU, created stopped, with a gdb stub for ``traps``.

    The ``plugin`` watches ultravisor calls, and device notifications with ``notifications``; with ``queues`` it lets
    notifications of plain requests through itself. ``notice`` is for the user. Raises ZsealError if QEMU cannot be
    started or refuses its arguments.
    """
    with contextlib.ExitStack() as undo:

        def channel() -> Channel:
            return undo.enter_context(contextlib.closing(Channel()))

        qmp, terminal = channel(), channel()
        line = channel() if config.line_mode_console else None
        gdb = channel() if traps else None
        reports, monitor = (channel(), channel()) if plugin else (None, None)
        given = Descriptors(
            memory=memory.descriptor,
            qmp=qmp.descriptor,
            terminal=terminal.descriptor,
            line_mode=line.descriptor if line else None,
            gdb=gdb.descriptor if gdb else None,
            plugin=plugin.path if plugin else None,
            lock=plugin is None or plugin.lock,
            notifications=notifications,
            plugin_socket=reports.descriptor if reports else None,
            queues=queues if plugin else None,
            monitor=monitor.descriptor if monitor else None,
        )
        process = _start_process(config, given, program)
        undo.callback(process.kill)
        for each in (qmp, terminal, line, gdb, reports, monitor):
            if each is not None:
                each.remote.close()  # otherwise the end of QEMU would not be the end of the connection
        consoles = {Console.TERMINAL: terminal.local}
        if line is not None:
            consoles[Console.LINE_MODE] = line.local
        machine = QemuMachine(
            process=process,
            qmp=Qmp(qmp.local),
            gdb=GdbRemote(gdb.local) if gdb else None,
            plugin=(reports.local, Qmp(monitor.local, timeout=ANSWER_SECONDS)) if reports and monitor else None,
            consoles=consoles,
            lock=plugin is not None and plugin.lock,
            notice=notice,
        )
        _greet(machine, config)
        undo.pop_all()
    return machine


def _start_process(config: MachineConfig, given: Descriptors, program: str | None) -> OwnProcess:
    path = find_program(program)
    version = program_version(path)
    cpu = cpu_model(version, audited=config.audited)
    sandbox = knows_sandbox(path) and not _chooses_sandbox(config.extra)
    optional = (given.line_mode, given.gdb, given.plugin_socket, given.monitor, given.queues)
    files = (config.kernel, config.ramdisk)
    inherit = [given.memory, given.qmp, given.terminal]
    inherit += [number for number in (*optional, *files) if number is not None]
    return OwnProcess(
        arguments(config, given, cpu=cpu, version=version, sandbox=sandbox, core_dumps=core_dumps_allowed()),
        inherit=inherit,
        program=program,
        environment=plugin_environment(version),
    )


def _chooses_sandbox(extra: Sequence[str]) -> bool:
    """Whether the user's own arguments say what QEMU may do; two -sandbox would add up."""
    return any(argument.startswith("-") and argument.lstrip("-") == "sandbox" for argument in extra)


def _greet(machine: QemuMachine, config: MachineConfig) -> None:
    """Exchange greetings on all connections; raises EngineError with QEMU's message if it ends instead."""
    try:
        machine.qmp.handshake()
        _LOG.info("QEMU %s answers", ".".join(map(str, machine.qmp.version)))
        if machine.gdb is not None:
            machine.gdb.handshake()
        if machine.plugin is not None:
            machine.plugin[1].handshake()
    except EngineLostError as error:
        # The wait for a silent QEMU is over; the caller kills it.
        status = None if isinstance(error, EngineSilentError) else machine.process.wait(_QUIT_SECONDS)
        reason = machine.process.last_message()
        if status == 0:
            reason = "QEMU printed information and exited (as with -help or -version)"
        if "memory" in reason and config.memory >= 1 << 30:
            reason += f" (the guest shall have {config.memory // MIB} MiB)"
        raise EngineError(f"QEMU did not start: {reason or error.message}") from error
