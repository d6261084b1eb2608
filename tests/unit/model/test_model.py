"""The host in Python: frames, paging under memory pressure, a block device, bounce buffers."""

from __future__ import annotations

import io
import random
import secrets
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.formats.virtqueue import Descriptor, DescriptorFlag
from zseal.model.devices import SECTOR, BlockDriver, BouncePool, DeviceError
from zseal.model.frames import FrameAllocator, OutOfFramesError
from zseal.model.guest import ModelGuest
from zseal.model.host import HostError
from zseal.model.machine import ModelMachine
from zseal.model.pager import GuestKilledError

KEYS = MachineKeys(ec.generate_private_key(CURVE()))
QUEUE = 0x80000


@pytest.fixture
def machine() -> Iterator[ModelMachine]:
    machine = ModelMachine(keys=KEYS)
    yield machine
    machine.close()


def test_frames_are_aligned_reused_and_never_given_twice() -> None:
    frames = FrameAllocator(10, 600)
    large = frames.take(256, align=256)
    assert large == 256
    singles = [frames.take() for _ in range(300)]
    assert len(set(singles)) == 300
    assert not set(singles) & set(range(large, large + 256))
    frames.give_back(large, 256, align=256)
    assert frames.take(256, align=256) == large
    assert frames.used == 556
    with pytest.raises(OutOfFramesError, match="no 400 free frames"):
        frames.take(400)


def test_guest_lives_in_a_fraction_of_its_memory(machine: ModelMachine) -> None:
    """128 pages of work in 12 frames: everything comes back, and the file holds nothing readable."""
    file = io.BytesIO()
    guest = ModelGuest(machine, limit=12, file=file)
    guest.start()
    source = random.Random(1)
    expected: dict[int, bytes] = {}
    for _ in range(600):
        page = 0x40 + source.randrange(128)
        if page in expected and source.random() < 0.5:
            assert guest.read(page << PAGE_SHIFT, 32) == expected[page]
        else:
            expected[page] = b"plain text of page %4d " % page + source.randbytes(8)
            guest.write(page << PAGE_SHIFT, expected[page])
    for page, data in expected.items():
        assert guest.read(page << PAGE_SHIFT, 32) == data
    assert guest.pager.pages_out > 300
    assert b"plain text" not in file.getvalue()
    counts = machine.ultravisor.host.page_counts(guest.handle)
    assert counts["private"] <= 12
    guest.stop()


@pytest.mark.parametrize("attack", ["flip", "swap", "replay", "drop"])
def test_what_happens_to_the_page_file_is_noticed(machine: ModelMachine, attack: str) -> None:
    file = io.BytesIO()
    guest = ModelGuest(machine, limit=64, file=file)
    guest.start()

    def page_out(page: int) -> bytes:
        guest.pager.page_out(page)
        return file.getvalue()[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]

    def put(page: int, data: bytes) -> None:
        file.seek(page * PAGE_SIZE)
        file.write(data)

    guest.write(0x40000, b"version 1")
    guest.write(0x41000, b"another")
    old = page_out(0x40)
    guest.write(0x40000, b"version 2")
    new, other = page_out(0x40), page_out(0x41)
    if attack == "flip":
        put(0x40, new[:-1] + bytes([new[-1] ^ 1]))
    elif attack == "swap":
        put(0x40, other)
    elif attack == "replay":
        put(0x40, old)
    else:
        put(0x40, bytes(PAGE_SIZE))
    with pytest.raises(GuestKilledError, match="guest page 0x40000 cannot be brought back"):
        guest.read(0x40000, 9)


def test_block_device_sees_shared_pages_only(machine: ModelMachine) -> None:
    disk = io.BytesIO(bytes(64 * SECTOR))
    guest = ModelGuest(machine)
    guest.start()
    driver = BlockDriver(guest, disk, QUEUE)
    secret = b"a secret the guest means to keep"
    written = secrets.token_bytes(5000)
    guest.write(0x30000, secret)
    guest.write(0x40000, written)
    driver.write(3, 0x40000, len(written))
    assert disk.getvalue()[3 * SECTOR : 3 * SECTOR + 5000] == written
    driver.read(3, 5000, 0x50000)
    assert guest.read(0x50000, 5000) == written
    assert driver.device.memory.exposed == []
    frames = guest.configuration.space.mapped()
    view = b"".join(machine.ultravisor.host.view(frame << PAGE_SHIFT, PAGE_SIZE, live=True) for _, frame in frames)
    assert written[4096:4200] in view
    assert secret not in view
    assert machine.ultravisor.host.page_counts(guest.handle)["pinned"] == 0


