"""What a QEMU guest's CPU is kept from doing before somebody has seen to it: virtio notifications and ultravisor calls.

They are seen by a plugin inside QEMU (its source is in ``native/qemu_plugin``), or by breakpoints where QEMU takes no
plugins. Both stop the CPU in front of its DIAGNOSE 0x500 or UVC, but a stop at a breakpoint, after which QEMU
translates everything anew, costs a guest that reads its disk nine tenths of its speed, and any breakpoint some of it.
For the same reason the plugin stops a CPU at the LPSWE, too, by which a kernel ends unpacking itself.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from zseal import _native
from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.gdbremote import knows_what_was_taken
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.plugin_calibration import calibrate
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.qemu.sites import Sites
from zseal.engine.qemu.virtio import VirtioView
from zseal.engine.virtio import Notification, NotifyHook, VirtioQueue

_MESSAGE = struct.Struct("=IIQ")
_READY = 0
_EventHook = Callable[[int, "PluginEvent", int], None]
_JOIN_SECONDS = 10.0
_END_SECONDS = 5.0


class PluginEvent(enum.Enum):
    """What a CPU is about to execute that the plugin stops it in front of."""

    NOTIFICATION = 1
    """A DIAGNOSE 0x500."""
    CALL = 2
    """A UVC."""
    ENTRY = 3
    """The instruction where kernels begin (KERNEL_START), or one at that address in a program."""
    LOAD = 4
    """An LPSWE, where ENTRY came before and the kernel proper has not begun since."""


class Ability(enum.IntFlag):
    """What the plugin says of itself."""

    EXACT = 1
    """A CPU that goes on, after QEMU was told to stop, executes nothing more than the LPSWE it is at."""
    TEACHABLE = 2
    """It can learn from an example of each how QEMU's lock tells of notifications and calls."""
    LEARNED = 4
    """It has: translations are watched no longer than a kernel boots."""


class _Order(enum.Enum):
    """What the plugin is told, in one byte."""

    GO = b"\1"
    """The CPU that waits for an answer may go on."""
    BEGIN = b"\2"
    """The guest begins: what came so far was there to learn by."""
    LEAVE = b"\3"
    """The kernel proper begins: no LOAD is of interest until the next ENTRY, nor any translation until a reset."""


def plugin_path() -> Path | None:
    """Return the plugin for this kind of computer; None where there is none, or no way to stop a CPU with it."""
    return _native.library("qemu_plugin") if knows_what_was_taken() else None


class Notifications:
    """The notifications and ultravisor calls of one machine.

    ``hook`` is asked of notifications, unless it is None. ``reached`` is told of each CPU that has come to anything
    else, and of the instruction's address; it returns when the CPU may go on. ``failed`` is told of what either raises:
    the CPU stays where it is then. Both come in a thread of their own.
    """

    def __init__(self, hook: NotifyHook | None, reached: _EventHook, failed: Callable[[BaseException], None]) -> None:
        self._hook = hook
        self.by = "none"
        """What sees them: "plugin", "breakpoints" or "none"."""
        self.exact = False
        """Whether the plugin is ``Ability.EXACT``."""
        self._reached = reached
        self._failed = failed
        self._thread: PluginThread | None = None
        self._stops = 0

    def watch(self, machine: QemuMachine, sites: Sites) -> None:
        """Begin, before the first instruction of ``machine``."""
        if machine.plugin is not None:
            self._thread = PluginThread(*machine.plugin, self._hook, self._reached, self._failed)
            self.exact = Ability.EXACT in self._thread.ready()
            self._thread.start()
        sites.calls = machine.plugin is None
        sites.loads = not self.exact
        if self._hook is not None:
            self.by = "breakpoints" if machine.plugin is None else "plugin"
            sites.notifications = machine.plugin is None

    def begin(self, cpu: QemuCpu, memory: SharedMemory) -> None:
        """Prepare the plugin, with the help of ``cpu``, before the machine begins to run."""
        if self._thread is not None:
            if Ability.TEACHABLE in self._thread.abilities:
                calibrate(cpu, memory)
            self._thread.order(_Order.BEGIN)

    def kernel_begins(self) -> None:
        """The kernel proper begins when the machine is resumed."""
        if self._thread is not None:
            self._thread.order(_Order.LEAVE)

    @property
    def calls_by(self) -> str:
        """What sees ultravisor calls: "lock" or "translations" (the plugin), or "breakpoints"."""
        if self._thread is None:
            return "breakpoints"
        return "lock" if Ability.LEARNED in self._thread.abilities else "translations"

    def at_breakpoint(self, cpu: int, machine: QemuMachine) -> bool:
        """Ask for ``cpu`` at a breakpoint; True where it may go on, else raises EngineLostError at the guest's end."""
        # At the price of such a stop it may as well be asked each time where the queues are.
        self._stops += 1
        if self._hook is None or self._hook(Notification(cpu, setups=self._stops), VirtioView(machine.qmp).queues):
            return True
        machine.process.wait(_END_SECONDS)
        raise EngineLostError("QEMU ended")

    def close(self) -> None:
        """End, after the machine; no effect the second time."""
        if self._thread is not None:
            self._thread.close()


