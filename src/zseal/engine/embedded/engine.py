"""The embedded engine: a machine in this process. Its start turns the description into a run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from zseal.arch.psw import Psw
from zseal.engine.embedded.load import Program
from zseal.engine.embedded.machine import EmbeddedMachine
from zseal.engine.embedded.run import EmbeddedRun
from zseal.engine.errors import EngineError
from zseal.engine.interface import NO_HOOKS, Capabilities, Engine, EngineHooks, EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.engine.unicorn.emulator import emulator_version
from zseal.errors import UsageError
from zseal.logs import logger

if TYPE_CHECKING:
    from zseal.engine.machine import MachineConfig

_LOG = logger(__name__)

CPU_LIMIT = 8


class EmbeddedEngine(Engine):
    """Executes ``kernel`` (a boot image, or a bare-metal program like the test guest) on Unicorn Engine.

    ``kernel`` and ``ramdisk`` are descriptors of files, read at every reset; ``memory`` is in bytes, whole MiB.
    Raises MissingDependencyError if Unicorn is not installed.
    """

    name = "embedded"
    capabilities = Capabilities(first_touch=True)

    def __init__(
        self,
        kernel: int,
        *,
        memory: int,
        cpus: int = 1,
        ramdisk: int | None = None,
        cmdline: str | None = None,
        line_mode_console: bool = False,
    ) -> None:
        if not 1 <= cpus <= CPU_LIMIT:
            raise UsageError(f"the embedded engine has 1 to {CPU_LIMIT} CPUs, not {cpus}")
        self._version = emulator_version()
        self._memory = SharedMemory(memory)
        self._cpus = cpus
        self._program = Program(kernel, ramdisk, cmdline)
        self._line_mode = line_mode_console
        self._started: EmbeddedRun | None = None
        self._closed = False

    @classmethod
    def for_machine(cls, config: MachineConfig) -> Self:
        """Return an engine for the machine that ``config`` describes; raises UsageError if it has parts that only QEMU
        has.
        """
        wanted = {
            "disks": config.disks,
            "networks": config.networks,
            "random sources": config.random_sources,
            "QEMU arguments": config.extra,
        }
        for what, there in wanted.items():
            if there:
                raise UsageError(f"the embedded engine has no {what}", hint='use `engine="qemu"`')
        if config.kernel is None:
            raise UsageError("the embedded engine cannot boot from a disk", hint='use `engine="qemu"`')
        return cls(
            config.kernel,
            memory=config.memory,
            cpus=config.cpus,
            ramdisk=config.ramdisk,
            cmdline=config.cmdline,
            line_mode_console=config.line_mode_console,
        )

    @property
    def memory(self) -> SharedMemory:
        """The guest's RAM."""
        return self._memory

    @property
    def _run(self) -> EmbeddedRun:
        if self._started is None:
            raise EngineError("the machine is not started")
        return self._started

    def statistics(self) -> dict[str, int | float | str]:
        """Return Unicorn's version, the traps handled and the slices executed."""
        machine = self._started.machine if self._started else None
        return {
            "version": self._version,
            "traps": machine.traps if machine else 0,
            "slices": machine.slices if machine else 0,
        }

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener, hooks: EngineHooks = NO_HOOKS) -> None:
        """Load the program and let the guest run; ``hooks.first_touch`` is explained with EmbeddedMachine."""
        _LOG.info("executing the guest in this process, with Unicorn %s and %d CPUs", self._version, self._cpus)
        machine = EmbeddedMachine(
            self._memory,
            self._cpus,
            self._program,
            listener,
            line_mode=self._line_mode,
            first_touch=hooks.first_touch,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(machine.close)
            machine.load()
            undo.pop_all()
        self._started = EmbeddedRun(machine, loop, listener)
        self._started.schedule()

    def protected(self, entry: Psw) -> None:
        """Take note that the guest's memory was replaced by its unpacked image."""
        self._run.machine.protected(entry)

    def pause(self) -> None:
        """Execute no more slices."""
        self._run.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self._run.resume()

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``."""
        self._run.type(data, when_room)

    def end(self) -> None:
        """Stop executing."""
        if self._started is not None:
            self._started.finish(Stop(StopKind.CLOSED))

    def close(self) -> None:
        """Stop executing and release memory."""
        if self._closed:
            return
        self._closed = True
        if self._started is not None:
            self._started.close()
        self._memory.close()
