"""The interface between the host's side and an engine.

An engine executes guest instructions. It never decides policy: it reports a trap to its listener, which completes the
instruction on the stopped CPU, and goes on. Everything happens in one thread, that of the engine's event loop: while a
listener's method runs, no CPU of the guest does.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zseal.arch.psw import Psw
from zseal.engine.memory import SharedMemory
from zseal.engine.virtio import NotifyHook, VirtioDevice


class Cpu(Protocol):
    """The registers of one CPU while it is stopped at a trap. All values are unsigned 64-bit numbers."""

    @property
    def number(self) -> int:
        """The CPU address, from 0."""

    @property
    def psw(self) -> Psw:
        """The PSW, which points at the trapped instruction until the answer advances it."""

    @psw.setter
    def psw(self, value: Psw) -> None: ...

    @property
    def prefix(self) -> int:
        """The prefix register: the absolute address of the 8 KiB that real addresses 0 to 0x1fff name."""

    def gr(self, number: int) -> int:
        """Return general register ``number`` (0 to 15)."""

    def set_gr(self, number: int, value: int) -> None:
        """Set general register ``number``."""

    def cr(self, number: int) -> int:
        """Return control register ``number`` (0 to 15)."""

    def set_cr(self, number: int, value: int) -> None:
        """Set control register ``number``."""

    def ar(self, number: int) -> int:
        """Return access register ``number`` (0 to 15; 32 bits)."""

    def set_ar(self, number: int, value: int) -> None:
        """Set access register ``number``."""

    def step(self) -> None:
        """Execute the instruction at the PSW as the CPU itself does, without firmware, and update the registers.

        A program interruption that it causes is presented to the guest. Not for instructions that may enter the wait
        state or reset the machine: answer those with :attr:`Action.EXECUTE`.
        """


class TrapKind(enum.Enum):
    """The instructions that firmware, not the CPU, completes."""

    STFLE = "stfle"
    DIAG_308 = "diag308"
    DIAG_500 = "diag500"
    UVC = "uvc"
    LPSWE = "lpswe"
    IMAGE_ENTRY = "image-entry"


@dataclasses.dataclass(frozen=True)
class Trap:
    """A CPU that stopped before an instruction; ``instruction`` is its 2, 4 or 6 bytes."""

    kind: TrapKind
    cpu: Cpu
    instruction: bytes

    @property
    def r1(self) -> int:
        """The first register field: bits 8-11 of a DIAGNOSE, bits 24-27 of a UVC."""
        byte = self.instruction[3] if self.kind is TrapKind.UVC else self.instruction[1]
        return byte >> 4

    @property
    def r2(self) -> int:
        """The second register field: R3 of a DIAGNOSE (bits 12-15), R2 of a UVC (bits 28-31)."""
        byte = self.instruction[3] if self.kind is TrapKind.UVC else self.instruction[1]
        return byte & 15


class Action(enum.Enum):
    """What an engine does with a CPU after its trap was handled."""

    DONE = "done"
    """The instruction is complete: registers and storage are as it leaves them."""
    EXECUTE = "execute"
    """The CPU shall execute the instruction itself, as if it had not stopped."""


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """Ultravisor calls that differ only in their page, and would all get the same answer now.

    An engine may answer calls for pages that are ``ready`` (one byte for each page of the guest, 1 or 0; it sets to 0
    those that it has answered) and let ``complete`` carry them out later, in their order: before the guest, the host or
    anyone else can see a difference, and before the engine passes on another trap.
    """

    size: int
    """Bytes of the control block."""
    field: int
    """Offset in it of the page's guest absolute address: 8 bytes, big endian."""
    answer_offset: int
    answer: bytes
    """The bytes that such a call stores in the control block, and their offsets."""
    condition_code: int
    ready: NDArray[np.uint8]
    complete: Callable[[NDArray[np.int64]], None]
    """Carries out calls, given the numbers of their pages."""


class Milestone(enum.Enum):
    """Points of a boot that an engine sees, in their order."""

    IMAGE_ENTRY = "image-entry"
    """The first instruction of the boot image, unprotected. Comes again after each reset of the machine."""
    KERNEL_ENTRY = "kernel-entry"
    """The first instruction of the unpacked kernel (of its decompressor), protected."""
    KERNEL_PROPER = "kernel-proper"
    """The kernel left its decompressor and turned dynamic address translation on."""


class StopKind(enum.Enum):
    """Why a machine no longer runs."""

    POWEROFF = "poweroff"
    RESET = "reset"
    """The guest asked for a reset, which ends the machine here."""
    PANIC = "panic"
    """A CPU loaded a disabled wait PSW, or cannot make progress: its program check handler interrupts itself."""
    WATCHDOG = "watchdog"
    DISK = "disk"
    """A disk's file cannot be written, and the guest must not go on without."""
    CLOSED = "closed"
    """The engine's user ended or closed it."""
    LOST = "lost"
    """The program that executes the guest is gone or does not answer."""


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """A program interruption of a guest's kernel: its ``code``, and the ``instruction`` at virtual ``address``."""

    code: int
    address: int
    instruction: bytes


