"""What is made of QEMU's answers about its virtio devices, old ones and odd ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.qemu.virtio import VirtioView
from zseal.jsonvalue import Json

BLOCK = "/machine/peripheral/disk0/virtio-backend"
RANDOM = "/machine/peripheral-anon/device[0]/virtio-backend"
VERSION_1 = "VIRTIO_F_VERSION_1: Device compliant for v1 spec (legacy)"
PLATFORM = "VIRTIO_F_IOMMU_PLATFORM: Device can be used on IOMMU platform"


class FakeQmp:
    """Answers from a table of (command, path, queue)."""

    def __init__(self) -> None:
        self.devices: list[Json] = [{"name": "virtio-blk", "path": BLOCK}, {"name": "virtio-rng", "path": RANDOM}]
        self.features: dict[str, Json] = {
            BLOCK: {"transports": [VERSION_1, PLATFORM], "dev-features": []},
            RANDOM: {"transports": [], "dev-features": []},
        }
        self.offered: dict[str, Json] = dict(self.features)
        self.status: Json = {"statuses": ["VIRTIO_CONFIG_S_FAILED: Error in guest, device failed"]}
        self.names: dict[str, Json] = {BLOCK: "fe.0.0001", RANDOM: "fe.1.00af"}
        self.queues: dict[tuple[str, int], Json] = {
            (BLOCK, 0): queue(0x10000),
            (BLOCK, 1): queue(0),
            (RANDOM, 0): queue(0x20000, size=8, taken=0x1FFFF),
            (RANDOM, 1): queue(0),
        }
        self.asked: list[str] = []
        self.version = (10, 0, 0)
        self.properties: dict[tuple[str, str], Json] = {}
        self.lost = False

    def execute(self, command: str, **arguments: Json) -> Json:
        self.asked.append(command)
        if self.lost:
            raise EngineLostError("QEMU closed its control connection")
        path = str(arguments.get("path"))
        if command == "x-query-virtio":
            return self.devices
        if command == "x-query-virtio-status":
            assert self.version < (11, 0, 0), "QEMU 11.1 ends here"
            return {
                "num-vqs": 2,
                "device-endian": "big",
                "guest-features": self.features[path],
                "host-features": self.offered[path],
                "status": self.status,
            }
        if command == "x-query-virtio-queue-status":
            if (path, arguments["queue"]) not in self.queues:
                raise EngineError("Invalid virtqueue number")
            return self.queues[path, cast(int, arguments["queue"])]
        if command == "qom-get" and (path, str(arguments["property"])) in self.properties:
            return self.properties[path, str(arguments["property"])]
        if command == "qom-get" and arguments["property"] == "dev_id" and f"{path}/virtio-backend" in self.names:
            return self.names[f"{path}/virtio-backend"]
        raise EngineError(f"QEMU refused {command}")


def queue(descriptors: int, *, size: int = 256, taken: int = 7) -> Json:
    answer: Mapping[str, Json] = {
        "vring-num": size,
        "vring-desc": descriptors,
        "vring-avail": descriptors + 0x1000,
        "vring-used": descriptors + 0x2000,
        "last-avail-idx": taken,
        "used-idx": 5,
    }
    return dict(answer)


def view(qmp: FakeQmp) -> VirtioView:
    return VirtioView(cast(Qmp, qmp))


def test_queues_that_are_set_up_are_told_with_their_devices() -> None:
    block, random = view(FakeQmp()).queues()
    assert str(block.device) == "virtio-blk 0.0.0001 (disk0)"
    assert (block.number, block.taken, block.used, block.bounced, block.packed) == (0, 7, 5, True, False)
    layout = block.layout
    assert (layout.size, layout.descriptors, layout.available, layout.used) == (256, 0x10000, 0x11000, 0x12000)
    assert not layout.big_endian
    assert str(random.device) == "virtio-rng 0.1.00af"
    assert (random.taken, random.bounced) == (0xFFFF, False)
    assert random.layout.big_endian, "a legacy device has the byte order of its guest"


def test_names_are_asked_for_once() -> None:
    qmp = FakeQmp()
    devices = view(qmp)
    devices.queues()
    devices.queues()
    assert qmp.asked.count("qom-get") == 2
    assert qmp.asked.count("x-query-virtio") == 2


def test_features_are_found_under_any_name_and_as_bits() -> None:
    qmp = FakeQmp()
    qmp.features[BLOCK] = {"transports": ["VIRTIO_F_RING_PACKED: x", "VIRTIO_F_ACCESS_PLATFORM: y"]}
    qmp.features[RANDOM] = {"transports": [], "unknown-dev-features": 1 << 34 | 1 << 33 | 1 << 32 | 1 << 40}
    for found in view(qmp).queues():
        assert found.packed
        assert found.bounced
    assert not view(qmp).queues()[1].layout.big_endian


def test_a_device_on_another_bus_is_named_by_its_path() -> None:
    qmp = FakeQmp()
    del qmp.names[RANDOM]
    qmp.names[BLOCK] = 5
    assert [str(found.device) for found in view(qmp).queues()] == [
        "virtio-blk /machine/peripheral/disk0 (disk0)",
        "virtio-rng /machine/peripheral-anon/device[0]",
    ]


def test_a_connection_that_breaks_is_not_taken_for_a_refusal() -> None:
    qmp = FakeQmp()
    qmp.lost = True
    with pytest.raises(EngineLostError):
        view(qmp).queues()


@pytest.mark.parametrize("answer", [None, 5, {"a": 1}, [{"name": "virtio-blk"}], ["x"]])
def test_answers_that_make_no_sense_are_refused(answer: Json) -> None:
    qmp = FakeQmp()
    qmp.devices = cast("list[Json]", answer)
    with pytest.raises(EngineError, match="QEMU"):
        view(qmp).queues()


@pytest.mark.parametrize("size", [0, -1, 65536])
def test_a_queue_of_an_impossible_size_is_none(size: int) -> None:
    qmp = FakeQmp()
    qmp.queues[BLOCK, 0] = queue(0x10000, size=size)
    assert [found.device.kind for found in view(qmp).queues()] == ["virtio-rng"]


@pytest.mark.parametrize("key", ["vring-num", "vring-desc", "last-avail-idx"])
def test_a_missing_number_is_told(key: str) -> None:
    qmp = FakeQmp()
    answer = queue(0x10000)
    assert isinstance(answer, dict)
    del answer[key]
    qmp.queues[BLOCK, 0] = answer
    with pytest.raises(EngineError, match=key):
        view(qmp).queues()


def test_devices_without_iommu_that_no_driver_uses_are_told() -> None:
    qmp = FakeQmp()
    assert [str(device) for device in view(qmp).unused_without_iommu()] == ["virtio-rng 0.1.00af"]
    qmp.offered[BLOCK] = {"transports": [VERSION_1], "unknown-dev-features": 1}
    assert len(view(qmp).unused_without_iommu()) == 2
    qmp.status = {"statuses": ["VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready"]}
    assert view(qmp).unused_without_iommu() == []


@pytest.mark.parametrize("status", [None, 5, {}, {"statuses": 5}])
def test_a_status_that_makes_no_sense_is_refused(status: Json) -> None:
    qmp = FakeQmp()
    qmp.status = status
    with pytest.raises(EngineError, match="QEMU"):
        view(qmp).unused_without_iommu()


def test_features_that_are_not_told_are_missed() -> None:
    qmp = FakeQmp()
    qmp.features[BLOCK] = None
    with pytest.raises(EngineError, match="features"):
        view(qmp).queues()


def newer() -> FakeQmp:
    """QEMU 11.1, which must not be asked for a device's status."""
    qmp = FakeQmp()
    qmp.version = (11, 1, 3)
    qmp.properties = {
        (BLOCK, "iommu_platform"): True,
        (BLOCK, "packed"): False,
        (RANDOM, "iommu_platform"): False,
        (RANDOM.removesuffix("/virtio-backend"), "max_revision"): 0,
        (BLOCK.removesuffix("/virtio-backend"), "max_revision"): 2,
    }
    return qmp


