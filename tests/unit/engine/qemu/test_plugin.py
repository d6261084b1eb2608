"""The thread that answers QEMU's plugin, and the choice between plugin and breakpoints."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.launch import with_plugin
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.plugin import (
    Ability,
    Notifications,
    Plugin,
    PluginEvent,
    PluginThread,
    find_plugin,
    plugin_environment,
)
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.qemu.sites import Sites
from zseal.engine.virtio import FindQueues, Notification, NotifyHook
from zseal.errors import UsageError

MESSAGE = struct.Struct("=IIQ")
READY, NOTIFICATION, CALL, ENTRY, LOAD = range(5)


class FarEnd:
    """The other end: what a CPU of QEMU does in front of its DIAGNOSE."""

    def __init__(self, hook: NotifyHook) -> None:
        ours, self.socket = socket.socketpair()
        monitor, self.monitor = socket.socketpair()
        self.failures: list[BaseException] = []
        self.reached: list[tuple[int, PluginEvent, int]] = []
        self.thread = PluginThread(ours, Qmp(monitor, timeout=0.05), hook, self._reached, self.failures.append)
        self.socket.settimeout(PATIENCE)

    def _reached(self, cpu: int, what: PluginEvent, address: int) -> None:
        self.reached.append((cpu, what, address))

    def notify(self, cpu: int = 0, setups: int = 1) -> bytes:
        return self.ask(NOTIFICATION, cpu, setups)

    def ask(self, kind: int, cpu: int, value: int) -> bytes:
        self.socket.sendall(MESSAGE.pack(kind, cpu, value))
        return self.socket.recv(1)

    def close(self) -> None:
        self.socket.close()
        self.thread.close()
        self.monitor.close()


@pytest.fixture
def plugin() -> Iterator[Callable[[NotifyHook], FarEnd]]:
    made: list[FarEnd] = []

    def start(hook: NotifyHook) -> FarEnd:
        made.append(FarEnd(hook))
        made[-1].thread.start()
        return made[-1]

    yield start
    for each in made:
        each.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "zseal-io"]


def test_each_notification_is_asked_about_and_answered(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    seen: list[Notification] = []

    def hook(notification: Notification, _find: FindQueues) -> bool:
        seen.append(notification)
        return True

    other = plugin(hook)
    assert other.notify(0, 5) == b"\1"
    other.socket.sendall(MESSAGE.pack(NOTIFICATION, 3, 6)[:5])
    other.socket.sendall(MESSAGE.pack(NOTIFICATION, 3, 6)[5:])
    assert other.socket.recv(1) == b"\1"
    assert seen == [Notification(0, 5), Notification(3, 6)]


def test_calls_and_entries_go_on_when_the_engine_has_been_told(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    other = plugin(lambda _notification, _find: False)
    assert other.ask(CALL, 2, 0x3FFFE000000) == b"\1"
    assert other.ask(ENTRY, 0, 0x10000) == b"\1"
    assert other.ask(LOAD, 0, 0x11F84) == b"\1"
    assert other.reached == [
        (2, PluginEvent.CALL, 0x3FFFE000000),
        (0, PluginEvent.ENTRY, 0x10000),
        (0, PluginEvent.LOAD, 0x11F84),
    ]


def test_events_that_nobody_needs_are_taken_from_qemu(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    other = plugin(allow)
    other.monitor.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            other.monitor.sendall(b'{"event": "STOP"}\n' * 1000)
    assert other.ask(CALL, 0, 0x1000) == b"\1"
    other.monitor.sendall(b'{"event": "STOP"}\n')


@pytest.mark.parametrize("abilities", [Ability(0), Ability.EXACT, Ability.EXACT | Ability.CALIBRATABLE])
def test_the_plugin_says_first_what_it_can_do_and_later_what_it_has_learned(abilities: Ability) -> None:
    other = FarEnd(allow)
    other.socket.sendall(MESSAGE.pack(READY, 0, abilities))
    assert other.thread.ready() == other.thread.abilities == abilities
    other.thread.start()
    other.socket.sendall(MESSAGE.pack(READY, 0, abilities | Ability.CALIBRATED))
    assert other.notify() == b"\1", "no answer to what is no question"
    assert other.thread.abilities == abilities | Ability.CALIBRATED
    other.close()


@pytest.mark.parametrize("first", [b"", MESSAGE.pack(CALL, 0, 0), MESSAGE.pack(READY, 0, 1)[:7]])
def test_a_plugin_that_does_not_say_it_is_there_is_an_error(first: bytes) -> None:
    other = FarEnd(allow)
    other.socket.sendall(first)
    other.socket.close()
    with pytest.raises(EngineLostError, match="plugin said nothing"):
        other.thread.ready()
    other.close()


def test_a_cpu_that_must_not_go_on_gets_no_answer(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    other = plugin(lambda _notification, _find: False)
    other.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        other.notify()
    assert other.failures == []


def test_what_the_hook_raises_is_told_and_the_cpu_stays(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    def hook(_notification: Notification, _find: FindQueues) -> bool:
        raise ValueError("a fault of ours")

    other = plugin(hook)
    other.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        other.notify()
    wait_until(lambda: other.failures)
    assert [str(error) for error in other.failures] == ["a fault of ours"]


def test_a_monitor_that_does_not_answer_is_an_engine_error(plugin: Callable[[NotifyHook], FarEnd]) -> None:
    errors: list[EngineError] = []

    def hook(_notification: Notification, find: FindQueues) -> bool:
        try:
            find()
        except EngineError as error:
            errors.append(error)
        return True

    other = plugin(hook)
    assert other.notify() == b"\1"
    assert "did not answer" in str(errors[0])
    other.monitor.close()
    assert other.notify() == b"\1"
    assert len(errors) == 2


def test_closing_twice_and_while_a_cpu_waits() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hook(_notification: Notification, _find: FindQueues) -> bool:
        entered.set()
        leave.wait(PATIENCE)
        return True

    other = FarEnd(hook)
    other.thread.start()
    other.socket.sendall(MESSAGE.pack(NOTIFICATION, 0, 0))
    assert entered.wait(PATIENCE)
    threading.Timer(0.05, leave.set).start()
    other.thread.close()
    other.thread.close()
    other.close()


# --- plugin or breakpoints ---


def never(error: BaseException) -> None:
    raise AssertionError(error)


def nobody(cpu: int, what: PluginEvent, address: int) -> None:
    raise AssertionError(cpu, what, address)


def allow(_notification: Notification, _find: FindQueues) -> bool:
    return True


def test_a_qemu_that_refuses_the_plugin_is_started_without() -> None:
    tried: list[Plugin | None] = []

    def create(plugin: Plugin | None, notice: str) -> str:
        tried.append(plugin)
        if plugin is not None:
            raise EngineError("QEMU did not start: Could not load plugin x: needs version 9")
        return notice

    notice = with_plugin(create)
    assert tried == [find_plugin(), None]
    assert "does not take zseal's plugin" in notice
    assert "needs version 9" in notice


@pytest.mark.parametrize(("value", "lock"), [(None, True), ("", True), ("translations", False)])
def test_the_environment_decides_whether_the_lock_is_watched(
    monkeypatch: pytest.MonkeyPatch, value: str | None, lock: bool
) -> None:
    monkeypatch.delenv("ZSEAL_PLUGIN", raising=False)
    if value is not None:
        monkeypatch.setenv("ZSEAL_PLUGIN", value)
    plugin = find_plugin()
    assert plugin is not None
    assert plugin.lock is lock


def test_the_environment_can_switch_the_plugin_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEAL_PLUGIN", "off")
    assert find_plugin() is None
    tried: list[tuple[Plugin | None, str]] = []
    with_plugin(lambda *given: tried.append(given))
    assert tried == [(None, "")], "what the user asked for is nothing to be told of"


def test_a_computer_without_a_plugin_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zseal._native.library", lambda _name: None)
    (given,) = [with_plugin(lambda *given: given)]
    assert given[0] is None
    assert given[1].startswith("zseal has no plugin for this computer's QEMU")


@pytest.mark.parametrize("value", ["on", "OFF", " off", "lock", "0"])
def test_an_unknown_use_of_the_plugin_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ZSEAL_PLUGIN", value)
    with pytest.raises(UsageError, match=f"has the unknown value '{value}'; set it to off or translations"):
        find_plugin()


def test_another_reason_not_to_start_is_not_hidden() -> None:
    def create(_plugin: Plugin | None, _notice: str) -> str:
        raise EngineError("QEMU did not start: no such disk")

    with pytest.raises(EngineError, match="no such disk"):
        with_plugin(create)


def test_without_a_hook_no_notification_is_watched() -> None:
    notifications = Notifications(None, nobody, never)
    sites = SimpleNamespace(notifications=False, calls=True, loads=False)
    notifications.watch(cast(QemuMachine, SimpleNamespace(plugin=None)), cast(Sites, sites))
    assert (notifications.by, sites.notifications, sites.calls, sites.loads) == ("none", False, True, True)
    notifications.close()


@pytest.mark.parametrize("exact", [False, True])
def test_with_the_plugin_no_breakpoints_are_wanted(exact: bool) -> None:
    notifications = Notifications(allow, nobody, never)
    sites = SimpleNamespace(notifications=False, calls=True, loads=True)
    ours, theirs = socket.socketpair()
    monitor, other = socket.socketpair()
    machine = SimpleNamespace(plugin=(ours, Qmp(monitor, timeout=0.05)))
    with theirs, other:
        theirs.sendall(MESSAGE.pack(READY, 0, exact))
        notifications.watch(cast(QemuMachine, machine), cast(Sites, sites))
        notifications.close()
    assert (notifications.by, sites.notifications, sites.calls) == ("plugin", False, False)
    assert (notifications.exact, sites.loads) == (exact, not exact)


@pytest.mark.parametrize("abilities", [Ability(0), Ability.EXACT, Ability.EXACT | Ability.CALIBRATABLE])
def test_the_plugin_is_taught_where_it_can_learn_and_told_how_the_guest_gets_on(
    monkeypatch: pytest.MonkeyPatch, abilities: Ability
) -> None:
    taught: list[object] = []
    monkeypatch.setattr("zseal.engine.qemu.plugin.calibrate", lambda *what: taught.extend(what))
    notifications = Notifications(None, nobody, never)
    sites = SimpleNamespace(notifications=False, calls=True, loads=True)
    cpu, memory = cast(QemuCpu, object()), cast(SharedMemory, object())
    ours, theirs = socket.socketpair()
    monitor, other = socket.socketpair()
    machine = SimpleNamespace(plugin=(ours, Qmp(monitor, timeout=0.05)))
    assert notifications.calls_by == "breakpoints"
    with theirs, other:
        theirs.settimeout(PATIENCE)
        theirs.sendall(MESSAGE.pack(READY, 0, abilities))
        notifications.watch(cast(QemuMachine, machine), cast(Sites, sites))
        notifications.begin(cpu, memory)
        told = [theirs.recv(9)]
        notifications.kernel_begins()
        told.append(theirs.recv(9))
        assert notifications.calls_by == "translations"
        theirs.sendall(MESSAGE.pack(READY, 0, abilities | Ability.CALIBRATED))
        theirs.sendall(MESSAGE.pack(NOTIFICATION, 0, 0))
        assert theirs.recv(1) == b"\1"
        assert notifications.calls_by == "lock"
        notifications.close()
        notifications.kernel_begins()  # nobody is there to be told
    assert told == [b"\2", b"\3"]
    assert taught == ([cpu, memory] if Ability.CALIBRATABLE in abilities else [])


def test_without_a_plugin_breakpoints_are_set_and_asked_about() -> None:
    seen: list[Notification] = []
    answer = True

    def hook(notification: Notification, _find: FindQueues) -> bool:
        seen.append(notification)
        return answer

    notifications = Notifications(hook, nobody, never)
    sites = SimpleNamespace(notifications=False, calls=True)
    ended: list[float] = []
    machine = cast(QemuMachine, SimpleNamespace(plugin=None, qmp=None, process=SimpleNamespace(wait=ended.append)))
    notifications.watch(machine, cast(Sites, sites))
    assert (notifications.by, sites.notifications) == ("breakpoints", True)
    assert notifications.at_breakpoint(2, machine)
    assert notifications.at_breakpoint(1, machine)
    assert [each.cpu for each in seen] == [2, 1]
    assert seen[0].setups != seen[1].setups, "queues are asked for at each stop"
    answer = False
    with pytest.raises(EngineLostError):
        notifications.at_breakpoint(0, machine)
    assert ended


@pytest.mark.parametrize(
    ("version", "environment"),
    [
        (None, {}),
        ((7, 2), {}),
        ((11, 0), {}),
        ((11, 1), {"ZSEAL_PLUGIN_INTERFACE": "7"}),
        ((12, 0), {"ZSEAL_PLUGIN_INTERFACE": "7"}),
    ],
)
def test_a_qemu_that_takes_newer_plugins_only_is_named_to_the_plugin(
    version: tuple[int, int] | None, environment: dict[str, str]
) -> None:
    assert plugin_environment(version) == environment
