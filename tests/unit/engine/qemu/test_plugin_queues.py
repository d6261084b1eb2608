"""What the plugin in QEMU makes of virtio queues, against the audit that looks at everything itself.

``native/qemu_plugin/queues.c`` is compiled for this computer and called as the plugin calls it. After each step of a
driver and a device both have to have the same account, and the same violations.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.paths import REPOSITORY
from tests.unit.native.building import build, examples, is_sanitized
from tests.waiting import PATIENCE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.qemu.plugin_queues import QUEUES, RECORDS, QueueWatch
from zseal.engine.virtio import Notification, VirtioDevice, VirtioQueue
from zseal.errors import InputError
from zseal.formats.virtqueue import DESCRIPTOR_SIZE, Descriptor, QueueLayout
from zseal.guest.audit.audit import IoAudit
from zseal.guest.audit.pages import SHARED_STATES, SharedPages
from zseal.guest.audit.policy import IoPolicy
from zseal.hypervisor.host_side import HostSide
from zseal.ultravisor.host import HostInterface
from zseal.ultravisor.tables import PageState

SOURCE = REPOSITORY / "native" / "qemu_plugin" / "queues.c"
PAGES = 32
SIZE = 8
NEXT, WRITE, INDIRECT = 1, 2, 4
DISK = VirtioDevice("/machine/peripheral/disk0", "virtio-blk", "0.0.0001", "disk0")
NET = VirtioDevice("/machine/peripheral/net0", "virtio-net", "0.0.0002", "net0")
PRIVATE = (0, 15, 29)
"""Pages that are not shared; the last two lie between shared ones."""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("queues")
    path = build(folder, "queues", [SOURCE]) if is_sanitized() else build_as_shipped(folder)
    library = ctypes.CDLL(str(path))
    library.zseal_all_plain.restype = ctypes.c_bool
    library.zseal_all_plain.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
    return library


def build_as_shipped(folder: Path) -> Path:
    """Compile with the compiler and the optimisation of the plugin in the package."""
    zig = (sys.executable, "-m", "ziglang")
    flags = ("-std=gnu11", "-Os", "-ffreestanding", "-fPIC", "-fno-stack-protector", "-fno-sanitize=all", "-Wall")
    target = ("-target", f"{platform.machine()}-freestanding-none")
    environment = {name: str(folder / "cache") for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    for command in (
        (*zig, "cc", *target, *flags, "-c", "-o", "queues.o", str(SOURCE)),
        (*zig, "ld.lld", "-shared", "-z", "undefs", "-o", "queues.so", "queues.o"),
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=PATIENCE)
    return folder / "queues.so"


class Storage:
    """Guest storage with a driver and a device for each queue."""

    def __init__(self, *layouts: QueueLayout) -> None:
        self.data = bytearray(PAGES * PAGE_SIZE)
        self.layouts = layouts
        self.offered = [0] * len(layouts)
        self.returned = [0] * len(layouts)
        self.states = np.full(PAGES, PageState.SHARED, np.uint8)
        self.states[list(PRIVATE)] = PageState.PRIVATE

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.data):
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        self.data[address : address + len(data)] = data

    def describe(self, queue: int, table: int, descriptors: Sequence[Descriptor]) -> None:
        for number, descriptor in enumerate(descriptors):
            packed = descriptor.pack(big_endian=self.layouts[queue].big_endian)
            self.write(table + DESCRIPTOR_SIZE * number, packed)

    def _put(self, queue: int, address: int, form: str, *values: int) -> None:
        self.write(address, struct.pack((">" if self.layouts[queue].big_endian else "<") + form, *values))

    def offer(self, queue: int, head: int) -> None:
        """The driver's part: make a chain available."""
        layout = self.layouts[queue]
        self._put(queue, layout.available + 4 + 2 * (self.offered[queue] % layout.size), "H", head)
        self.offered[queue] = (self.offered[queue] + 1) % 0x10000
        self._put(queue, layout.available + 2, "H", self.offered[queue])

    def give_back(self, queue: int, head: int, written: int) -> None:
        """The device's part: a chain is finished."""
        layout = self.layouts[queue]
        self._put(queue, layout.used + 4 + 8 * (self.returned[queue] % layout.size), "II", head, written)
        self.returned[queue] = (self.returned[queue] + 1) % 0x10000
        self._put(queue, layout.used + 2, "H", self.returned[queue])


