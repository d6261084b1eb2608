"""Kernels that Debian does not have: old ones with support for protected guests, and kexec and kdump inside a guest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.integration.qemu.programs import s390x_program
from tests.kernels.conftest import SOURCES, Build
from tests.waiting import PATIENCE
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.kernel,
    pytest.mark.timeout(3600),
    pytest.mark.parametrize("source", SOURCES),
]

INIT = """#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys
echo "@{name} guest=$($b cat /sys/firmware/uv/prot_virt_guest) $($b cat /proc/cmdline)"
{then}
$b poweroff -f
"""
PARAMETERS = "swiotlb=1024 quiet next"
# kexec_file_load() of what lies in the ramdisk, and then the start of it
PROGRAM = """
void _start(void)
{
	static const char parameters[] = "%(parameters)s";
	long kernel = call(OPEN, (long)"/modules/00-kernel", 0, 0, 0, 0);
	long ramdisk = call(OPEN, (long)"/modules/01-ramdisk", 0, 0, 0, 0);
	long done = call(KEXEC_FILE_LOAD, kernel, ramdisk, sizeof parameters, (long)parameters, %(flags)d);

	if (done == 0 && !%(flags)d)
		call(REBOOT, 0xfee1dead, 672274793, 0x45584543, 0, 0);
	call(EXIT, done != 0, 0, 0, 0, 0);
}
"""
ON_CRASH = 2
RUN = "$b cp /modules/02-program /program; $b chmod 755 /program; /program || $b poweroff -f"


@dataclasses.dataclass(frozen=True)
class Run:
    lines: list[str]
    calls: dict[str, int]
    shared: int


def run(folder: Path, machine: Machine, kernel: Path, flags: int | None = None) -> Run:
    """Boot ``kernel``, and let it start itself anew: by kexec, or with ON_CRASH in ``flags`` when it panics."""
    busybox = DebianArchive("trixie").busybox()
    parameters, then = "swiotlb=2048 quiet", ""
    modules = []
    if flags is not None:
        second = busybox_ramdisk(busybox, INIT.format(name="second", then=""))
        program = s390x_program(folder, PROGRAM % {"parameters": PARAMETERS, "flags": flags})
        modules = [("kernel", kernel.read_bytes()), ("ramdisk", second), ("program", program)]
        then = RUN
    if flags == ON_CRASH:
        parameters += " crashkernel=256M"
        then += "; exit 1"  # the end of the first program is a panic
    image = folder / "image"
    build_image(
        image,
        kernel=kernel,
        ramdisk=busybox_ramdisk(busybox, INIT.format(name="first", then=then), modules=modules),
        cmdline=parameters.encode(),
        host_keys=[machine.keys.host.public_key()],
    )
    with Guest(image, machine=machine, cpus=2, timeout=PATIENCE) as guest:
        console = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput)).decode()
        assert guest.result is not None
        assert guest.result.outcome is Outcome.POWEROFF, console
        assert not guest.diagnoses
        ultravisor = guest.report["ultravisor"]
    assert isinstance(ultravisor, dict)
    calls, pages = ultravisor["calls"], ultravisor["pages"]
    assert isinstance(calls, dict)
    assert isinstance(pages, dict)
    lines = [line for line in console.replace("\r", "").split("\n") if line.startswith("@")]
    return Run(lines, {name: int(str(count)) for name, count in calls.items()}, int(str(pages["shared"])))


def test_kernel_runs_protected(tmp_path: Path, machine: Machine, build: Build, source: str) -> None:
    seen = run(tmp_path, machine, build(source))
    assert seen.lines == ["@first guest=1 swiotlb=2048 quiet"]
    assert seen.shared > 1024


@pytest.mark.parametrize("flags", [0, ON_CRASH])
def test_next_kernel_is_protected_and_nothing_of_the_first_stays_shared(
    tmp_path: Path, machine: Machine, build: Build, source: str, flags: int
) -> None:
    seen = run(tmp_path, machine, build(source), flags)
    assert [line.split()[:2] for line in seen.lines] == [["@first", "guest=1"], ["@second", "guest=1"]]
    assert seen.lines[1].endswith(PARAMETERS)
    assert 512 < seen.shared < 1024  # the second pool alone
    assert (seen.calls["CREATE_SEC_CONF"], seen.calls["SET_UNSHARE_ALL"], seen.calls["PREPARE_RESET"]) == (1, 1, 1)