def test_block_device_works_while_its_pages_are_paged_out(machine: ModelMachine) -> None:
    disk = io.BytesIO(bytes(256 * SECTOR))
    guest = ModelGuest(machine, limit=8)
    guest.start()
    driver = BlockDriver(guest, disk, QUEUE)
    data = secrets.token_bytes(20 * PAGE_SIZE)
    guest.write(0x40000, data)
    driver.write(0, 0x40000, len(data))
    assert disk.getvalue()[: len(data)] == data
    driver.read(0, len(data), 0x60000)
    assert guest.read(0x60000, len(data)) == data
    assert driver.device.memory.exposed == []


def test_device_that_reaches_for_a_private_page_gets_ciphertext(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    driver = BlockDriver(guest, io.BytesIO(), QUEUE)
    guest.write(0x40000, b"private")
    memory = driver.device.memory
    assert memory.read(0x40000, 7) != b"private"
    assert memory.exposed == [0x40000]
    assert guest.read(0x40000, 7) == b"private"  # a read does no harm
    memory.write(0x40000, b"evil")
    with pytest.raises(GuestKilledError):
        guest.read(0x40000, 7)


def test_pinned_pages_are_not_paged_out(machine: ModelMachine) -> None:
    guest = ModelGuest(machine, limit=6)
    guest.start()
    guest.write(0x40000, b"for a device")
    guest.share(0x40000)
    assert guest.pager.pin(0x40) == guest.configuration.space.resolve(0x40)
    with pytest.raises(HostError, match="pinned"):
        guest.pager.page_out(0x40)
    for page in range(0x50, 0x60):
        guest.write(page << PAGE_SHIFT, b"pressure")
    assert guest.configuration.space.resolve(0x40) >= 0
    with pytest.raises(GuestKilledError, match="stays pinned"):
        guest.unshare(0x40000)
    guest.pager.unpin(0x40)
    guest.unshare(0x40000)
    assert guest.pager.pin(0x40) is None


@pytest.mark.parametrize(
    ("chain", "index"),
    [
        ([Descriptor(QUEUE, 16, DescriptorFlag.NEXT, 0)], 1),  # a circle
        ([Descriptor(QUEUE, 16, DescriptorFlag.NEXT, 99)], 1),  # out of the table
        ([Descriptor(QUEUE, 16, DescriptorFlag(0), 0)], 1),  # no status byte
        ([], 200),  # more requests than the queue holds
    ],
)
def test_broken_queues_are_refused(machine: ModelMachine, chain: list[Descriptor], index: int) -> None:
    guest = ModelGuest(machine)
    guest.start()
    driver = BlockDriver(guest, io.BytesIO(), QUEUE)
    guest.write(QUEUE, b"".join(entry.pack() for entry in chain))
    guest.write(QUEUE + 0x402, index.to_bytes(2, "little"))
    with pytest.raises(DeviceError):
        driver.device.notify()


def test_bounce_pool_ends_and_refills(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    pool = BouncePool(guest, 0x90000, 3)
    assert machine.ultravisor.host.page_counts(guest.handle)["shared"] == 2
    taken = [pool.take() for _ in range(3)]
    assert len(set(taken)) == 3
    with pytest.raises(DeviceError, match="all bounce buffers are in use"):
        pool.take()
    pool.give_back(taken[0])
    assert pool.take() == taken[0]


def test_read_past_the_disk_gives_zeros_and_unknown_requests_fail(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    driver = BlockDriver(guest, io.BytesIO(b"x" * SECTOR), QUEUE)
    driver.read(0, 2 * SECTOR, 0x40000)
    assert guest.read(0x40000, 2 * SECTOR) == b"x" * SECTOR + bytes(SECTOR)
    with pytest.raises(DeviceError, match="status 2"):
        driver._request(9, 0, 0x82000, SECTOR)  # type: ignore[arg-type]  # no such request type
