"""The QEMU engine: a machine's description, which its start turns into a run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from zseal.arch.psw import Psw
from zseal.engine.errors import EngineError
from zseal.engine.interface import NO_HOOKS, Capabilities, Engine, EngineHooks, EngineListener
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import RegisterFile
from zseal.engine.qemu.launch import Launcher, LocalLauncher
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.ownership import MachineOwner, OwnerFactory
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.qemu.run import Counts, PlainRun, QemuRun
from zseal.engine.qemu.sites import Sites
from zseal.engine.qemu.trapped_run import TrappedRun, Trapping
from zseal.engine.unicorn.runahead import RunAhead
from zseal.engine.virtio import VirtioDevice
from zseal.errors import MissingDependencyError
from zseal.logs import logger

_LOG = logger(__name__)


class QemuEngine(Engine):
    """Executes the machine that ``config`` describes.

    ``entry`` is the address of the boot image's first instruction; None boots without any traps, like plain QEMU.
    ``run_ahead`` False stops at every single call even if Unicorn is installed. ``launcher`` starts QEMU, by default as
    a process of ours; ``owner`` is the policy for others that control it too.
    """

    name = "qemu"
    capabilities = Capabilities(notifications=True)

    def __init__(
        self,
        config: MachineConfig,
        *,
        entry: int | None,
        run_ahead: bool = True,
        launcher: Launcher | None = None,
        owner: OwnerFactory = MachineOwner,
    ) -> None:
        self._config = config
        self._launcher = launcher or LocalLauncher()
        self._owner = owner
        self._memory = SharedMemory(config.memory, large_pages=True)
        self._sites = None if entry is None else Sites(self._memory, entry)
        self._run_ahead = _run_ahead(self._memory) if run_ahead and entry is not None else None
        self._started: QemuRun | None = None

    @property
    def memory(self) -> SharedMemory:
        """The guest's RAM."""
        return self._memory

    @property
    def sites(self) -> Sites | None:
        """The places where the guest stops; None if it runs without traps."""
        return self._sites

    @property
    def _run(self) -> QemuRun:
        if self._started is None:
            raise EngineError("the machine is not started")
        return self._started

    @property
    def machine(self) -> QemuMachine:
        """QEMU and its connections, whose events the engine reads; raises EngineError before the start."""
        return self._run.machine

    @property
    def pid(self) -> int:
        """QEMU's process; raises EngineError before the start."""
        return self.machine.process.pid

    @property
    def qmp(self) -> Qmp:
        """QEMU's control connection; raises EngineError before the start."""
        return self.machine.qmp

    def statistics(self) -> dict[str, int | float | str]:
        """Return QEMU's version, the stops at breakpoints and the round trips to the gdb stub."""
        counts = self._started.counts() if self._started else Counts()
        own = {"run_ahead": self._run_ahead is not None, "large_pages": self._memory.large_pages}
        return {**dataclasses.asdict(counts), **own}

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener, hooks: EngineHooks = NO_HOOKS) -> None:
        """Launch QEMU and let the guest run."""
        machine = self._launcher.launch(self._config, self._memory, traps=self._sites is not None, hooks=hooks)
        with contextlib.ExitStack() as undo:
            undo.callback(machine.close)
            self._started = self._make_run(machine, loop, listener, hooks)
            undo.pop_all()
        self._started.begin()

    def _make_run(
        self, machine: QemuMachine, loop: asyncio.AbstractEventLoop, listener: EngineListener, hooks: EngineHooks
    ) -> QemuRun:
        if self._sites is None or machine.gdb is None:
            return PlainRun(machine, self._memory, loop, listener, self._owner)
        trapping = Trapping(
            sites=self._sites,
            run_ahead=self._run_ahead,
            gdb=machine.gdb,
            registers=RegisterFile(machine.gdb.registers()),
            notification=hooks.notification,
        )
        return TrappedRun(machine, self._memory, loop, listener, self._owner, trapping=trapping)

    def notices(self) -> Sequence[str]:
        """Return a notice if the plugin in QEMU could not be used, or not fully."""
        return () if self._started is None else self._started.notices()

    def protected(self, entry: Psw) -> None:
        """Trap what a protected guest's firmware completes from now on."""
        if self._sites is not None:
            self._sites.protected()

    def pause(self) -> None:
        """Stop all CPUs."""
        self._run.pause()

    def resume(self) -> None:
        """Run on after a pause."""
        self._run.resume()

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data``; the part that QEMU does not take immediately follows later."""
        self._run.type(data, when_room)

    def request_poweroff(self) -> bool:
        """Send the guest SCLP's signal quiesce, on which Linux shuts down as on Ctrl-Alt-Del."""
        return self._run.request_poweroff()

    def unused_without_iommu(self) -> Sequence[VirtioDevice]:
        """Ask QEMU, which is given little time."""
        return () if self._started is None else self._started.unused_without_iommu()

    def kill(self) -> None:
        """Kill QEMU; its end is noticed like any other."""
        self._run.kill()

    def end(self) -> None:
        """Let QEMU write out its disks and end; kill it if it takes too long."""
        if self._started is not None:
            self._started.end()

    def close(self) -> None:
        """Kill QEMU and release guest RAM."""
        if self._started is not None:
            self._started.close()
        self._launcher.close()
        if self._run_ahead is not None:
            self._run_ahead.close()
        self._memory.close()


def _run_ahead(memory: SharedMemory) -> RunAhead | None:
    """Return the run-ahead that goes on after a call while QEMU is stopped; None without Unicorn."""
    try:
        return RunAhead(memory)
    except MissingDependencyError as missing:
        _LOG.info("QEMU stops at every ultravisor call: %s", missing.message)
        return None
