"""A real Debian kernel as a protected guest: what it sees, what it shares, and what a reboot does."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path

import pytest

from tests.unit.ultravisor.sysfs import sysfs
from tests.waiting import PATIENCE
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.engine.devices import Disk
from zseal.engine.interface import Milestone
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.plugin import Ability, PluginThread
from zseal.engine.qemu.process import find_program
from zseal.engine.qemu.sites import Sites, Stage
from zseal.formats.uv_codes import Issuer
from zseal.guest.events import ConsoleOutput, Protected, Reached
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.ultravisor import Ultravisor

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

FIRST, SECOND = b"first boot was here", b"second boot was here"
INIT = f"""#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
echo guest=$($b cat /sys/firmware/uv/prot_virt_guest) host=$($b cat /sys/firmware/uv/prot_virt_host)
echo calls=$($b head -n1 /sys/firmware/uv/query/facilities)
echo facility=$($b grep '^facilities' /proc/cpuinfo | $b grep -cw 158) cpus=$($b grep -c ^processor /proc/cpuinfo)
$b test -c /dev/uv && echo uvdevice
cd /sys/firmware/uv
for file in $($b find . -type f); do
    echo "sysfs $file $($b stat -c %a $file) $($b od -An -v -tx1 $file | $b tr -d ' \\n')"
done
if $b grep -q '{FIRST.decode()}' /dev/vda; then
    echo '{SECOND.decode()}' | $b dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null
    $b poweroff -f
