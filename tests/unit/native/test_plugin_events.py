"""The plugin in QEMU without QEMU, against a model of it in Python: random instructions, call sites and orders."""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.native.building import HARNESS, NATIVE, build, examples
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.plugin import Ability
from zseal.engine.qemu.plugin_queues import QueueWatch

MESSAGE = struct.Struct("=IIQ")
READY, NOTIFICATION, CALL, ENTRY, LOAD, START, RESET, NOTHING = range(8)
GO, BEGIN, KERNEL = b"\1", b"\2", b"\3"
KERNEL_ENTRY = 0x10000
NEWEST_KNOWN = 7
PASSED = -1
"""The call site where the plugin itself takes the lock."""
CPUS = 4
UVC = bytes.fromhex("b9a4")

INSTRUCTIONS = {
    NOTIFICATION: bytes.fromhex("83240500"),
    RESET: bytes.fromhex("83020308"),
    NOTHING: bytes.fromhex("83000044"),
    START: bytes.fromhex("b2332000"),
    CALL: bytes.fromhex("b9a40000"),
    LOAD: bytes.fromhex("b2b20200"),
    READY: bytes.fromhex("a7f40000"),  # none of interest
}
CALIBRATED_BY = (NOTHING, NOTIFICATION, RESET, START, CALL)

Message = tuple[int, int, int]
Step = tuple[object, ...]


class Zseal:
    """The far end of the plugin's channel: lets each CPU go on, and keeps what it was asked."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._messages: list[Message] = []
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def __enter__(self) -> Zseal:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.messages()

    def order(self, order: bytes) -> None:
        self._ours.sendall(order)

    def messages(self) -> list[Message]:
        """Return all messages; the plugin is not to be used after that."""
        if self.theirs.fileno() >= 0:
            self.theirs.shutdown(socket.SHUT_WR)
        self._thread.join()
        self.theirs.close()
        self._ours.close()
        return self._messages

    def _answer(self) -> None:
        while len(data := self._ours.recv(MESSAGE.size, socket.MSG_WAITALL)) == MESSAGE.size:
            message = MESSAGE.unpack(data)
            self._messages.append(message)
            if message[0] != READY:
                self._ours.sendall(GO)


class Qemu:
    """A QEMU with the plugin, see harness/qemu.c."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.test_is_watching.restype = ctypes.c_bool

    def install(self, options: Sequence[bytes], interface: int = NEWEST_KNOWN) -> int:
        arguments = (ctypes.c_char_p * len(options))(*options)
        status: int = self._library.test_install(interface, len(options), arguments)
        return status

    def is_watching(self) -> bool:
        return bool(self._library.test_is_watching())

    def translate(self, address: int, code: bytes) -> int:
        number: int = self._library.test_translate(ctypes.c_uint64(address), code, ctypes.c_size_t(len(code)))
        return number

    def execute(self, number: int, cpu: int) -> None:
        self._library.test_execute(number, cpu)

    def lock(self, site: int, cpu: int | None, address: int, code: bytes) -> None:
        self._library.test_lock(site, -1 if cpu is None else cpu, ctypes.c_uint64(address), code)

    def become_idle(self, cpu: int, *, stopped: bool, interrupts: int) -> int:
        left: int = self._library.test_become_idle(cpu, stopped, interrupts)
        return left

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *_exception: object) -> None:
        _ctypes.dlclose(self._library._handle)