def test_a_newer_qemu_gives_the_same_queues_without_being_asked_for_a_status() -> None:
    assert view(newer()).queues() == view(FakeQmp()).queues()


def test_what_a_device_offers_is_asked_for_once() -> None:
    qmp = newer()
    devices = view(qmp)
    devices.queues()
    before = qmp.asked.count("qom-get")
    devices.queues()
    assert qmp.asked.count("qom-get") == before
    assert qmp.asked.count("x-query-virtio-queue-status") == 2 * 3 + 2 * 4, (
        "each device: until there is none, then twice"
    )


def test_packed_rings_that_a_newer_qemu_offers_count_as_agreed_on() -> None:
    qmp = newer()
    qmp.properties[BLOCK, "packed"] = True
    assert [found.packed for found in view(qmp).queues()] == [True, False]


def test_a_newer_qemus_devices_without_iommu_and_without_queues_are_unused() -> None:
    qmp = newer()
    assert view(qmp).unused_without_iommu() == []
    qmp.queues[RANDOM, 0] = queue(0)
    assert [str(device) for device in view(qmp).unused_without_iommu()] == ["virtio-rng 0.1.00af"]


def test_a_newer_qemu_that_is_lost_is_not_taken_for_a_device_without_queues() -> None:
    qmp = newer()
    qmp.lost = True
    with pytest.raises(EngineLostError):
        view(qmp).unused_without_iommu()
