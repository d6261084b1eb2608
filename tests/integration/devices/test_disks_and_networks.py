"""Disks, networks, random bytes and many CPUs of a protected guest with a real kernel."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.engine.devices import Disk, HostForward, RandomSource, UserNetwork
from zseal.errors import ZsealError
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from .conftest import Seal
else:
    Seal = object

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

MIB = 1 << 20
_NUMBERS = itertools.count(1)


def run(guest: Guest, command: str, timeout: float = PATIENCE) -> str:
    """Let the guest's shell run ``command``; returns what the guest wrote from there on."""
    mark = f"@end{next(_NUMBERS)}."
    guest.write_console(f"echo @begin; {command}; echo {mark[:2]}''{mark[2:]}\n".encode())
    return guest.wait_for_output(mark, timeout).rpartition("@begin")[2]


def ready(guest: Guest) -> None:
    guest.wait_for_output("@ready", PATIENCE)


def power_off(guest: Guest) -> None:
    guest.write_console(b"poweroff -f\n")
    result = guest.wait(PATIENCE)
    assert result is not None, guest.observe(lines=40)
    assert result.outcome is Outcome.POWEROFF


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def test_all_devices_at_once_and_eight_cpus(seal: Seal, machine: Machine, tmp_path: Path) -> None:
    disks = [tmp_path / "one.img", tmp_path / "two.img"]
    content = random.Random(5).randbytes(MIB)
    disks[0].write_bytes(content)
    disks[1].write_bytes(bytes(MIB))
    port = free_port()
    with Guest(
        seal(),
        machine=machine,
        memory=2048 * MIB,
        cpus=8,
        disks=[Disk(str(disks[0]), read_only=True), Disk(str(disks[1]))],
        networks=[UserNetwork(forwards=[HostForward(port, 7)], mac="52:54:00:ab:cd:ef")],
        random_sources=[RandomSource()],
        timeout=PATIENCE,
    ) as guest:
        ready(guest)
        assert "cpus 8" in run(guest, "echo cpus $(grep -c '^processor ' /proc/cpuinfo)")
        memory = re.search(r"MemTotal: +(\d+)", run(guest, "grep MemTotal /proc/meminfo"))
        assert memory is not None
        assert int(memory[1]) > 1800 * 1024
        # with several CPUs the kernel may find the disks in any order
        by_serial = "for d in vda vdb; do ln -s /dev/$d /dev/$(cat /sys/block/$d/serial); done"
        run(guest, f"until [ -b /dev/vda ] && [ -b /dev/vdb ]; do sleep 1; done; {by_serial}")
        assert "cannot" in run(guest, "dd if=/dev/zero of=/dev/disk0 bs=4k count=1 conv=fsync || echo cannot")
        assert "copied" in run(guest, "dd if=/dev/disk0 of=/dev/disk1 bs=64k conv=fsync && echo copied")
        assert "52:54:00:ab:cd:ef" in run(guest, "cat /sys/class/net/eth0/address")
        assert "virtio_rng" in run(guest, "cat /sys/class/misc/hw_random/rng_current")
        assert " 32" in run(guest, "dd if=/dev/hwrng bs=32 count=1 2>/dev/null | wc -c | sed 's/^/ /'")
        run(guest, "ifconfig eth0 10.0.2.15 up; route add default gw 10.0.2.2")
        guest.write_console(b"echo listening; nc -l -p 7 -e /bin/sh -c 'read word; echo $word to the host'\n")
        guest.wait_for_output("listening", PATIENCE)
        assert talk(port, b"hello\n") == b"hello to the host\n"
        assert guest.protected
        power_off(guest)
    assert disks[1].read_bytes() == content
    assert disks[0].read_bytes() == content
    assert guest.diagnoses == ()


def talk(port: int, data: bytes) -> bytes:
    """Send ``data`` through the forwarded port; QEMU accepts at once, the guest may not listen yet."""

    def attempt() -> bytes:
        answer = b""
        with (
            contextlib.suppress(ConnectionError, TimeoutError),
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        ):
            connection.sendall(data)
            while piece := connection.recv(100):
                answer += piece
        return answer

    return wait_until(attempt, pause=0.5)


def test_synchronised_data_is_on_the_disk_when_the_machine_is_killed(
    seal: Seal, machine: Machine, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    with Guest(seal(), machine=machine, memory=512 * MIB, disks=[Disk(str(disk))], timeout=PATIENCE) as guest:
        ready(guest)
        run(guest, "echo before the power failed | dd of=/dev/vda bs=512 seek=7 conv=fsync")
        guest.in_loop(lambda: guest.session.kill(Result(Outcome.STOPPED, "killed")))
        assert guest.wait(PATIENCE) is not None
    assert disk.read_bytes()[7 * 512 :].startswith(b"before the power failed\n")


def test_full_bounce_buffers_are_explained_with_a_pool_that_suffices(
    seal: Seal, machine: Machine, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(32 * MIB))
    # Each request fits into the smallest pool, else the kernel would try it forever; all at once do not.
    readers = (
        "for n in 0 1 2 3 4 5 6 7; do dd if=/dev/vda of=/dev/null bs=256k iflag=direct skip=$n count=8 & done; wait"
    )
    # How many meet in one round is chance.
    load = f"for round in $(seq 60); do {readers}; dmesg | grep -q 'buffer is full' && break; done 2>/dev/null"

    def diagnoses(words: str) -> tuple[int, str]:
        with Guest(
            seal(words), machine=machine, memory=512 * MIB, cpus=2, disks=[Disk(str(disk))], timeout=PATIENCE
        ) as guest:
            ready(guest)
            run(guest, load)
            power_off(guest)
        full = [item for item in guest.diagnoses if item.id == "swiotlb-full"]
        return len(full), full[0].hint if full else ""

    count, hint = diagnoses("swiotlb=512")
    assert count == 1
    suggested = re.search(r"swiotlb=(\d+)", hint)
    assert suggested is not None
    assert diagnoses(suggested[0]) == (0, "")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"machine_type": "s390-ccw-virtio-1.0"}, "machine type"),
        ({"memory": 1 << 50}, "more than"),
        ({"qemu_arguments": ["-device", "virtio-balloon-ccw"]}, "memory balloon"),
        ({"qemu_arguments": ["-device", "virtio-blk-ccw"]}, "drive"),
    ],
)
def test_what_can_not_be_is_told_in_one_line(
    seal: Seal, machine: Machine, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ZsealError, match=complaint) as caught, Guest(seal(), machine=machine, **options):  # type: ignore[arg-type]  # keywords of several types
        pass
    assert "\n" not in str(caught.value)