class PluginThread:
    """Answers the plugin at the other end of ``connection``, in a thread, until ``close``.

    A thread of its own because QEMU can't stop its CPUs while one waits for an answer, and the engine's thread may be
    waiting for just that. For the same reason ``monitor`` is a QMP connection nobody else uses, greeted already. Both
    are owned. What ``hook`` and ``reached`` raise goes to ``failed``, in this thread; the CPU stays where it is then.
    """

    def __init__(
        self,
        connection: socket.socket,
        monitor: Qmp,
        hook: NotifyHook | None,
        reached: _EventHook,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._monitor = monitor
        self._view = VirtioView(monitor)
        self._hook = hook
        self._reached = reached
        self._failed = failed
        self.abilities = Ability(0)
        """As the plugin said last."""
        self._thread = threading.Thread(target=self._run, name="zseal-io", daemon=True)

    def ready(self) -> Ability:
        """Wait for the plugin's first message, and return what it says. Raises EngineLostError."""
        try:
            message = self._receive()
        except OSError:
            message = None
        if message is None or message[0] != _READY:
            raise EngineLostError("QEMU's plugin said nothing")
        self.abilities = Ability(message[2])
        return self.abilities

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def order(self, order: _Order) -> None:
        """Have the plugin take ``order`` before the machine, which stands still, is resumed."""
        with contextlib.suppress(OSError):  # others notice QEMU's end
            self._connection.sendall(order.value)

    def close(self) -> None:
        """Answer no more, and close the connections. No effect the second time."""
        with contextlib.suppress(OSError):  # QEMU was first
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._connection.close()
        self._monitor.close()

    def _run(self) -> None:
        try:
            while (message := self._receive()) is not None:
                if message[0] == _READY:
                    self.abilities = Ability(message[2])
                elif self._answer(*message):
                    self._connection.sendall(_Order.GO.value)
                else:
                    return
        except OSError:
            return  # the end of QEMU, or ours
        except Exception as error:
            self._failed(error)

    def _answer(self, kind: int, cpu: int, value: int) -> bool:
        """Return whether ``cpu`` may go on, else it is to stay."""
        if kind != PluginEvent.NOTIFICATION.value:
            with contextlib.suppress(EngineError):  # others notice its end
                self._monitor.events()  # nobody needs them, but QEMU keeps what is not read: two for each stop
            self._reached(cpu, PluginEvent(kind), value)
            return True
        return self._hook is None or self._hook(Notification(cpu, setups=value), self._queues)

    def _receive(self) -> tuple[int, int, int] | None:
        data = b""
        while len(data) < _MESSAGE.size:
            part = self._connection.recv(_MESSAGE.size - len(data))
            if not part:
                return None
            data += part
        kind, cpu, value = _MESSAGE.unpack(data)
        return kind, cpu, value

    def _queues(self) -> Sequence[VirtioQueue]:
        try:
            self._monitor.events()  # nobody here needs them
            return self._view.queues()
        except OSError as error:
            raise EngineError(f"QEMU does not tell its virtio devices: {error}") from error