class Model:
    """What the plugin has to do, in the words of docs/plugin.md."""

    def __init__(self, *, exported: bool, known: bool, lock: bool, notifications: bool) -> None:
        self._exported = exported
        self._notifications = notifications
        self._lock_watched = self._calibrating = exported and known and lock
        self._calibrated = self._booting = False
        self.watching = True
        self._starts = 0
        self._expected = READY
        self._places: dict[int, int] = {}
        self._orders: list[bytes] = []
        self._cpus = [(0, b"\0\0")] * CPUS
        self._translated: list[tuple[int, list[int]]] = []
        self.messages = [self._ready()]

    def _ready(self) -> Message:
        found = Ability.EXACT if self._exported else Ability(0)
        found |= Ability.CALIBRATABLE if self._lock_watched else Ability(0)
        found |= Ability.CALIBRATED if self._calibrated else Ability(0)
        return READY, 0, found

    def order(self, order: bytes) -> None:
        self._orders.append(order)

    def _obey(self) -> None:
        for order in self._orders:
            if order == BEGIN:
                places = [self._places.get(event) for event in CALIBRATED_BY]
                self._calibrated = None not in places and len(set(places)) == len(places)
                self._calibrating = False
                self.messages.append(self._ready())
            else:
                self._booting = False
                self.watching = self.watching and not self._calibrated
        self._orders.clear()

    def _ask(self, event: int, cpu: int, value: int) -> None:
        self.messages.append((event, cpu, value))
        self._obey()

    def translate(self, address: int, kind: int, size: int) -> None:
        seen = []
        if self.watching:
            devices = self._notifications or self._calibrating
            wanted = {
                NOTIFICATION: devices,
                START: devices,
                RESET: self._calibrating,
                NOTHING: self._calibrating,
                CALL: True,
                LOAD: self._exported and self._booting,
            }
            seen += [ENTRY] if address == KERNEL_ENTRY else []
            seen += [kind] if size == 4 and wanted.get(kind) else []
        self._translated.append((address, seen))

    def execute(self, number: int, cpu: int) -> None:
        address, seen = self._translated[number]
        for event in seen:
            if event == ENTRY or (event == LOAD and self._booting):
                self._booting = True
                self._ask(event, cpu, address)
                if self._exported:
                    self.lock(PASSED, cpu, *self._cpus[cpu])
            elif event != LOAD and not self._left_to_lock(event):
                self._seen(event, cpu, address)

    def _left_to_lock(self, event: int) -> bool:
        if self._calibrating:
            self._expected = event
        return self._calibrating or self._calibrated

    def _seen(self, event: int, cpu: int, address: int) -> None:
        if event == CALL:
            self._ask(CALL, cpu, address)
        elif event == NOTIFICATION and self._notifications:
            self._ask(NOTIFICATION, cpu, self._starts)
        elif event == START:
            self._starts += 1

    def lock(self, site: int, cpu: int | None, address: int, code: bytes) -> None:
        if cpu is not None:
            self._cpus[cpu] = address, code
        if not self._lock_watched:
            return
        if cpu is None:
            self._obey()
            return
        call = code == UVC and not address >> 60
        event, self._expected = self._expected, READY
        if event != READY:
            if event != CALL or call:
                self._places[event] = site
        elif self._calibrated:
            found = next((known for known, place in self._places.items() if place == site), NOTHING)
            if found == RESET:
                self.watching = True
            elif found != CALL or call:
                self._seen(found, cpu, address)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return the plugin in a QEMU that exports its lock (True), and in one that does not."""
    folder = tmp_path_factory.mktemp("plugin")
    sources = [HARNESS / "qemu.c", *sorted((NATIVE / "qemu_plugin").glob("*.c"))]
    options = [f"-I{NATIVE / 'qemu_plugin'}"]
    return {
        True: build(folder, "exported", sources, options=options),
        False: build(folder, "unexported", sources, options=[*options, "-DNO_LOCK"]),
    }


@pytest.fixture(scope="session")
def load(libraries: dict[bool, Path]) -> Iterator[Callable[[bool], Qemu]]:
    """Load a QEMU whose plugin has not been installed: each is a file of its own to the loader."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:

        def fresh(exported: bool) -> Qemu:
            copy = Path(folder) / f"{next(numbers)}.so"
            shutil.copy(libraries[exported], copy)
            qemu = Qemu(copy)
            copy.unlink()
            return qemu

        yield fresh


cpus = st.integers(0, CPUS - 1)
sites = st.integers(0, 7)
addresses = st.sampled_from((0x11F84, 0x3FFFE000000, 1 << 60))
codes = st.sampled_from((UVC, UVC, b"\xb9\xa5", b"\0\0"))
steps = st.one_of(
    st.tuples(
        st.just("translate"),
        st.sampled_from((KERNEL_ENTRY, 0x11F84, 0x3FFFE000000)),
        st.sampled_from(sorted(INSTRUCTIONS)),
        st.sampled_from((2, 4, 4, 4, 6)),
    ),
    st.tuples(st.just("execute"), st.integers(0, 99), cpus),
    st.tuples(st.just("execute"), st.integers(0, 99), cpus),
    st.tuples(st.just("lock"), sites, st.one_of(cpus, st.none()), addresses, codes),
    st.tuples(st.just("lock"), sites, st.one_of(cpus, st.none()), addresses, codes),
    st.tuples(st.just("order"), st.sampled_from((BEGIN, KERNEL))),
)
calibrations = st.one_of(
    st.none(), st.lists(sites, min_size=5, max_size=5), st.permutations(range(8)).map(lambda each: each[:5])
)