fi
echo '{FIRST.decode()}' | $b dd of=/dev/vda conv=fsync 2>/dev/null
$b reboot -f
"""


def shown(console: str) -> list[tuple[str, str, str]]:
    """Return name, mode and content of each file of /sys/firmware/uv that the guest printed."""
    return [
        (name, mode, bytes.fromhex(digits).decode())
        for name, mode, digits in re.findall(r"^sysfs \./(\S+) (\d+) ([0-9a-f]*)\r?$", console, re.MULTILINE)
    ]


def one_thread(directory: Path) -> str:
    """Return a QEMU that executes all CPUs in one thread, by turns, as it may by itself on other computers."""
    program = directory / "qemu-one-thread"
    program.write_text(
        "#!/bin/bash\n"
        'for argument; do [ "$argument" != tcg ] || argument=tcg,thread=single; set -- "$@" "$argument"; shift; done\n'
        f'exec {find_program()} "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("threads", ["thread per CPU", "one thread"])
def test_debian_runs_protected_with_disk_modules_and_two_cpus_and_reboots(
    tmp_path: Path, machine: Machine, threads: str
) -> None:
    archive = DebianArchive("trixie")
    kernel = archive.kernel()
    modules = [*kernel.module("virtio_blk"), *kernel.module("uvdevice")]
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    image = tmp_path / "image"
    build_image(
        image,
        kernel=kernel.kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), INIT, modules=modules),
        cmdline=b"swiotlb=4096",
        host_keys=[machine.keys.host.public_key()],
    )
    qemu = one_thread(tmp_path) if threads == "one thread" else None
    with Guest(image, machine=machine, cpus=2, disks=[Disk(str(disk))], qemu=qemu, timeout=PATIENCE) as guest:
        events = list(guest.events())
        report = guest.report
        assert isinstance(guest.engine, QemuEngine)
        assert guest.engine.statistics()["calls_by"] == "lock"
    text = b"".join(event.data for event in events if isinstance(event, ConsoleOutput)).decode()
    assert guest.result is not None
    assert guest.result.outcome is Outcome.POWEROFF, text[-2000:]
    assert sum(isinstance(event, Protected) for event in events) == 2
    milestones = [event.milestone for event in events if isinstance(event, Reached)]
    assert milestones.count(Milestone.KERNEL_PROPER) == 2, "the plugin sees the second kernel begin as well"
    for line in ("guest=1 host=0", "calls=80c0", "facility=1 cpus=2", "uvdevice"):
        assert text.count(line) == 2, line
    # promise 73: byte for byte what the kernel makes of what the ultravisor tells a guest
    with contextlib.closing(SharedMemory(1 << 20)) as memory:
        information = Ultravisor(memory, machine.keys).query(Issuer.GUEST)
    expected = sorted((name, "444", content) for name, content in sysfs(information, guest=True).items())
    assert sorted(shown(text)) == sorted(2 * expected)
    data = disk.read_bytes()
    assert data.startswith(FIRST)
    assert data[512:].startswith(SECOND)
    ultravisor = report["ultravisor"]
    assert isinstance(ultravisor, dict)
    calls, pages = ultravisor["calls"], ultravisor["pages"]
    assert isinstance(calls, dict)
    assert isinstance(pages, dict)
    assert calls["QUI"] == calls["CREATE_SEC_CONF"] == calls["VERIFY_IMG"] == 2
    assert int(str(pages["shared"])) >= 2048
    assert report["boots"] == 2


def test_the_kernel_proper_is_seen_to_begin_alike_by_plugin_and_breakpoints(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = DebianArchive("trixie").kernel()
    image = tmp_path / "image"
    build_image(image, kernel=kernel.kernel, cmdline=b"quiet", host_keys=[machine.keys.host.public_key()])
    begun: list[tuple[int, int]] = []
    seen = threading.Event()
    kernel_proper = Sites.kernel_proper

    def watch(sites: Sites, asce: int, address: int) -> None:
        kernel_proper(sites, asce, address)
        begun.append((asce, address))
        seen.set()

    def boot() -> bool:
        """Boot until the kernel proper begins; return whether the LPSWE was a breakpoint."""
        seen.clear()
        with Guest(image, machine=machine, timeout=PATIENCE) as guest:
            assert seen.wait(PATIENCE)
            assert isinstance(guest.engine, QemuEngine)
            assert guest.engine.sites is not None
            return guest.engine.sites.loads

    monkeypatch.setattr(Sites, "kernel_proper", watch)
    assert boot() is False
    ready = PluginThread.ready
    monkeypatch.setattr(PluginThread, "ready", lambda thread: ready(thread) & Ability(0))
    assert boot() is True
    monkeypatch.setenv("ZSEAL_PLUGIN", "off")
    assert boot() is True
    assert len(begun) == 3
    assert len(set(begun)) == 1


def test_kernel_without_support_for_protected_guests_is_recognised_and_explained(
    tmp_path: Path, machine: Machine, plugin: bool
) -> None:
    kernel = DebianArchive("bookworm").kernel()
    assert kernel.release.startswith("6.1.")
    image = tmp_path / "image"
    init = "#!/bin/busybox sh\n/bin/busybox poweroff -f\n"
    build_image(
        image,
        kernel=kernel.kernel,
        ramdisk=busybox_ramdisk(DebianArchive("trixie").busybox(), init),
        cmdline=b"quiet",
        host_keys=[machine.keys.host.public_key()],
    )
    with Guest(image, machine=machine, timeout=PATIENCE) as guest:
        result = guest.wait(PATIENCE)
        assert isinstance(guest.engine, QemuEngine)
        sites = guest.engine.sites
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
    # it was seen all the same, though its boot code enters it with DAT off
    assert sites is not None
    assert sites.stage is Stage.KERNEL
    assert (sites.exception_handler is None) is plugin
    (found,) = guest.diagnoses
    assert found.id == "kernel-unaware"
    assert "CONFIG_PROTECTED_VIRTUALIZATION_GUEST" in found.message
    listed = guest.report["diagnoses"]
    assert isinstance(listed, list)
    assert isinstance(listed[0], dict)
    assert listed[0]["id"] == "kernel-unaware"


@pytest.mark.parametrize(
    ("memory", "words", "outcome", "diagnosis", "hint"),
    [
        (32 << 20, "quiet", Outcome.PANIC, "no-room-for-kernel", "more memory"),
        (512 << 20, "root=/dev/vda1 panic=0", Outcome.PANIC, "kernel-panic", "ramdisk"),
    ],
)
def test_a_kernel_that_cannot_start_or_find_its_root_says_why(
    tmp_path: Path, machine: Machine, memory: int, words: str, outcome: Outcome, diagnosis: str, hint: str
) -> None:
    """The kernel has support for protected guests: its own last words count, not what it did not come to do."""
    image = tmp_path / "image"
    kernel = DebianArchive("trixie").kernel()
    build_image(image, kernel=kernel.kernel, cmdline=words.encode(), host_keys=[machine.keys.host.public_key()])
    with Guest(image, machine=machine, memory=memory, timeout=PATIENCE) as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is outcome
    (found,) = guest.diagnoses
    assert found.id == diagnosis
    assert hint in found.hint


def test_a_guest_sees_its_name_its_identifier_and_either_all_vector_facilities_or_none(
    tmp_path: Path, machine: Machine
) -> None:
    archive = DebianArchive("trixie")
    init = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox cat /proc/sysinfo /proc/cpuinfo
echo the end
/bin/busybox poweroff -f
"""
    image = tmp_path / "image"
    build_image(
        image,
        kernel=archive.kernel().kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), init),
        cmdline=b"quiet",
        host_keys=[machine.keys.host.public_key()],
    )
    with Guest(image, machine=machine, name="web-1", timeout=PATIENCE) as guest:
        text = guest.wait_for_output("the end", PATIENCE)
        guest.wait(PATIENCE)
    assert re.search(r"^VM00 Extended Name:\s+web-1\s*$", text, re.M), text
    assert re.search(r"^VM00 UUID:\s+[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\s*$", text, re.M), text
    found = re.search(r"^facilities\s*: (.*)$", text, re.M)
    assert found is not None
    vectors = {129, 134, 135, 148, 152} & {int(number) for number in found[1].split()}
    assert not vectors or 129 in vectors