class Guest:
    """A guest that is audited with the plugin's help, or without."""

    def __init__(self, storage: Storage, library: ctypes.CDLL | None) -> None:
        self._storage = storage
        self._library = library
        self.setups = 1
        self.asked = self.begun = 0
        self.gone: set[int] = set()
        self.packed = False
        self._watch = None
        states = storage.states
        if library is not None:
            self._watch = QueueWatch(PAGES, SHARED_STATES)
            weakref.finalize(self, self._watch.close)
            states = self._watch.blank_states(PAGES)
        self.states = states
        uv = SimpleNamespace(page_states=lambda _handle: states)
        self.audit = IoAudit(
            IoPolicy.AUDIT,
            read=storage.read,
            pages=SharedPages(HostSide(cast(HostInterface, uv), PAGES << 12, configuration=1)),
            protected=lambda: True,
            clock=lambda: 0.0,
            on_violation=lambda _finding: None,
            watch=self._watch,
        )

    def find(self) -> list[VirtioQueue]:
        return [
            VirtioQueue((DISK, NET)[number % 2], number, layout, taken=self.begun, used=self.begun, packed=self.packed)
            for number, layout in enumerate(self._storage.layouts)
            if number not in self.gone
        ]

    def notify(self) -> None:
        self.states[:] = self._storage.states
        if not self._plain():
            self.asked += 1
            self.audit.notified(Notification(0, self.setups), self.find)

    def _plain(self) -> bool:
        if self._library is None or self._watch is None:
            return False
        storage = (ctypes.c_ubyte * len(self._storage.data)).from_buffer(self._storage.data)
        shared = self._watch._map
        # A copy, because what lies after it is no object of this process: a sanitizer sees what leaves it.
        watch = (ctypes.c_ubyte * len(shared)).from_buffer_copy(shared)
        plain = bool(self._library.zseal_all_plain(watch, storage, self.setups))
        shared[:] = memoryview(watch).cast("B")
        return plain


def layout(base: int, *, big_endian: bool = False, size: int = SIZE) -> QueueLayout:
    return QueueLayout(size, base, base + PAGE_SIZE, base + 2 * PAGE_SIZE, big_endian=big_endian)


BOTH = (layout(1 * PAGE_SIZE), layout(4 * PAGE_SIZE, big_endian=True))

addresses = st.one_of(
    st.builds(
        lambda page, offset: page * PAGE_SIZE + offset,
        st.one_of(st.integers(16, 28), st.sampled_from((14, 15, 29, 30, 31, 32))),
        st.sampled_from((0, 8, 4094, 4095)),
    ),
    st.sampled_from((1 << 63, (1 << 64) - 1)),
)
lengths = st.sampled_from((0, 1, 2, 16, 512, 4096, 4097, 9000, 0xFFFFFFFF))
shared_addresses = st.integers(16 * PAGE_SIZE, 28 * PAGE_SIZE)
short_lengths = st.integers(1, 4096)
plain = st.tuples(shared_addresses, short_lengths, st.sampled_from((0, WRITE)))
buffers = st.lists(
    st.one_of(plain, plain, plain, st.tuples(addresses, lengths, st.sampled_from((0, WRITE)))), max_size=4
)
plain_buffers = st.lists(plain, min_size=1, max_size=20)
queues = st.sampled_from((0, 1))
heads = st.integers(0, SIZE - 1)
flips = st.one_of(
    st.none(), st.none(), st.tuples(st.integers(0, 4), st.sampled_from(("flags", "next")), st.integers(0, 9))
)

steps = st.one_of(
    st.tuples(st.just("direct"), queues, st.integers(0, SIZE), buffers, flips),
    st.tuples(st.just("table"), queues, heads, st.one_of(buffers, plain_buffers), flips),
    st.tuples(st.just("finish"), queues, st.integers(0, 9), st.sampled_from((0, 1, 600, 1 << 20))),
    st.tuples(st.just("share"), st.sampled_from((1, 2, 3, 5, 9, 16, 20)), st.booleans()),
    st.tuples(st.just("notify")),
    st.tuples(st.just("notify")),
    st.tuples(st.just("look")),
    st.tuples(st.just("setup")),
)


