"""The embedded engine: a machine in this very process, executed in slices of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from zseal.arch.psw import Psw
from zseal.engine.embedded.load import Program
from zseal.engine.embedded.machine import EmbeddedMachine, FirstTouch
from zseal.engine.errors import EngineError
from zseal.engine.interface import Engine, EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.engine.unicorn.emulator import emulator_version
from zseal.errors import UsageError

if TYPE_CHECKING:
    from zseal.engine.machine import MachineConfig

CPU_LIMIT = 8


class EmbeddedEngine(Engine):
    """Executes ``kernel`` (a boot image, or a bare-metal program like the test guest) on Unicorn Engine.

    ``kernel`` and ``ramdisk`` are descriptors of files, read at every reset; ``memory`` is in bytes, whole MiB.
    ``first_touch`` decides over the guest's accesses to storage once it is protected: see EmbeddedMachine. Raises
    MissingDependencyError where Unicorn is not installed.
    """

    name = "embedded"

    def __init__(
        self,
        kernel: int,
        *,
        memory: int,
        cpus: int = 1,
        ramdisk: int | None = None,
        cmdline: str | None = None,
        line_mode_console: bool = False,
        first_touch: FirstTouch | None = None,
    ) -> None:
        if not 1 <= cpus <= CPU_LIMIT:
            raise UsageError(f"the embedded engine has 1 to {CPU_LIMIT} CPUs, not {cpus}")
        self._version = emulator_version()
        self._memory = SharedMemory(memory)
        self._cpus = cpus
        self._program = Program(kernel, ramdisk, cmdline)
        self._line_mode = line_mode_console
        self.first_touch = first_touch
        self._machine: EmbeddedMachine | None = None
        self._listener: EngineListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None
        self._paused = False
        self._finished = False
        self._closed = False

    @classmethod
    def for_machine(cls, config: MachineConfig) -> Self:
        """Return an engine for the machine that ``config`` describes; raises UsageError where it has what QEMU has."""
        wanted = {
            "disks": config.disks,
            "networks": config.networks,
            "random sources": config.random_sources,
            "QEMU arguments": config.extra,
        }
        for what, there in wanted.items():
            if there:
                raise UsageError(f"the embedded engine has no {what}", hint="use --engine qemu")
        if config.kernel is None:
            raise UsageError("the embedded engine can't boot from a disk", hint="use --engine qemu")
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

    def statistics(self) -> dict[str, int | float | str]:
        """Return Unicorn's version, the traps handled and the slices executed."""
        machine = self._machine
        return {
            "version": self._version,
            "traps": machine.traps if machine else 0,
            "slices": machine.slices if machine else 0,
        }

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener) -> None:
        """Load the program and let the guest run."""
        self._loop, self._listener = loop, listener
        self._machine = EmbeddedMachine(
            self._memory,
            self._cpus,
            self._program,
            listener,
            line_mode=self._line_mode,
            first_touch=self.first_touch,
        )
        self._machine.load()
        self._schedule()

    def _schedule(self, delay: float | None = 0.0) -> None:
        """Execute the next slice after ``delay`` s; None: when somebody types."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._loop is None or self._paused or self._finished or delay is None:
            return
        self._next = self._loop.call_later(delay, self._slice) if delay else self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        self._next = None
        machine, listener = self._machine, self._listener
        if machine is None or listener is None or self._finished or self._paused:
            return
        try:
            busy = machine.run_slice()
        except Exception as error:
            listener.failed(error)
            self._finish(Stop(StopKind.LOST, f"{type(error).__name__}: {error}"))
            return
        if machine.stop is not None:
            self._finish(machine.stop)
        else:
            self._schedule(0.0 if busy else machine.seconds_to_next())

    def _finish(self, stop: Stop) -> None:
        if self._finished:
            return
        self._finished = True
        if self._machine is not None:
            self._machine.sclp.input.close()
        self._schedule(None)
        if self._listener is not None:
            self._listener.stopped(stop)

    def protected(self, entry: Psw) -> None:
        """Take note that the guest's memory was replaced by its unpacked image."""
        if self._machine is None:
            raise EngineError("the machine is not started")
        self._machine.protected(entry)

    def pause(self) -> None:
        """Execute no more slices."""
        self._paused = True
        self._schedule(None)

    def resume(self) -> None:
        """Go on after a pause."""
        if self._paused:
            self._paused = False
            self._schedule()

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``."""
        if self._machine is None:
            raise EngineError("the machine is not started")
        self._machine.sclp.type(data, when_room)
        self._schedule()

    def end(self) -> None:
        """Stop executing."""
        self._finish(Stop(StopKind.CLOSED))

    def close(self) -> None:
        """Stop executing and release memory."""
        self._finish(Stop(StopKind.CLOSED))
        if self._closed:
            return
        self._closed = True
        if self._machine is not None:
            self._machine.close()
        self._memory.close()