def calibration(places: Sequence[int]) -> list[Step]:
    """Return what happens when a CPU executes the examples, with the lock taken at these places next."""
    found: list[Step] = []
    for number, (event, site) in enumerate(zip(CALIBRATED_BY, places, strict=True)):
        found += [("translate", 0x2000, event, 4), ("execute", number, 0), ("lock", site, 0, 0x2000, UVC)]
    return [*found, ("order", BEGIN), ("lock", 9, None, 0, b"\0\0")]


RUNNING: list[Step] = [
    ("lock", 4, 1, 0x3FFFE000000, UVC),  # a call
    ("lock", 4, 1, 0x3FFFE000000, b"\0\0"),  # another exception
    ("lock", 1, 2, 0, b"\0\0"),  # a notification
    ("lock", 3, 2, 0, b"\0\0"),  # a START SUBCHANNEL
    ("lock", 1, 2, 0, b"\0\0"),
    ("lock", 2, 0, 0, b"\0\0"),  # a reset
    ("translate", KERNEL_ENTRY, READY, 4),
    ("execute", 5, 0),
]


def perform(script: Sequence[Step], qemu: Qemu, zseal: Zseal, model: Model | None = None) -> None:
    """Have ``qemu`` and the model do the same; both watch translations at the same times."""
    translated = 0
    for step in script:
        match step:
            case ("translate", int(address), int(kind), int(size)):
                assert qemu.translate(address, (INSTRUCTIONS[kind] + bytes(2))[:size]) == translated
                if model is not None:
                    model.translate(address, kind, size)
                translated += 1
            case ("execute", int(number), int(cpu)) if translated:
                qemu.execute(number % translated, cpu)
                if model is not None:
                    model.execute(number % translated, cpu)
            case ("lock", int(site), cpu, int(address), bytes(code)):
                assert cpu is None or isinstance(cpu, int)
                qemu.lock(site, cpu, address, code)
                if model is not None:
                    model.lock(site, cpu, address, code)
            case ("order", bytes(order)):
                zseal.order(order)
                if model is not None:
                    model.order(order)
        assert model is None or qemu.is_watching() is model.watching


@given(
    exported=st.booleans(),
    interface=st.sampled_from((1, 2, 3, 5, 6, NEWEST_KNOWN, NEWEST_KNOWN + 1)),
    lock=st.booleans(),
    notifications=st.booleans(),
    places=calibrations,
    script=st.lists(steps, max_size=30),
)
@example(
    exported=True, interface=5, lock=True, notifications=True, places=range(5), script=[("order", KERNEL), *RUNNING]
)
@example(
    exported=True,
    interface=5,
    lock=True,
    notifications=True,
    places=None,
    script=[("order", BEGIN), ("order", KERNEL), ("order", BEGIN), ("lock", 9, None, 0, b"\0\0")],
)
@example(exported=True, interface=5, lock=False, notifications=True, places=range(5), script=RUNNING)
@settings(max_examples=examples(250))
def test_the_plugin_reports_what_the_model_reports(
    load: Callable[[bool], Qemu],
    exported: bool,
    interface: int,
    lock: bool,
    notifications: bool,
    places: Sequence[int] | None,
    script: list[Step],
) -> None:
    with load(exported) as qemu, Zseal() as zseal:
        model = Model(exported=exported, known=interface <= NEWEST_KNOWN, lock=lock, notifications=notifications)
        options = [f"socket={zseal.theirs.fileno()}", f"entry={KERNEL_ENTRY}"]
        options += [] if notifications else ["notifications=off"]
        options += [] if lock else ["lock=off"]
        assert qemu.install([option.encode() for option in options], interface) == 0
        perform([*(calibration(places) if places is not None else []), *script], qemu, zseal, model)
        assert zseal.messages() == model.messages