def descriptors(
    parts: Sequence[tuple[int, int, int]], flip: tuple[int, str, int] | None, base: int, size: int
) -> list[Descriptor]:
    """Return a chain in order from number ``base`` on, of which one value may be wrong."""
    found = [
        Descriptor(address, length, flags | (NEXT if number < len(parts) - 1 else 0), (base + number + 1) % size)
        for number, (address, length, flags) in enumerate(parts)
    ]
    if flip is not None and flip[0] < len(found):
        found[flip[0]] = found[flip[0]]._replace(**{flip[1]: flip[2]})
    return found


def act(storage: Storage, step: tuple[object, ...]) -> None:
    """Change ``storage`` as a driver, a device or the ultravisor would."""
    match step:
        case ("direct", int(queue), int(head), list(parts), flip):
            chain = descriptors(parts, cast("tuple[int, str, int] | None", flip), head, SIZE)
            for number, descriptor in enumerate(chain):
                storage.describe(
                    queue, storage.layouts[queue].descriptors + 16 * ((head + number) % SIZE), [descriptor]
                )
            storage.offer(queue, head)
        case ("table", int(queue), int(head), list(parts), flip):
            table = (8 + queue * 3) * PAGE_SIZE + 512 * head
            chain = descriptors(parts, cast("tuple[int, str, int] | None", flip), 0, 1 << 16)
            storage.describe(queue, table, chain)
            entry = Descriptor(table, DESCRIPTOR_SIZE * len(chain), INDIRECT, 0)
            storage.describe(queue, storage.layouts[queue].descriptors + 16 * head, [entry])
            storage.offer(queue, head)
        case ("finish", int(queue), int(head), int(written)):
            storage.give_back(queue, head, written)
        case ("share", int(page), bool(shared)):
            storage.states[page] = PageState.SHARED_OUT if shared else PageState.PRIVATE


def compare(with_help: Guest, alone: Guest) -> None:
    """Both have the same account; pages are marked of requests that were finished before anybody looked, maybe."""
    one, other = with_help.audit.report(), alone.audit.report()
    assert one.pop("notifications_without_stop") == alone.asked - with_help.asked
    assert other.pop("notifications_without_stop") == 0
    for mine, yours in zip(
        cast(list[dict[str, int]], one["queues"]), cast(list[dict[str, int]], other["queues"]), strict=True
    ):
        more = mine.pop("shared_pages") - yours.pop("shared_pages")
        assert more >= 0
        assert more == 0 or mine["unseen"]
    assert one == other


@given(st.lists(steps, max_size=40))
@settings(max_examples=examples(400), deadline=None)
@example([("table", 0, 1, [(0x10000, 16, 0), (0x11000, 9000, 2), (0x14000, 1, 2)], None), ("notify",), ("look",)] * 30)
@example(
    [
        ("direct", 0, 1, [(0x10000, 16, 2)], None),
        ("notify",),
        ("finish", 0, 1, 9),
        ("look",),
        ("direct", 0, 2, [(0x10000, 16, 2)], None),
        ("finish", 0, 2, 7),
    ]
    * 2
)
@example(
    [
        ("direct", 0, 1, [(0x10000, 16, 2)], None),
        ("notify",),
        ("finish", 0, 1, 9),
        ("look",),
        ("direct", 0, 2, [(0x10000, 0, 2), (0x10000, 16, 2)], None),  # asks
        ("notify",),
        ("finish", 0, 2, 8),
        ("direct", 0, 3, [(0x10000, 16, 2)], None),
        ("notify",),
        ("finish", 0, 3, 7),
        ("direct", 0, 4, [(0x10000, 16, 2)], None),
        ("notify",),
        ("finish", 0, 4, 6),
    ]
)
@example([("direct", 1, 6, [(0x10000, 16, 0), (0x11000, 9000, 2), (0x14000, 1, 2)], None), ("notify",)])
def test_both_have_the_same_account(plugin: ctypes.CDLL, script: list[tuple[object, ...]]) -> None:
    storage = Storage(*BOTH)
    with_help, alone = Guest(storage, plugin), Guest(storage, None)
    for step in (("notify",), *script, ("notify",), ("look",)):
        match step:
            case ("notify",):
                with_help.notify()
                alone.notify()
            case ("look",):
                compare(with_help, alone)
            case ("setup",):
                with_help.setups += 1
                alone.setups += 1
            case _:
                act(storage, step)
    assert with_help.asked <= alone.asked


