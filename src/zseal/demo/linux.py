"""The demonstration of ``zseal demo``: one image, booted protected and plain, on the right and the wrong machine.

Everything shown is measured: the guest reports on its console what it sees, the host searches what it gets when it
reads guest memory, and the same search in an unprotected guest proves that it would have found the secret. Without
QEMU: ``zseal.demo.bare_metal``.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
import time
from pathlib import Path

from zseal.arch.storage import MIB
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk, file, newc
from zseal.demo.demonstration import (
    Boot,
    DemoError,
    Demonstration,
    demonstration,
    flip_one_byte,
    host_sees,
    refused_start,
    require_poweroff,
    shared_pages,
)
from zseal.engine.devices import Disk
from zseal.engine.qemu.process import find_program
from zseal.files import read_limited
from zseal.guest.engines import EngineName
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.progress import NoProgress, Progress

MEMORY = 512 * MIB
CMDLINE = "console=ttysclp0 swiotlb=4096"
_DISK_SIZE = MIB
_BOOT_TIMEOUT = 300.0
_SAY = "zseal-demo:"
_HOLDS = f"{_SAY} holds"
_WRITTEN = f"{_SAY} disk written"
_DONE = f"{_SAY} disk done"
_MAX_RAMDISK = 1 << 30

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mount -t tmpfs tmpfs /tmp
for module in /modules/*; do $b insmod "$module"; done 2>/dev/null
echo 7 > /proc/sys/kernel/printk
guest=0
[ -e /sys/firmware/uv/prot_virt_guest ] && guest=$($b cat /sys/firmware/uv/prot_virt_guest)
facility=0
$b grep '^facilities' /proc/cpuinfo | $b grep -qw 158 && facility=1
$b printf '%s%s' {first} {second} > /tmp/marker
echo "{say} kernel $($b uname -r) guest $guest facility $facility marker $($b sha256sum < /tmp/marker)"
echo "{holds}"
read -r answer
if [ -b /dev/vda ] && $b dd if=/tmp/marker of=/dev/vda conv=fsync 2>/dev/null; then
    echo "{written}"
fi
echo "{done}"
read -r answer
$b poweroff -f
"""


def demonstrate(
    directory: Path,
    *,
    kernel: Path | None = None,
    ramdisk: Path | None = None,
    suite: str = "trixie",
    progress: Progress | None = None,
) -> Demonstration:
    """Build everything in the empty ``directory``, run it and return the observations.

    ``kernel`` and ``ramdisk`` replace Debian's; the ramdisk (newc, compressed or not) must contain /bin/busybox, and in
    /modules the modules that the kernel needs for a virtio disk. Raises ZsealError if a step fails.
    """
    progress = progress or NoProgress()
    find_program()  # before anything is fetched
    marker = f"zseal-{secrets.token_hex(24)}"
    kernel_file, ramdisk_data = _inputs(kernel, ramdisk, suite, marker, progress)
    ramdisk_file = directory / "ramdisk"
    ramdisk_file.write_bytes(ramdisk_data)

    progress.step("Creating two software machines")
    machine = Machine.create(directory / "machine", name="demo")
    other = Machine.create(directory / "other-machine", name="another")

    progress.step("Sealing kernel, ramdisk and command line for the first one")
    image = directory / "demo.img"
    build_image(
        image,
        kernel=kernel_file,
        ramdisk=ramdisk_file,
        cmdline=CMDLINE.encode(),
        host_keys=[machine.keys.host.public_key()],
        progress=lambda done, total: progress.share("Sealing", done / total if total else 0.0),
    )

    progress.step("Booting it as a protected guest")
    sealed = _boot(
        Guest(image, machine=machine, memory=MEMORY, disks=[_disk(directory)], timeout=_BOOT_TIMEOUT), marker
    )
    progress.step("Booting the same kernel unprotected, to compare")
    plain = _boot(
        Guest.plain(
            kernel_file,
            ramdisk=ramdisk_file,
            cmdline=CMDLINE,
            memory=MEMORY,
            disks=[_disk(directory)],
            timeout=_BOOT_TIMEOUT,
        ),
        marker,
    )
    progress.step("Starting the image on the other machine")
    wrong_machine = refused_start(image, other, memory=MEMORY, engine=EngineName.QEMU)
    progress.step("Starting it with one byte flipped")
    changed = flip_one_byte(image, directory / "tampered.img")
    tampered = refused_start(changed, machine, memory=MEMORY, engine=EngineName.QEMU)

    return demonstration(sealed, plain, wrong_machine=wrong_machine, tampered=tampered)


def _inputs(
    kernel: Path | None, ramdisk: Path | None, suite: str, marker: str, progress: Progress
) -> tuple[Path, bytes]:
    """Return the kernel's file and the ramdisk with our /init."""
    archive = DebianArchive(suite, progress=progress.share)
    # in two halves: only the running guest joins the marker
    init = _INIT.format(first=marker[:20], second=marker[20:], say=_SAY, holds=_HOLDS, written=_WRITTEN, done=_DONE)
    modules: list[tuple[str, bytes]] = []
    if kernel is None:
        progress.step(f"Getting a Debian kernel ({suite}): fetched the first time, kept in the cache")
        files = archive.kernel()
        kernel, modules = files.kernel, files.module("virtio_blk")
    if ramdisk is None:
        progress.step("Packing a ramdisk with busybox")
        return kernel, busybox_ramdisk(archive.busybox(), init, modules=modules)
    base = read_limited(ramdisk, _MAX_RAMDISK, "ramdisk")
    # Linux unpacks archives that follow each other; a later file replaces an earlier one
    return kernel, base + bytes(-len(base) % 4) + gzip.compress(newc([file("init", init.encode(), executable=True)]))


def _disk(directory: Path) -> Disk:
    path = directory / "disk.img"
    path.write_bytes(bytes(_DISK_SIZE))
    return Disk(str(path))


def _boot(guest: Guest, marker: str) -> Boot:
    """Let the guest report what it sees, and search its memory before and after it writes the marker to its disk."""
    start = time.monotonic()
    with guest:
        text = guest.wait_for_output(_HOLDS, _BOOT_TIMEOUT)
        seconds = time.monotonic() - start
        told = re.search(rf"{_SAY} kernel (\S+) guest (\S) facility (\d) marker ([0-9a-f]{{64}})", text)
        if told is None:
            raise DemoError("the guest booted but did not report what it sees", hint="try again without `ramdisk`")
        seen_before = host_sees(guest, marker)
        guest.write_console(b"\n")
        if _WRITTEN not in guest.wait_for_output(_DONE, 60.0):
            raise DemoError("the guest found no disk", hint="its kernel or ramdisk needs virtio_blk")
        seen_after = host_sees(guest, marker)
        guest.write_console(b"\n")
        require_poweroff(guest.wait(60.0))
    return Boot(
        kernel=told[1],
        guest=told[2] == "1",
        facility=told[3] == "1",
        marker_held=told[4] == hashlib.sha256(marker.encode()).hexdigest(),
        seconds=round(seconds, 3),
        seen_before=seen_before,
        seen_after=seen_after,
        shared_pages=shared_pages(guest.report),
    )
