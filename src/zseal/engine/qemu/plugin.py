"""The conversation with the plugin in QEMU, which holds a CPU before an instruction until zseal lets it go on.

docs/plugin.md describes the plugin (``native/qemu_plugin``). If QEMU takes no plugin, breakpoints see virtio
notifications and ultravisor calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
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
from zseal.errors import UsageError
from zseal.logs import logger

_LOG = logger(__name__)

_MESSAGE = struct.Struct("=IIQ")
_READY = 0
_VARIABLE = "ZSEAL_PLUGIN"
_INTERFACE_7 = (11, 1)
_EventHook = Callable[[int, "PluginEvent", int], None]
_JOIN_SECONDS = 10.0
_END_SECONDS = 5.0


class PluginEvent(enum.Enum):
    """The events at which the plugin holds a CPU."""

    NOTIFICATION = 1
    """A DIAGNOSE 0x500."""
    CALL = 2
    """A UVC."""
    ENTRY = 3
    """The instruction where kernels begin (KERNEL_START), or one at that address in a program."""
    LOAD = 4
    """An LPSWE between ENTRY and the start of the kernel proper."""


class Ability(enum.IntFlag):
    """The abilities that the plugin reports."""

    EXACT = 1
    """After QEMU was ordered to stop, a CPU that goes on executes only the LPSWE at its PSW."""
    CALIBRATABLE = 2
    """It can be calibrated to see notifications and calls by QEMU's global lock."""
    CALIBRATED = 4
    """It is calibrated: it watches translations only while a kernel boots."""


class _Order(enum.Enum):
    """The orders from zseal to the plugin, one byte each."""

    GO = b"\1"
    """The CPU that waits for an answer may go on."""
    BEGIN = b"\2"
    """The guest begins: everything so far was calibration."""
    KERNEL = b"\3"
    """The kernel proper begins: LOADs do not matter until the next ENTRY, nor translations until a reset."""


class PluginSetting(enum.Enum):
    """The values of the environment variable ``ZSEAL_PLUGIN``."""

    OFF = "off"
    """No plugin: breakpoints see everything."""
    TRANSLATIONS = "translations"
    """The plugin watches translations throughout, and leaves QEMU's lock as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plugin:
    """The file of the plugin, and whether it may watch QEMU's lock."""

    path: Path
    lock: bool = True


def find_plugin() -> Plugin | None:
    """Return the plugin for this kind of computer; None if there is none, no way to stop a CPU with it, or it is off.

    Raises UsageError if ``ZSEAL_PLUGIN`` has a value that is not a PluginSetting; an empty one counts as unset.
    """
    setting = _setting()
    path = _native.library("qemu_plugin")
    if path is None or setting is PluginSetting.OFF or not knows_what_was_taken():
        _LOG.info("no plugin in QEMU, so breakpoints see what the guest does: %s", _why_none(path, setting))
        return None
    _LOG.info("the plugin in QEMU is %s", path)
    return Plugin(path=path, lock=setting is not PluginSetting.TRANSLATIONS)


def plugin_environment(version: tuple[int, int] | None) -> Mapping[str, str]:
    """Return what the plugin has to find in the environment of a QEMU of ``version``.

    QEMU takes plugins for interface 7 only since 11.1, and nothing that it exports shows a plugin that it is such a
    QEMU.
    """
    return {} if version is None or version < _INTERFACE_7 else {"ZSEAL_PLUGIN_INTERFACE": "7"}


def plugin_is_off() -> bool:
    """Whether the environment switches the plugin off; raises UsageError as :func:`find_plugin` does."""
    return _setting() is PluginSetting.OFF


def _why_none(path: Path | None, setting: PluginSetting | None) -> str:
    if path is None:
        return "there is none for this kind of computer"
    return f"{_VARIABLE} is off" if setting is PluginSetting.OFF else "this kernel does not show what was received"