TOTAL = PAGES * PAGE_SIZE
places = st.sampled_from(
    (0x1000, 0x3FF0, 0x10000, TOTAL - 4096, TOTAL - 64, TOTAL - 16, TOTAL - 4, TOTAL, 1 << 63, (1 << 64) - 4)
)
layouts = st.builds(
    QueueLayout,
    size=st.sampled_from((1, 2, 8, 256, 1024, 2048, 32768)),
    descriptors=places,
    available=places,
    used=places,
    big_endian=st.booleans(),
)
contents = st.lists(st.sampled_from((0, 0, 0, 1, 2, 4, 16, 0x1F, 0xFF)), min_size=1, max_size=40).map(bytes)


@given(where=layouts, content=contents, added=st.lists(st.integers(0, 3), max_size=4))
@settings(max_examples=examples(300), deadline=None)
@example(where=QueueLayout(1, TOTAL - 16, 0x1000, 0x1100), content=bytes(8) + b"\1" + bytes(7), added=[1, 1])
@example(where=QueueLayout(8, 0x1000, TOTAL - 4, 0x2000), content=b"\0", added=[1])
def test_queues_may_lie_anywhere_and_hold_anything(
    plugin: ctypes.CDLL, where: QueueLayout, content: bytes, added: list[int]
) -> None:
    storage = Storage(where)
    storage.data[:] = (content * (TOTAL // len(content) + 1))[:TOTAL]
    with_help, alone = Guest(storage, plugin), Guest(storage, None)
    index, form = where.available + 2, ">H" if where.big_endian else "<H"
    for count in (0, *added):
        if index + 2 <= TOTAL:
            (known,) = struct.unpack_from(form, storage.data, index)
            struct.pack_into(form, storage.data, index, (known + count) % 0x10000)
        with_help.notify()
        alone.notify()
        assert len(storage.data) == TOTAL
    compare(with_help, alone)


def disk(*descriptors: Descriptor, where: QueueLayout = BOTH[0]) -> Storage:
    """Return storage with one queue, whose descriptors are these and whose rings are empty."""
    storage = Storage(where)
    storage.describe(0, where.descriptors, descriptors)
    return storage


def table(count: int, *, rest: int = 0, big_endian: bool = False) -> Storage:
    """Return storage with a request whose table has so many small buffers, and ``rest`` bytes behind them."""
    at = 16 * PAGE_SIZE
    named = Descriptor(at, DESCRIPTOR_SIZE * count + rest, INDIRECT, 0)
    storage = disk(named, where=layout(PAGE_SIZE, big_endian=big_endian))
    storage.describe(0, at, descriptors([(20 * PAGE_SIZE, 8, WRITE)] * count, None, 0, 1 << 16))
    return storage


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("count", [1, 2, 20, 1024])
def test_plain_requests_are_let_through(plugin: ctypes.CDLL, count: int, big_endian: bool) -> None:
    storage = table(count, big_endian=big_endian)
    guest = Guest(storage, plugin)
    guest.notify()
    for _ in range(3 * SIZE):
        storage.offer(0, 0)
        guest.notify()
        storage.give_back(0, 0, 8)
    assert guest.asked == 1
    (moved,) = guest.audit.traffic()
    assert (moved.requests, moved.bytes_from_device, moved.violations) == (3 * SIZE, 3 * SIZE * 8, 0)
    assert moved.shared_pages == 3 + 4 * (count == 1024) + (count < 1024) + 1, "rings, table, buffers"
    assert guest.audit.notifications == 3 * SIZE + 1
    assert guest.audit.report()["notifications_without_stop"] == 3 * SIZE


PLAIN = Descriptor(16 * PAGE_SIZE, 8, 0, 0)


@pytest.mark.parametrize(
    "descriptor",
    [
        PLAIN._replace(address=15 * PAGE_SIZE),
        PLAIN._replace(address=15 * PAGE_SIZE - 1),
        PLAIN._replace(length=20 * PAGE_SIZE),
        PLAIN._replace(address=PAGES * PAGE_SIZE),
        PLAIN._replace(address=(1 << 64) - 4),
        PLAIN._replace(length=0),
        PLAIN._replace(flags=NEXT),
        PLAIN._replace(flags=NEXT, next=SIZE),
        PLAIN._replace(flags=INDIRECT, length=8),
        PLAIN._replace(flags=INDIRECT, length=DESCRIPTOR_SIZE * 1025),
        PLAIN._replace(flags=INDIRECT, address=15 * PAGE_SIZE, length=DESCRIPTOR_SIZE),
        PLAIN._replace(flags=INDIRECT, address=PAGE_SIZE, length=DESCRIPTOR_SIZE),  # that is this descriptor
    ],
)
def test_what_is_not_plain_is_left_to_zseal(plugin: ctypes.CDLL, descriptor: Descriptor) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    guest.notify()
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 1
    storage.give_back(0, 0, 0)
    storage.describe(0, PAGE_SIZE, [descriptor])
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2
    assert guest.audit.traffic()[0].requests == 2


@pytest.mark.parametrize(("count", "rest"), [(1025, 0), (2, 8)])
def test_tables_of_a_wrong_length_are_left_to_zseal(plugin: ctypes.CDLL, count: int, rest: int) -> None:
    storage = table(count, rest=rest)
    guest = Guest(storage, plugin)
    guest.notify()
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2
    assert guest.audit.traffic()[0].violations == 1


def test_a_chain_does_not_leave_its_queue(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN._replace(flags=NEXT, next=SIZE))
    storage.describe(0, storage.layouts[0].descriptors + DESCRIPTOR_SIZE * SIZE, [PLAIN])
    guest = Guest(storage, plugin)
    guest.notify()
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2


@pytest.mark.parametrize("ring", ["offered", "returned"])
def test_an_index_that_jumps_is_left_to_zseal(plugin: ctypes.CDLL, ring: str) -> None:
    storage = disk(*[PLAIN] * SIZE)
    guest = Guest(storage, plugin)
    guest.notify()
    getattr(storage, ring)[0] = SIZE
    if ring == "returned":
        storage.give_back(0, 0, 0)
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2


END = 15 * PAGE_SIZE
"""Where private storage begins."""


@pytest.mark.parametrize(
    "where",
    [
        dataclasses.replace(BOTH[0], descriptors=END - DESCRIPTOR_SIZE * SIZE + 1),
        dataclasses.replace(BOTH[0], available=END - 6 - 2 * SIZE + 1),
        dataclasses.replace(BOTH[0], used=END - 6 - 8 * SIZE + 1),
        dataclasses.replace(BOTH[0], descriptors=1 << 62),
        dataclasses.replace(BOTH[0], available=1 << 62),
        dataclasses.replace(BOTH[0], used=1 << 62),
        dataclasses.replace(BOTH[0], size=2048),
    ],
)
def test_rings_that_reach_further_are_left_to_zseal(plugin: ctypes.CDLL, where: QueueLayout) -> None:
    storage = Storage(where)
    guest = Guest(storage, plugin)
    guest.notify()
    if where.descriptors < len(storage.data):
        storage.describe(0, where.descriptors, [PLAIN])
    if where.available < len(storage.data):
        storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2


def test_page_states_are_those_of_the_moment(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    guest.notify()
    for state in PageState:
        storage.states[16] = state
        asked = guest.asked
        storage.offer(0, 0)
        guest.notify()
        storage.give_back(0, 0, 0)
        assert (guest.asked == asked) is (state in SHARED_STATES), state


@pytest.mark.parametrize("page", [1, 2, 3])
def test_rings_have_to_be_shared(plugin: ctypes.CDLL, page: int) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    guest.notify()
    storage.states[page] = PageState.PRIVATE
    guest.notify()
    assert guest.asked == 1, "nothing is new in them"
    storage.offer(0, 0)
    guest.notify()
    assert guest.asked == 2
    assert guest.audit.traffic()[0].violations == 1


def test_when_there_is_no_room_for_records_it_asks_and_nothing_is_lost(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN._replace(flags=WRITE))
    guest = Guest(storage, plugin)
    for _ in range(RECORDS):
        storage.offer(0, 0)
        guest.notify()
        storage.give_back(0, 0, 5)
    assert 2 <= guest.asked <= 4
    (moved,) = guest.audit.traffic()
    assert (moved.requests, moved.bytes_from_device) == (RECORDS, 5 * RECORDS)


def test_more_than_anybody_should_look_at_is_left_to_zseal(plugin: ctypes.CDLL) -> None:
    at, many = 16 * PAGE_SIZE, 1024
    for size, asked in ((8, 1), (32, 2)):
        named = Descriptor(at, DESCRIPTOR_SIZE * many, INDIRECT, 0)
        storage = disk(*[named] * size, where=layout(PAGE_SIZE, size=size))
        storage.describe(0, at, descriptors([(at, 12 * PAGE_SIZE, 0)] * many, None, 0, 1 << 16))
        guest = Guest(storage, plugin)
        guest.notify()
        for head in range(size):
            storage.offer(0, head)
        guest.notify()
        assert guest.asked == asked


def test_a_queue_that_was_set_up_since_is_asked_for(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    for asked in (1, 2):
        guest.setups += 1
        for _ in range(2):
            guest.notify()
            assert guest.asked == asked


def test_a_queue_that_is_gone_is_not_looked_at(plugin: ctypes.CDLL) -> None:
    storage = Storage(*BOTH)
    guest = Guest(storage, plugin)
    guest.notify()
    storage.offer(0, 0)  # an empty buffer in private storage
    guest.gone = {0}
    guest.setups += 1
    for _ in range(3):
        guest.notify()
    assert guest.asked == 2
    assert [each.violations for each in guest.audit.traffic()] == [0, 0]


def test_with_a_packed_ring_it_asks_each_time(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    guest.packed = True
    for _ in range(3):
        guest.notify()
    assert guest.asked == 3


@pytest.mark.parametrize(("count", "asked"), [(QUEUES, 1), (QUEUES + 1, 3)])
def test_with_too_many_queues_it_asks_each_time(plugin: ctypes.CDLL, count: int, asked: int) -> None:
    guest = Guest(Storage(*[layout(PAGE_SIZE)] * count), plugin)
    for _ in range(3):
        guest.notify()
    assert guest.asked == asked


def test_after_a_reset_it_asks_first(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN)
    guest = Guest(storage, plugin)
    guest.notify()
    storage.offer(0, 0)
    guest.notify()
    guest.audit.reset()
    assert guest.audit.traffic()[0].requests == 1
    guest.notify()
    assert guest.asked == 2


def test_the_running_indexes_wrap(plugin: ctypes.CDLL) -> None:
    storage = disk(PLAIN._replace(flags=WRITE))
    storage.offered, storage.returned = [0xFFFD], [0xFFFD]
    guest = Guest(storage, plugin)
    guest.begun = 0xFFFD
    for ring in (storage.layouts[0].available, storage.layouts[0].used):
        storage.write(ring + 2, struct.pack("<H", 0xFFFD))
    guest.notify()
    for _ in range(6):
        storage.offer(0, 0)
        guest.notify()
        storage.give_back(0, 0, 3)
    (moved,) = guest.audit.traffic()
    assert (guest.asked, moved.requests, moved.bytes_from_device) == (1, 6, 18)


def test_the_file_is_laid_out_as_the_plugin_expects() -> None:
    watch = QueueWatch(PAGES, SHARED_STATES)
    with open(f"/proc/self/fd/{watch.descriptor}", "rb") as stream:  # noqa: PTH123 (a descriptor, not a path)
        size, count, pages = struct.unpack("=IIQ", stream.read(16))
    assert (count, pages) == (0, PAGES)
    assert size == 56 + QUEUES * 40 + RECORDS * 32
    assert os.fstat(watch.descriptor).st_size == size + PAGES * (1 + QUEUES)
    assert not os.get_inheritable(watch.descriptor)
    states = watch.blank_states(PAGES)
    states[:] = PageState.SHARED
    watch.close()
    watch.close()
    with pytest.raises(ValueError, match="closed"):
        _ = watch.descriptor
    assert (states == PageState.SHARED).all(), "who has a view of it keeps that"
    assert not watch.blank_states(2).any()
    assert not states.any(), "it is the same place"


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(os, "ftruncate", lambda _file, _size: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left"):
        QueueWatch(PAGES, SHARED_STATES)
    assert set(Path("/proc/self/fd").iterdir()) == before
