"""Real kernels' requests: all are seen, none is wrong, and the bytes are those that QEMU's block layer counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.audit.conftest import MIB, Linux
from tests.waiting import PATIENCE, wait_until
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.engine.qemu import plugin_queues
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.virtio import VirtioView
from zseal.engine.virtio import VirtioQueue
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.events import IoViolation
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.guest.records import DeviceTraffic
from zseal.jsonvalue import Json
from zseal.ultravisor.tables import PageState

if TYPE_CHECKING:
    from .conftest import Boot
else:
    Boot = object

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

DATA = b"what the guest wrote" * 1000
PING_BYTES, NETWORK_HEADER = 98, 12
COMMAND_BYTES, STATUS_BYTES = 16, 1  # in front of and behind each virtio-blk request


def engine(guest: Guest) -> QemuEngine:
    found = guest.session.engine
    assert isinstance(found, QemuEngine)
    return found


def traffic(guest: Guest, kind: str) -> list[DeviceTraffic]:
    assert guest.io is not None
    return [each for each in guest.io.traffic() if each.device.startswith(kind)]


def statistics(guest: Guest, name: str) -> tuple[int, int]:
    """Return the bytes that QEMU has read from and written to a disk."""
    answer = guest.in_loop(lambda: engine(guest).qmp.execute("query-blockstats"))
    assert isinstance(answer, list)
    for entry in answer:
        assert isinstance(entry, dict)
        if entry.get("node-name") == name:
            stats = entry["stats"]
            assert isinstance(stats, dict)
            read, written = stats["rd_bytes"], stats["wr_bytes"]
            assert isinstance(read, int)
            assert isinstance(written, int)
            return read, written
    raise AssertionError(f"QEMU has no disk {name}: {answer}")


def report(guest: Guest) -> dict[str, Json]:
    found = guest.report["io"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_all_requests_are_seen_and_the_bytes_add_up(boot: Boot, disk: Callable[[str], Disk], suite: str) -> None:
    drive = disk("data")
    with boot(drive, suite=suite, networks=[UserNetwork()], random_sources=[RandomSource()]) as guest:
        linux = Linux(guest)
        linux.run("dd if=/dev/vda of=/dev/null bs=1M; dd if=/dev/zero of=/dev/vda bs=64k count=50 conv=fsync")
        text = linux.run("ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ping -c 5 10.0.2.2")
        assert "5 packets received" in text
        linux.run("dd if=/dev/hwrng of=/dev/null bs=64 count=10")
        read, written = statistics(guest, "disk0")
        linux.start("poweroff -f")
        result = guest.wait(PATIENCE)
        assert result is not None
        assert result.outcome is Outcome.POWEROFF, result.message
        (block,) = traffic(guest, "virtio-blk")
        assert read >= 32 * MIB
        assert written == 50 * 65536
        # a name is asked for with 20 bytes
        assert (block.bytes_from_device - read - STATUS_BYTES * block.requests) % 20 == 0
        assert read <= block.bytes_from_device - STATUS_BYTES * block.requests <= read + 100
        assert block.bytes_to_device == written + COMMAND_BYTES * block.requests
        receive, transmit, *_ = traffic(guest, "virtio-net")
        for moved in (transmit.bytes_to_device, receive.bytes_from_device):
            assert 5 * (PING_BYTES + NETWORK_HEADER) <= moved < 20 * (PING_BYTES + NETWORK_HEADER)
        (random,) = traffic(guest, "virtio-rng")
        assert 640 <= random.bytes_from_device < 4096
        for each in (block, receive, transmit, random):
            assert each.violations == 0
            assert each.shared_pages > 0
        found = report(guest)
        assert found["violations"] == []
        assert found["unchecked_notifications"] == 0
        alone, all_of_them = found["notifications_without_stop"], found["notifications"]
        assert isinstance(alone, int)
        assert isinstance(all_of_them, int)
        assert 0.5 < alone / all_of_them < 1, "most are plain, and the plugin has to ask first where the queues are"
        queues = found["queues"]
        assert isinstance(queues, list)
        assert isinstance(queues[0], dict)
        assert [queue["unseen"] for queue in queues if isinstance(queue, dict) and "blk" in str(queue["device"])] == [0]
        seen_by = engine(guest).statistics()
        assert (seen_by["notifications_by"], seen_by["calls_by"]) == ("plugin", "lock")


def test_off_looks_at_nothing(boot: Boot, disk: Callable[[str], Disk]) -> None:
    with boot(disk("data"), policy=IoPolicy.OFF) as guest:
        Linux(guest).start("dd if=/dev/vda of=/dev/null bs=1M; poweroff -f")
        assert guest.wait(PATIENCE) is not None
        assert guest.io is None
        assert guest.report["io"] is None
        assert engine(guest).statistics()["notifications_by"] == "none"


def test_a_plugin_that_expects_another_layout_is_not_used(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zseal.engine.qemu.plugin_queues._SIZE", plugin_queues._SIZE + PAGE_SIZE)
    with boot() as guest:
        Linux(guest)
        assert engine(guest).statistics()["notifications_by"] == "breakpoints"


@pytest.mark.parametrize("seer", ["translations", "breakpoints"])
def test_it_is_the_same_where_qemu_has_less_to_see_by(
    boot: Boot, disk: Callable[[str], Disk], monkeypatch: pytest.MonkeyPatch, seer: str
) -> None:
    monkeypatch.setenv("ZSEAL_PLUGIN", "off" if seer == "breakpoints" else seer)
    drive = disk("data")
    with boot(drive) as guest:
        linux = Linux(guest)
        linux.run("dd if=/dev/vda of=/dev/null bs=1M count=4")
        read, _ = statistics(guest, "disk0")
        (block,) = traffic(guest, "virtio-blk")
        assert read <= block.bytes_from_device - STATUS_BYTES * block.requests <= read + 100
        assert engine(guest).statistics()["calls_by"] == seer
        assert guest.io is not None
        assert (guest.io.report()["notifications_without_stop"] == 0) is (seer == "breakpoints")
        take_back(guest, find(guest))
        linux.start("dd if=/dev/vda of=/dev/null bs=4k count=1 skip=8000")
        result = guest.wait(PATIENCE)
        assert result is not None
        assert result.outcome is Outcome.IO_VIOLATION, result.message


def test_many_cpus_pauses_and_resets_while_devices_work(boot: Boot, disk: Callable[[str], Disk]) -> None:
    with boot(disk("one"), disk("two"), cpus=2) as guest:
        linux = Linux(guest)
        mark = linux.start(
            "for i in 1 2 3; do for d in vda vdb; do dd if=/dev/$d of=/dev/null bs=1M & done; wait;"
            " echo 3 > /proc/sys/vm/drop_caches; done"
        )
        for _ in range(25):
            guest.pause()
            guest.resume()
            time.sleep(0.02)
        guest.wait_for_output(mark, PATIENCE)
        before = sum(each.requests for each in traffic(guest, "virtio-blk"))
        for each, name in zip(traffic(guest, "virtio-blk"), ("disk0", "disk1"), strict=True):
            read, _ = statistics(guest, name)
            assert read >= 3 * 32 * MIB
            assert read <= each.bytes_from_device - STATUS_BYTES * each.requests <= read + 100
        linux.start("reboot -f")
        wait_until(lambda: "@ready" in console(guest).partition("@end1.")[2], pause=0.2)
        linux.run("dd if=/dev/vda of=/dev/null bs=1M")
        assert sum(each.requests for each in traffic(guest, "virtio-blk")) > before
        linux.start("poweroff -f")
        assert guest.wait(PATIENCE) is not None
        assert report(guest)["violations"] == []
        assert guest.report["boots"] == 2


def console(guest: Guest) -> str:
    from zseal.guest.events import ConsoleOutput

    return b"".join(event.data for event in guest.events(0.0) if isinstance(event, ConsoleOutput)).decode()


# --- a guest that breaks the rule ---


def find(guest: Guest) -> VirtioQueue:
    """Return the disk's queue."""
    queues = guest.in_loop(lambda: VirtioView(engine(guest).qmp).queues())
    return next(queue for queue in queues if queue.device.kind == "virtio-blk")


