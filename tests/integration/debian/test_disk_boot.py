"""An image that the real zipl has installed on a disk boots from there, through the firmware, and is protected."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal import testguest
from zseal.debian.archive import AbsentPackageError, DebianArchive
from zseal.debian.disk import make_disk
from zseal.debian.ramdisk import busybox_ramdisk, directory, file, newc
from zseal.engine.devices import Disk
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.xdist_group("disk-boot")]

MIB = 1 << 20
MEMORY = 512 * MIB
MODULES = ("virtio_blk", "crc32c_generic", "ext4")

INSTALL = """#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
mkdir -p /mnt
for disk in /dev/vd?1; do
    mount -t ext4 $disk /mnt || echo "@failed"
    parameters=
    [ ! -e /mnt/boot/parameters ] || parameters="--parmfile /mnt/boot/parameters"
    /sbin/zipl --target /mnt/boot --image /mnt/boot/image $parameters || echo "@failed"
    umount /mnt || echo "@failed"
done
echo "@installed"
poweroff -f
"""

SHOW = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
echo "@guest $($b cat /sys/firmware/uv/prot_virt_guest) $($b cat /proc/cmdline)"
count=$($b dd if=/dev/vda bs=1 skip=512 count=1 2>/dev/null)
[ "$count" = 2 ] && $b poweroff -f
echo 2 | $b dd of=/dev/vda bs=1 seek=512 count=1 conv=fsync 2>/dev/null
# A kernel that was loaded from a disk asks for a re-IPL without clear unless told otherwise: not in a protected guest.
clear=$($b dd if=/dev/vda bs=1 skip=513 count=1 2>/dev/null)
[ "$clear" = N ] || echo 1 > /sys/firmware/reipl/ccw/clear
$b reboot -f
"""


def archive_with(*packages: str) -> DebianArchive:
    """Return an archive whose mirror has the packages now."""
    for suite in ("trixie", "sid"):
        archive = DebianArchive(suite)
        try:
            for name in packages:
                archive.package(name)
        except AbsentPackageError:
            continue
        return archive
    raise AssertionError(f"no suite has all of {packages}")


def installer(linux: DebianArchive) -> bytes:
    """Return a ramdisk that runs Debian's zipl on all disks."""
    archive = archive_with("s390-tools", "libc6")
    tools, libc = archive.package("s390-tools"), archive.package("libc6")
    modules = dict(item for name in MODULES for item in linux.kernel().module(name))
    ramdisk = busybox_ramdisk(linux.busybox(), INSTALL, modules=modules.items())
    loader, library = next(libc.rglob("s390x-linux-gnu/ld64.so.1")), next(libc.rglob("libc.so.6"))
    entries = [directory(name) for name in ("sbin", "lib", "usr", "usr/lib", "usr/lib/s390-tools")]
    entries += [
        file("sbin/zipl", (tools / "usr/sbin/zipl").read_bytes(), executable=True),
        file("usr/lib/s390-tools/stage3.bin", (tools / "usr/lib/s390-tools/stage3.bin").read_bytes()),
        file("lib/ld64.so.1", loader.read_bytes(), executable=True),
        file("lib/libc.so.6", library.read_bytes(), executable=True),
    ]
    return ramdisk + bytes(-len(ramdisk) % 4) + gzip.compress(newc(entries))


def console(guest: Guest) -> str:
    output = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput))
    return output.decode("utf-8", "replace").replace("\r", "")