def test_a_running_kernel_is_seen_by_the_lock_alone(load: Callable[[bool], Qemu]) -> None:
    with load(True) as qemu, Zseal() as zseal:
        assert qemu.install([b"socket=%d" % zseal.theirs.fileno(), b"entry=65536"]) == 0
        perform([*calibration(range(5)), ("order", KERNEL), ("lock", 9, None, 0, b"\0\0")], qemu, zseal)
        assert not qemu.is_watching()
        perform(RUNNING[:-2], qemu, zseal)
        assert qemu.is_watching(), "after the reset"
        every = Ability.EXACT | Ability.CALIBRATABLE
        assert zseal.messages() == [
            (READY, 0, every),
            (READY, 0, every | Ability.CALIBRATED),
            (CALL, 1, 0x3FFFE000000),
            (NOTIFICATION, 2, 0),
            (NOTIFICATION, 2, 1),
        ]


@pytest.mark.parametrize("published", [False, True])
def test_a_plain_notification_is_let_through_and_counted(load: Callable[[bool], Qemu], published: bool) -> None:
    memory = SharedMemory(1 << 20)
    with load(False) as qemu, Zseal() as zseal:
        watch = QueueWatch(256, [1])
        if published:
            watch.publish(0, [None])
        files = [b"queues=%d" % watch.descriptor, b"storage=%d" % memory.descriptor]
        assert qemu.install([b"socket=%d" % zseal.theirs.fileno(), b"entry=65536", *files]) == 0
        qemu.execute(qemu.translate(0x5000, INSTRUCTIONS[NOTIFICATION]), 3)
        assert zseal.messages()[1:] == ([] if published else [(NOTIFICATION, 3, 0)])
        assert watch.notifications == published
    watch.close()
    memory.close()


@pytest.mark.parametrize(
    ("exported", "interface", "stopped", "left"),
    [
        (True, 5, False, 0x02),
        (True, 5, True, 0x22),
        (False, 5, False, 0x22),
        (False, 5, True, 0x22),
        (True, 7, False, 0x22),  # its callback has another form there
    ],
)
def test_a_cpu_that_is_idle_while_the_machine_runs_is_not_halted_again(
    load: Callable[[bool], Qemu], exported: bool, interface: int, stopped: bool, left: int
) -> None:
    with load(exported) as qemu, Zseal() as zseal:
        assert qemu.install([b"socket=%d" % zseal.theirs.fileno(), b"entry=65536"], interface) == 0
        assert qemu.become_idle(3, stopped=stopped, interrupts=0x22) == left


# --- options ---

names = st.sampled_from(("socket", "entry", "queues", "storage", "lock", "notifications", "sock", ""))
values = st.sampled_from(
    ("OURS", "999999", "", "off", "on", "0x10", "-1", "1000000", "10000000", "10000010", "100000000", "1 ")
)
option = st.one_of(
    st.builds(lambda name, value: f"{name}={value}", names, values),
    st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="0123456789"), max_size=12),
)
enough = ("socket=OURS", "entry=65536")


def number(digits: str) -> int | None:
    """Return the number, which may have one digit more than 1000000."""
    if not digits or not set(digits) <= set("0123456789") or int(digits[:-1] or "0") > 1_000_000:
        return None
    return int(digits)


def accepted(options: Sequence[str], ours: int) -> bool:
    """Whether QEMU is to start with these options, of which ``ours`` is the only descriptor that exists."""
    found = {"socket": -1, "entry": -1, "queues": -1, "storage": -1}
    notifications = True
    for each in options:
        name, _, digits = each.partition("=")
        value = number(digits) if name in found and "=" in each else None
        if value is not None:
            found[name] = value
        elif each == "notifications=off":
            notifications = False
        elif each != "lock=off":
            return False
    mapped = found["queues"] < 0 or not notifications  # a socket cannot be mapped, nor what does not exist
    return found["socket"] == ours and found["entry"] >= 0 and mapped


@given(st.lists(option, max_size=3), st.booleans())
@example(["entry=10000010"], True)
@settings(max_examples=examples(150))
def test_options_are_accepted_or_refused_as_a_whole(
    load: Callable[[bool], Qemu], options: list[str], complete: bool
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        given = [each.replace("OURS", str(number)) for each in ([*enough, *options] if complete else options)]
        with load(True) as qemu:
            status = qemu.install([each.encode("latin-1") for each in given])
            assert (status == 0) is accepted(given, number)
            assert qemu.is_watching() is (status == 0)