def take_back(guest: Guest, queue: VirtioQueue) -> None:
    """Make the page with the available ring private, as if the guest had unshared it."""

    def change() -> None:
        vmm = guest.vmm
        assert vmm is not None
        assert vmm.configuration is not None
        pages = vmm.ultravisor.firmware.configuration(vmm.configuration).guest.pages
        pages.state[queue.layout.available >> 12] = PageState.PRIVATE

    guest.in_loop(change)


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_enforcement_stops_the_guest_before_the_device_is_told(
    boot: Boot, disk: Callable[[str], Disk], suite: str
) -> None:
    drive = disk("data")
    with boot(drive, suite=suite) as guest:
        linux = Linux(guest)
        queue = find(guest)
        take_back(guest, queue)
        linux.start("echo secret | dd of=/dev/vda bs=512 conv=fsync,sync")
        result = guest.wait(PATIENCE)
        assert result is not None
        assert result.outcome is Outcome.IO_VIOLATION
        assert (
            f"{queue.device} queue 0: available ring at {queue.layout.available:#x} is a private page" in result.message
        )
        assert result.message.count("\n") == 0
        violations = report(guest)["violations"]
        assert isinstance(violations, list)
        assert len(violations) == 1
    assert Path(drive.path).read_bytes() == bytes(32 * MIB)


def test_an_audit_lets_the_guest_go_on(boot: Boot, disk: Callable[[str], Disk]) -> None:
    drive = disk("data")
    with boot(drive, policy=IoPolicy.AUDIT) as guest:
        linux = Linux(guest)
        take_back(guest, find(guest))
        linux.run("echo not-secret | dd of=/dev/vda bs=512 conv=fsync,sync")
        linux.start("poweroff -f")
        result = guest.wait(PATIENCE)
        assert result is not None
        assert result.outcome is Outcome.POWEROFF
        (block,) = traffic(guest, "virtio-blk")
        assert block.violations > 1
        assert len([event for event in guest.events(0.0) if isinstance(event, IoViolation)]) == 1
    assert Path(drive.path).read_bytes().startswith(b"not-secret\n")
