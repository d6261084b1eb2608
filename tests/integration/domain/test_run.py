"""Domains run as protected guests through real libvirt, and what libvirt does to them is noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import paths
from tests.waiting import PATIENCE, wait_until
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.domain.document import Document
from zseal.domain.launch import DomainGuest, translate
from zseal.domain.lint import lint_bytes
from zseal.engine.libvirt.engine import LibvirtEngine
from zseal.engine.qemu.consoles import Consoles
from zseal.guest.events import ConsoleOutput, Ended, Event, Protected, Reset
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.libvirt.connection import Connection
from zseal.testguest import kernel

pytestmark = pytest.mark.qemu

VECTORS = paths.VECTORS / "domains"
MINIMAL = ["ok-ls-minimal.xml", "ok-iommu-minimal.xml"]

Start = Callable[..., DomainGuest]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


def _domain(name: str, disk: Path) -> bytes:
    """A sample, changed in nothing but the disk's path (and format), the memory and the domain's name."""
    raw = (VECTORS / name).read_bytes().replace(b"/var/lib/libvirt/images/se-guest.qcow2", str(disk).encode())
    raw = raw.replace(b"type='qcow2' cache='none' io='native'", b"type='raw'").replace(b"'GiB'>4", b"'MiB'>64")
    return raw.replace(b"<name>", f"<name>{disk.parent.name}-".encode())


@pytest.fixture
def start(connection: Connection, machine: Machine, disk: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a started guest: a sample domain that boots the test guest with the given words."""
    with contextlib.ExitStack() as guests:

        def make(
            words: str, name: str = MINIMAL[0], owner: Machine | None = None, elements: bytes = b""
        ) -> DomainGuest:
            image = tmp_path / "image"
            build_image(
                image,
                kernel=kernel(),
                cmdline=words.encode(),
                host_keys=[(owner or machine).keys.host.public_key()],
                overwrite=True,
            )
            raw = _domain(name, disk).replace(b"<devices>", elements + b"<devices>")
            translated = translate(Document(name, raw), image=image, user_network=True)
            guest = DomainGuest(translated, connection=connection, machine=machine, timeout=PATIENCE)
            return guests.enter_context(guest)

        yield make


def _libvirt_domain(guest: DomainGuest) -> object:
    engine = guest.engine
    assert isinstance(engine, LibvirtEngine)
    return engine.domain


def _wait_for(guest: DomainGuest, kind: type[Event], count: int) -> None:
    seen = 0
    for event in guest.events(timeout=PATIENCE):
        seen += isinstance(event, kind)
        if seen == count:
            return
        assert not isinstance(event, Ended), event.result.message
    raise AssertionError(f"{kind.__name__} did not come {count} times")


@pytest.mark.parametrize("name", MINIMAL)
def test_both_minimal_domains_boot_protected_and_power_off(start: Start, name: str) -> None:
    guest = start("hello facility=158,161 share=4 poweroff", name)
    events = list(guest.events(timeout=PATIENCE))
    output = b"".join(event.data for event in events if isinstance(event, ConsoleOutput)).decode()
    assert any(isinstance(event, Protected) for event in events)
    assert "hello" in output
    assert "facility 158 yes" in output
    assert "share pages=4 of 4" in output, (output, guest.result, guest.report)
    assert guest.result is not None
    assert guest.result.outcome is Outcome.POWEROFF
    assert guest.report["libvirt"] == guest.report["libvirt"]
    assert "domain type qemu instead of kvm: the CPUs are emulated" in str(guest.report["translated"])