def _setting() -> PluginSetting | None:
    value = os.environ.get(_VARIABLE)
    try:
        return PluginSetting(value) if value else None
    except ValueError:
        raise UsageError(
            f"the environment variable {_VARIABLE} has the unknown value {value!r}",
            hint="set it to off or translations, or unset it",
        ) from None


class Notifications:
    """The notifications and ultravisor calls of one machine.

    ``hook`` is asked about notifications, unless it is None. ``reached`` is called for each CPU that reaches any other
    event, with the instruction's address, and returns when the CPU may go on. ``failed`` is called with an exception of
    either; the CPU then stays where it is. All are called in a thread of their own.
    """

    def __init__(self, hook: NotifyHook | None, reached: _EventHook, failed: Callable[[BaseException], None]) -> None:
        self._hook = hook
        self.by = "none"
        """What sees notifications: "plugin", "breakpoints" or "none"."""
        self.exact = False
        """Whether the plugin is ``Ability.EXACT``."""
        self._reached = reached
        self._failed = failed
        self._thread: PluginThread | None = None
        self._stops = 0

    def watch(self, machine: QemuMachine, sites: Sites) -> None:
        """Start before the first instruction of ``machine``; ``sites`` keeps only the breakpoints that are needed."""
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
        """Calibrate the plugin, with the help of ``cpu``, before the machine begins to run."""
        if self._thread is not None:
            if Ability.CALIBRATABLE in self._thread.abilities:
                calibrate(cpu, memory)
            self._thread.order(_Order.BEGIN)

    def kernel_begins(self) -> None:
        """The kernel proper begins when the machine is resumed."""
        if self._thread is not None:
            self._thread.order(_Order.KERNEL)

    @property
    def calls_by(self) -> str:
        """What sees ultravisor calls: "lock" or "translations" (the plugin), or "breakpoints"."""
        if self._thread is None:
            return "breakpoints"
        return "lock" if Ability.CALIBRATED in self._thread.abilities else "translations"

    def at_breakpoint(self, cpu: int, machine: QemuMachine) -> bool:
        """Ask for ``cpu`` at a breakpoint; True if it may go on. Raises EngineLostError at the guest's end."""
        # Such a stop is expensive enough for zseal to ask for the places of the queues each time.
        self._stops += 1
        if self._hook is None or self._hook(Notification(cpu, setups=self._stops), VirtioView(machine.qmp).queues):
            return True
        machine.process.wait(_END_SECONDS)
        raise EngineLostError("QEMU ended")

    def close(self) -> None:
        """End, after the machine; a second call has no effect."""
        if self._thread is not None:
            self._thread.close()


class PluginThread:
    """Answers the plugin at the other end of ``connection``, in a thread, until ``close``.

    It has a thread of its own because QEMU cannot stop its CPUs while one waits for an answer, and the engine's thread
    may be waiting for that stop. For the same reason ``monitor`` is a QMP connection of its own, past its handshake.
    Both connections are owned. Exceptions of ``hook`` and ``reached`` go to ``failed``, in this thread; the CPU then
    stays where it is.
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
        """The plugin's last report."""
        self._thread = threading.Thread(target=self._run, name="zseal-io", daemon=True)

    def ready(self) -> Ability:
        """Wait for the plugin's first message, and return its abilities. Raises EngineLostError if there is none."""
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
        """Send ``order``; the plugin takes it before the stopped machine is resumed."""
        with contextlib.suppress(OSError):  # others notice QEMU's end
            self._connection.sendall(order.value)

    def close(self) -> None:
        """Answer no more, and close the connections. A second call has no effect."""
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
        """Return whether ``cpu`` may go on; otherwise it stays."""
        if kind != PluginEvent.NOTIFICATION.value:
            with contextlib.suppress(EngineError):  # others notice its end
                self._monitor.events()  # not needed here, but QEMU keeps what is not read: two for each stop
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
            self._monitor.events()  # not needed here
            return self._view.queues()
        except OSError as error:
            raise EngineError(f"QEMU does not report its virtio devices: {error}") from error
