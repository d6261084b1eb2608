"""The audit of a whole guest: which queues it looks at, when it asks for them anew, and what its policy does."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.guest.audit.test_queue import LAYOUT, Memory, request
from zseal.engine.errors import EngineLostError
from zseal.engine.virtio import Notification, VirtioDevice, VirtioQueue
from zseal.formats.virtqueue import Descriptor, DescriptorFlag
from zseal.guest.audit.audit import VIOLATION_LIMIT, IoAudit, IoFinding
from zseal.guest.audit.policy import IoPolicy

DISK = VirtioDevice("/machine/peripheral/disk0", "virtio-blk", "0.0.0001", "disk0")
QUEUE = VirtioQueue(DISK, 0, LAYOUT, taken=0, used=0)


class Machine:
    """A guest with one disk and the audit that watches it."""

    def __init__(self, policy: IoPolicy = IoPolicy.ENFORCE) -> None:
        self.memory = Memory()
        self.queues = [QUEUE]
        self.protected = True
        self.answers = True
        self.searches = 0
        self.told: list[IoFinding] = []
        self.setups = 1
        self.audit = IoAudit(
            policy,
            read=self.memory.read,
            pages=self.memory,
            protected=lambda: self.protected,
            clock=lambda: 1.5,
            on_violation=self.told.append,
        )

    def find(self) -> list[VirtioQueue]:
        self.searches += 1
        if not self.answers:
            raise EngineLostError("QEMU did not answer for 2 s")
        done = self.memory.returned  # a device that takes a request when it is notified, and finishes it at once
        return [dataclasses.replace(queue, taken=done, used=done) for queue in self.queues]

    def notify(self) -> bool:
        return self.audit.notified(Notification(0, self.setups), self.find)

    def offer_private(self, address: int = 0x9000) -> None:
        self.memory.describe(0, Descriptor(address, 8, DescriptorFlag(0), 0))
        self.memory.offer(0)


def test_queues_are_asked_for_only_after_a_setup() -> None:
    machine = Machine()
    request(machine.memory)
    for _ in range(3):
        machine.memory.offer(2)
        assert machine.notify()
        machine.memory.give_back(2, 513)
    assert machine.searches == 1
    machine.setups += 1
    assert machine.notify()
    assert machine.searches == 2
    (traffic,) = machine.audit.traffic()
    assert (traffic.device, traffic.queue) == ("virtio-blk 0.0.0001 (disk0)", 0)
    assert (traffic.requests, traffic.bytes_to_device, traffic.bytes_from_device) == (3, 48, 1539)
    assert (traffic.shared_pages, traffic.violations) == (6, 0)
    assert machine.audit.notifications == 4


def test_enforcement_stops_the_guest_and_says_what_to_change() -> None:
    machine = Machine()
    machine.offer_private()
    assert not machine.notify()
    (finding,) = machine.told
    assert str(finding) == (
        "virtio-blk 0.0.0001 (disk0) queue 0: descriptor 0 at 0x9000 is a private page; "
        "the guest's driver must put what it gives to devices into pages that it shares"
    )


def test_a_device_without_iommu_platform_is_to_get_it() -> None:
    machine = Machine()
    machine.queues = [dataclasses.replace(QUEUE, bounced=False)]
    machine.offer_private()
    assert not machine.notify()
    assert "iommu_platform=on" in str(machine.told[0])


def test_an_audit_counts_and_goes_on() -> None:
    machine = Machine(IoPolicy.AUDIT)
    for number in range(VIOLATION_LIMIT + 10):
        machine.offer_private(0x9000 + number)
        assert machine.notify()
        machine.memory.give_back(0)
        machine.offer_private(0x9000 + number)  # the same again is counted, and not told again
        assert machine.notify()
        machine.memory.give_back(0)
    assert len(machine.told) == len(machine.audit.findings) == VIOLATION_LIMIT
    report = machine.audit.report()
    assert report["policy"] == "audit"
    assert isinstance(report["queues"], list)
    assert isinstance(report["queues"][0], dict)
    assert report["queues"][0]["violations"] == 2 * (VIOLATION_LIMIT + 10)
    assert isinstance(report["violations"], list)
    assert report["violations"][0] == {
        "seconds": 1.5,
        "device": "virtio-blk 0.0.0001 (disk0)",
        "queue": 0,
        "part": "descriptor 0",
        "address": "0x9000",
        "reason": "is a private page",
        "advice": machine.told[0].advice,
    }


def test_a_queue_that_was_given_up_meanwhile_is_no_violation() -> None:
    machine = Machine()
    assert machine.notify()
    machine.memory.shared.clear()  # the driver took its rings back after it reset the device
    machine.memory.offer(0)
    machine.queues = []
    assert machine.notify()
    assert machine.told == []


def test_a_queue_that_moved_is_followed_from_where_the_device_is() -> None:
    machine = Machine()
    request(machine.memory)
    machine.memory.offer(2)
    assert machine.notify()
    moved = dataclasses.replace(LAYOUT, available=0x4000 + 0x800, used=0x7000)
    machine.memory.data[0x4802:0x4806] = bytes((1, 0, 9, 0))  # index 1, head 9: out of its table
    machine.queues = [dataclasses.replace(QUEUE, layout=moved)]
    machine.memory.returned = 0
    machine.setups += 1
    assert not machine.notify()
    assert "descriptor 9" in str(machine.told[0])
    assert machine.audit.traffic()[0].requests == 2, "counts go on"


@pytest.mark.parametrize("requests", [1, 2, 100])
def test_a_driver_that_starts_again_in_the_same_place_is_noticed(requests: int) -> None:
    machine = Machine()
    request(machine.memory)
    for _ in range(requests):
        machine.memory.offer(2)
        assert machine.notify()
        machine.memory.give_back(2, 513)
    machine.memory.data[0x2000:0x2016] = bytes(22)
    machine.memory.data[0x3000:0x3046] = bytes(70)
    machine.memory.offered = machine.memory.returned = 0
    machine.setups += 1
    machine.memory.offer(2)
    assert machine.notify()
    assert machine.audit.traffic()[0].requests == requests + 1
    machine.memory.give_back(2, 513)
    machine.offer_private()
    assert not machine.notify()


def test_an_unprotected_guest_is_let_be() -> None:
    machine = Machine()
    machine.protected = False
    machine.offer_private()
    assert machine.notify()
    assert (machine.searches, machine.audit.notifications) == (0, 0)


def test_a_qemu_that_does_not_answer_now_is_asked_again() -> None:
    machine = Machine()
    machine.answers = False
    machine.offer_private()
    assert machine.notify(), "it is about to stop, and would wait for this CPU"
    assert machine.audit.report()["unchecked_notifications"] == 1
    machine.answers = True
    assert not machine.notify()


def test_what_a_device_finished_before_a_reset_is_counted() -> None:
    machine = Machine()
    request(machine.memory)
    machine.memory.offer(2)
    assert machine.notify()
    machine.memory.give_back(2, 513)
    machine.audit.reset()
    assert machine.audit.traffic()[0].bytes_from_device == 513


def test_after_a_reset_queues_are_asked_for_again() -> None:
    machine = Machine()
    assert machine.notify()
    machine.audit.reset()
    assert machine.notify()
    assert machine.searches == 2


@pytest.mark.parametrize("policy", [IoPolicy.ENFORCE, IoPolicy.AUDIT])
def test_packed_rings_are_not_taken_for_split_ones(policy: IoPolicy) -> None:
    machine = Machine(policy)
    machine.queues = [dataclasses.replace(QUEUE, packed=True)]
    machine.offer_private()
    assert machine.notify() is (policy is IoPolicy.AUDIT)
    assert machine.notify() is (policy is IoPolicy.AUDIT)
    assert machine.audit.traffic()[0].violations == 2
    (finding,) = machine.told
    assert "is a packed ring, which cannot be checked; start the device without packed=on" in str(finding)
    assert machine.audit.traffic()[0].requests == 0