def test_the_last_words_are_kept_where_the_loop_gets_to_them_late(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr(Consoles, "_receive", lambda _self, _console: time.sleep(0.05))
    guest = start("hello poweroff")
    events = list(guest.events(timeout=PATIENCE))
    assert b"hello" in b"".join(event.data for event in events if isinstance(event, ConsoleOutput))


def test_the_guests_own_reboot_ends_protection_and_begins_it_anew(start: Start) -> None:
    guest = start("hello reboot")
    _wait_for(guest, Reset, 2)
    _wait_for(guest, Protected, 3)
    assert guest.result is None
    guest.stop()
    assert guest.wait(PATIENCE) is not None


def test_a_reboot_ends_a_domain_that_says_so(start: Start) -> None:
    result = start("hello reboot", elements=b"<on_reboot>destroy</on_reboot>").wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.RESET, "what was no power-off does not count as one"
    assert (result.exit_code, result.message) == (10, "the guest rebooted: its domain ends then (on_reboot)")


def test_a_reset_by_libvirt_does_the_same(start: Start) -> None:
    guest = start("hello wait")
    guest.wait_for_output("waiting", PATIENCE)
    for number in (2, 3):
        _libvirt_domain(guest).reset()  # type: ignore[attr-defined]  # a libvirt.virDomain
        _wait_for(guest, Protected, number)
    guest.stop()
    assert guest.wait(PATIENCE) is not None


def test_a_reboot_by_libvirt_is_a_power_off_that_begins_anew(start: Start) -> None:
    guest = start("hello nap=6000 poweroff")
    guest.wait_for_output("hello", PATIENCE)
    _libvirt_domain(guest).reboot()  # type: ignore[attr-defined]  # asks the guest to power off, which it does anyway
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF, result.message
    assert guest.report["boots"] == 2
    assert sum(isinstance(event, Protected) for event in guest.events(timeout=1.0)) == 2


def test_a_domain_may_begin_anew_after_each_power_off(start: Start) -> None:
    guest = start("hello poweroff", elements=b"<on_poweroff>restart</on_poweroff>")
    _wait_for(guest, Protected, 4)
    assert guest.result is None
    guest.stop()
    assert guest.wait(PATIENCE) is not None


def _times_awake(guest: DomainGuest) -> int:
    output = (event.data for event in guest.events(timeout=0.0) if isinstance(event, ConsoleOutput))
    return b"".join(output).count(b"awake")


def test_suspend_and_resume_by_libvirt(start: Start, connection: Connection) -> None:
    guest = start("hello" + " nap=200 say=awake" * 40 + " poweroff")
    domain = _libvirt_domain(guest)
    wait_until(lambda: _times_awake(guest) >= 4)  # each trap is a short pause to libvirt, and its view lags behind
    domain.suspend()  # type: ignore[attr-defined]  # a libvirt.virDomain
    time.sleep(1)  # for output that is on its way
    before = _times_awake(guest)
    time.sleep(2)
    assert _times_awake(guest) == before < 40
    assert domain.state()[0] == connection.libvirt.VIR_DOMAIN_PAUSED  # type: ignore[attr-defined]
    assert guest.result is None
    domain.resume()  # type: ignore[attr-defined]
    result = guest.wait(PATIENCE)
    assert _times_awake(guest) == 40
    assert result is not None
    assert result.outcome is Outcome.POWEROFF


def test_destroy_by_libvirt_stops_the_guest(start: Start) -> None:
    guest = start("hello wait")
    guest.wait_for_output("waiting", PATIENCE)
    _libvirt_domain(guest).destroy()  # type: ignore[attr-defined]  # a libvirt.virDomain
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.STOPPED


def test_a_qemu_that_is_killed_is_lost(start: Start) -> None:
    guest = start("hello wait")
    guest.wait_for_output("waiting", PATIENCE)
    assert isinstance(guest.engine, LibvirtEngine)
    os.kill(guest.engine.pid, signal.SIGKILL)
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.LOST


def test_a_panic_is_told(start: Start) -> None:
    result = start("hello panic=4711").wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.PANIC
    assert "0x4711" in result.message


def test_an_image_for_another_machine_is_refused(start: Start, tmp_path: Path) -> None:
    other = Machine.create(tmp_path / "other")
    result = start("hello", owner=other).wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.REFUSED
    assert result.refusal is not None
    assert (result.refusal.rc, result.refusal.rrc) == (0x108, 0x05)


def test_the_command_refuses_what_would_fail_on_a_real_host(tmp_path: Path, disk: Path, machine: Machine) -> None:
    domain = tmp_path / "domain.xml"
    domain.write_bytes(_domain("bad-PV201-disk.xml", disk))
    command = [sys.executable, "-m", "zseal", "domain", "run", str(domain), "--machine", str(tmp_path / "no")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1  # no such machine: told before anything is started
    Machine.create(tmp_path / "m")
    command[-1] = str(tmp_path / "m")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "12:7: error PV201: disk vda has no iommu='on'" in done.stderr
    assert "on a real host this domain would fail too" in done.stderr


def _qemus_with(disk: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
            if str(disk) in command and "qemu" in (entry / "exe").readlink().name:
                found.append(int(entry.name))
    return found


def test_qemu_does_not_outlive_a_killed_zseal(tmp_path: Path, disk: Path) -> None:
    ours = Machine.create(tmp_path / "m")
    image = tmp_path / "image"
    build_image(image, kernel=kernel(), cmdline=b"hello wait", host_keys=[ours.keys.host.public_key()])
    domain = tmp_path / "domain.xml"
    domain.write_bytes(_domain(MINIMAL[0], disk).replace(disk.parent.name.encode() + b"-", b"killed-"))
    command = [sys.executable, "-m", "zseal", "domain", "run", str(domain), "--machine", str(tmp_path / "m")]
    short = Path(tempfile.mkdtemp(prefix="z-"))  # a Unix socket's path has at most 107 characters
    process = subprocess.Popen(
        [*command, "--image", str(image)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(short)},
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b"waiting" in line:
                break
        else:
            raise AssertionError("the guest did not start")
        assert len(_qemus_with(disk)) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdout.close() if process.stdout else None
    wait_until(lambda: not _qemus_with(disk))
    wait_until(lambda: not _left(short))  # the directories of libvirt and of the sockets are gone too
    short.rmdir()


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("zseal-*")]


INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done 2>/dev/null
echo "protected $($b cat /sys/firmware/uv/prot_virt_guest) disks $($b ls /sys/block | $b tr '\\n' ' ')that-is-all"
$b poweroff -f
"""


@pytest.mark.kernel
def test_linux_refuses_an_uncovered_disk_and_takes_a_covered_one(
    connection: Connection, machine: Machine, tmp_path: Path, disk: Path
) -> None:
    """One boot of Debian's kernel: the disk with iommu='on' is there, the one without is refused as on hardware."""
    archive = DebianArchive("trixie")
    debian = archive.kernel()
    ramdisk = tmp_path / "ramdisk"
    ramdisk.write_bytes(busybox_ramdisk(archive.busybox(), INIT, modules=debian.module("virtio_blk")))
    image = tmp_path / "image"
    build_image(
        image,
        kernel=debian.kernel,
        ramdisk=ramdisk,
        cmdline=b"console=ttysclp0 swiotlb=4096",
        host_keys=[machine.keys.host.public_key()],
    )
    second = tmp_path / "second.img"
    second.write_bytes(bytes(1 << 20))
    uncovered = f"<disk type='file'><driver type='raw'/><source file='{second}'/><target dev='vdb'/></disk>"
    raw = _domain("ok-iommu-minimal.xml", disk).replace(b"'MiB'>64", b"'MiB'>512")
    raw = raw.replace(b"<memballoon", uncovered.encode() + b"<memballoon")
    assert "PV201" in {finding.rule.id for finding in lint_bytes("x", raw).findings}
    translated = translate(Document("x", raw), image=image, user_network=True)
    with DomainGuest(translated, connection=connection, machine=machine, timeout=PATIENCE) as guest:
        output = guest.wait_for_output("that-is-all", PATIENCE)
        result = guest.wait(PATIENCE)
    assert "device must provide VIRTIO_F_ACCESS_PLATFORM" in output
    assert "protected 1 disks vda that-is-all" in output
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