@dataclasses.dataclass(frozen=True)
class Stop:
    """The end of a machine; a panic comes with the ``cpu`` and the ``psw`` with which it stopped, if they are known.

    ``interrupted`` is the last program interruption of that CPU, if its kernel stopped because of an instruction.
    """

    kind: StopKind
    detail: str = ""
    cpu: int | None = None
    psw: Psw | None = None
    interrupted: Interrupted | None = None


class Console(enum.Enum):
    """The guest's output channels."""

    TERMINAL = "terminal"
    """The ASCII (VT220) console: ttysclp0, and what bootloaders write to."""
    LINE_MODE = "line-mode"
    """The line-mode console: the operating-system messages of a Hardware Management Console."""


class EngineListener(Protocol):
    """The host's side of an engine. Methods are called in the engine's thread and must not block."""

    def trap(self, trap: Trap) -> Action:
        """Complete the instruction before which ``trap`` stopped, and advance the PSW past it.

        If it raises ProgramInterruption, the guest gets that interruption. Any other exception ends the machine.
        """

    def series(self, trap: Trap) -> Series | None:
        """Return what calls like ``trap``, a UVC that was just completed, have in common; None if nothing is."""

    def milestone(self, milestone: Milestone) -> None:
        """Take note of the boot's progress."""

    def console(self, console: Console, data: bytes) -> None:
        """Take the output of the guest."""

    def reset(self) -> None:
        """End all protection: the machine is about to be reset, to clear its storage and to load its image again."""

    def restarted(self, cpu: int) -> None:
        """A new kernel begins on CPU ``cpu`` of a protected guest, and its DIAGNOSE 0x308 before that was not seen."""

    def stopped(self, stop: Stop) -> None:
        """Take note that the machine no longer runs; called once. Its memory exists until ``close``."""

    def failed(self, error: BaseException) -> None:
        """Take an exception from ``trap`` (or from the engine itself) that ended the machine; ``stopped`` follows."""


FirstTouch = Callable[[int], None]
"""Called with the absolute address of a guest's page that a CPU is about to use; raises if it must not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine can ask its host. Callers check this and never the kind of engine."""

    notifications: bool = False
    """It asks ``EngineHooks.notification`` before a guest notifies a virtio device, and can share ``queues``."""
    first_touch: bool = False
    """It asks ``EngineHooks.first_touch`` before a protected guest uses a page that it has not used yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineHooks:
    """What an engine asks its host while the guest runs, within its capabilities; it does not ask for None."""

    notification: NotifyHook | None = None
    queues: int | None = None
    """Descriptor of the file through which the engine shares the guest's virtio queues, to ask less often.

    See :class:`zseal.engine.qemu.plugin_queues.QueueWatch`. It has no effect without ``notification``.
    """
    first_touch: FirstTouch | None = None


NO_HOOKS = EngineHooks()


class Engine(abc.ABC):
    """Executes one machine: start, run, pause, close. An engine cannot be started again."""

    name: str
    """The engine's name in reports."""
    capabilities: Capabilities
    """What this kind of engine can ask its host."""

    @property
    @abc.abstractmethod
    def memory(self) -> SharedMemory:
        """The machine's main storage, absolute addresses from 0; the same bytes that the CPUs see."""

    @abc.abstractmethod
    def statistics(self) -> dict[str, int | float | str]:
        """Return the engine's own counters, for reports."""

    def notices(self) -> Sequence[str]:
        """Return what the user should know about the execution of the guest, such as what makes it slower, one sentence
        each.
        """
        return ()

    @abc.abstractmethod
    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener, hooks: EngineHooks = NO_HOOKS) -> None:
        """Create the machine, load its image and let it run; from then on ``listener`` receives its events.

        Called once, in the thread of ``loop``. Raises ZsealError if the machine cannot be created: ``listener`` then
        receives nothing.
        """

    @abc.abstractmethod
    def protected(self, entry: Psw) -> None:
        """Take note that the guest is now protected and begins at ``entry``; called while a trap is handled.

        The caller has set the CPU's registers. From then on, until the machine is reset, the engine traps what a
        protected guest's firmware completes.
        """

    @abc.abstractmethod
    def pause(self) -> None:
        """Stop all CPUs; no effect if they are stopped."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Let the CPUs run again after ``pause``."""

    @abc.abstractmethod
    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data`` at the guest's ASCII console, where all of it waits until the guest takes it or has ended.

        ``when_room`` is called in the loop's thread once there is room for more: immediately, as soon as the guest has
        taken enough, or at its end. An endless source should wait for that.
        """

    def request_poweroff(self) -> bool:
        """Ask the guest's system to power off, as its operator would; returns whether this engine can ask."""
        return False

    def unused_without_iommu(self) -> Sequence[VirtioDevice]:
        """Return the virtio devices without ``iommu_platform`` that have no driver; none if that is not known."""
        return ()

    def kill(self) -> None:
        """End the machine immediately: data not yet on its disks is lost. ``stopped`` follows."""
        self.end()

    @abc.abstractmethod
    def end(self) -> None:
        """End the machine in an orderly way: its disks are written out. Waits a few seconds at most.

        ``memory`` exists until ``close``. ``stopped`` is called unless that happened before.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the machine now and release everything that it used, memory included; a second call has no effect."""