@dataclasses.dataclass(frozen=True)
class Disks:
    """Disks that boot: Linux sealed for ``machine``, a guest sealed for ``other``, and one that is not sealed."""

    machine: Machine
    other: Machine
    linux: Path
    foreign: Path
    plain: Path


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Disks:
    """Install all three in one go of a plain guest."""
    folder = tmp_path_factory.mktemp("boot-disks")
    machine, other = Machine.create(folder / "ours"), Machine.create(folder / "other")
    archive = DebianArchive("trixie")
    found = Disks(machine, other, folder / "linux.img", folder / "foreign.img", folder / "plain.img")
    for disk in (found.linux, found.foreign, found.plain):
        (folder / disk.stem / "boot").mkdir(parents=True)
    build_image(
        folder / "linux/boot/image",
        kernel=archive.kernel().kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), SHOW, modules=archive.kernel().module("virtio_blk")),
        cmdline=b"console=ttysclp0 swiotlb=4096 quiet sealed=yes",
        host_keys=[machine.keys.host.public_key()],
    )
    build_image(
        folder / "foreign/boot/image",
        kernel=testguest.kernel(),
        cmdline=b"hello poweroff",
        host_keys=[other.keys.host.public_key()],
    )
    (folder / "plain/boot/image").write_bytes(testguest.kernel())
    (folder / "plain/boot/parameters").write_bytes(b"hello poweroff")
    for disk in (found.linux, found.foreign, found.plain):
        make_disk(disk, folder / disk.stem, 64 * MIB)
    (folder / "installer").write_bytes(installer(archive))
    with Guest.plain(
        archive.kernel().kernel,
        ramdisk=folder / "installer",
        cmdline="console=ttysclp0 quiet",
        memory=MEMORY,
        disks=[Disk(str(disk), iommu=False) for disk in (found.linux, found.foreign, found.plain)],
        timeout=PATIENCE,
    ) as guest:
        assert "@failed" not in guest.wait_for_output("@installed", PATIENCE)
        assert guest.wait(PATIENCE) is not None
    return found


def test_linux_boots_from_disk_and_again_after_a_reboot(disks: Disks) -> None:
    with Guest(None, machine=disks.machine, memory=MEMORY, disks=[Disk(str(disks.linux))], timeout=PATIENCE) as guest:
        text = console(guest)
    assert guest.result is not None
    assert guest.result.outcome is Outcome.POWEROFF, text
    assert text.count("@guest 1 console=ttysclp0 swiotlb=4096 quiet sealed=yes\n") == 2
    assert guest.report["boots"] == 2
    assert guest.report["protected"] is True
    assert guest.report["image"] is None
    assert guest.report["boot_disk"] == str(disks.linux)


def test_reboot_without_clear_stops_linux_and_is_explained(disks: Disks, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    shutil.copyfile(disks.linux, disk)
    with disk.open("r+b") as bytes_of_disk:
        bytes_of_disk.seek(512)
        bytes_of_disk.write(b"1N")
    with Guest(None, machine=disks.machine, memory=MEMORY, disks=[Disk(str(disk))], timeout=PATIENCE) as guest:
        text = console(guest)
    assert guest.result is not None
    assert guest.result.outcome is Outcome.PANIC, text
    assert "@guest 1" in text
    (found,) = guest.diagnoses
    assert found.id == "diag308-refused"
    assert "echo 1 > /sys/firmware/reipl/ccw/clear" in found.hint
    listed = guest.report["diagnoses"]
    assert isinstance(listed, list)
    assert isinstance(listed[0], dict)
    assert listed[0]["message"] == found.message


def test_installed_image_of_another_machine_is_refused(disks: Disks) -> None:
    def run(on: Machine) -> subprocess.CompletedProcess[str]:
        zseal = [sys.executable, "-m", "zseal", "run", "--machine", str(on.directory), "--memory", "512M"]
        return subprocess.run(
            [*zseal, "--disk", str(disks.foreign), "--timeout", "200"], capture_output=True, text=True, check=False
        )

    refused = run(disks.machine)
    assert refused.returncode == 4, refused.stderr
    assert "host key" in refused.stderr
    accepted = run(disks.other)
    assert accepted.returncode == 0, accepted.stderr
    assert "zseal-test-guest: hello" in accepted.stdout


def test_what_is_not_sealed_runs_unprotected_and_that_is_said(disks: Disks) -> None:
    with Guest(None, machine=disks.machine, memory=MEMORY, disks=[Disk(str(disks.plain))], timeout=PATIENCE) as guest:
        text = console(guest)
    assert "zseal-test-guest: hello" in text
    assert guest.report["protected"] is False
    assert [item.id for item in guest.diagnoses] == ["never-protected"]
