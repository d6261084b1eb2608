"""Ultravisor calls from a module are completed; one that is missed ends in a line that says so and names its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.qemu.programs import s390x_program
from tests.waiting import PATIENCE
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.engine.interface import TrapKind
from zseal.engine.qemu import engine as engine_module
from zseal.engine.qemu.sites import Sites
from zseal.guest.diagnosis import Diagnosis
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

WITHOUT_PLUGIN = pytest.mark.parametrize("plugin", [False], indirect=True, ids=["breakpoints"])

# the ioctl LOCK_SECRETS of /dev/uv issues the UVC 0x1034, from the module
PROGRAM = """
struct block { unsigned flags; unsigned short rc, rrc; unsigned long address; unsigned length; char reserved[44]; };

void _start(void)
{
	static struct block block;
	static char text[] = "answer=0000\\n";
	long done = call(IOCTL, call(OPEN, (long)"/dev/uv", 2, 0, 0, 0), 0xC0407504, (long)&block, 0, 0);

	for (int digit = 0; digit < 4; digit++)
		text[7 + digit] = "0123456789abcdef"[block.rc >> (12 - 4 * digit) & 15];
	call(WRITE, 1, (long)text, sizeof text - 1, 0, 0);
	call(EXIT, done < 0, 0, 0, 0, 0);
}
"""
INIT = """#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
$b insmod /modules/00-uvdevice.ko
$b cp /modules/01-program /program; $b chmod 755 /program; /program
echo status=$?
$b grep -w uvdevice /proc/modules
$b poweroff -f
"""


class NoHandler(Sites):
    """Does not find the handler of operation exceptions: only the calls in the kernel's image are known."""

    def kernel_proper(self, asce: int, address: int) -> None:
        super().kernel_proper(asce, address)
        self.exception_handler = None
        self._found |= dict.fromkeys(self._kernel_calls, TrapKind.UVC)


class NothingFound(Sites):
    """Finds nothing in the kernel proper."""

    def kernel_proper(self, asce: int, address: int) -> None:
        super().kernel_proper(asce, address)
        self.exception_handler = None
        self.drop_kind(TrapKind.UVC)


def run(folder: Path, machine: Machine, suite: str) -> tuple[Outcome, str, Sequence[Diagnosis], object]:
    """Boot and return how it ended, the console, what was diagnosed and the report's list of that."""
    archive = DebianArchive(suite)
    kernel = archive.kernel()
    image = folder / "image"
    modules = [*kernel.module("uvdevice"), ("program", s390x_program(folder, PROGRAM))]
    build_image(
        image,
        kernel=kernel.kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), INIT, modules=modules),
        cmdline=b"swiotlb=2048",
        host_keys=[machine.keys.host.public_key()],
    )
    with Guest(image, machine=machine, timeout=PATIENCE) as guest:
        console = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput)).decode()
        assert guest.result is not None
        return guest.result.outcome, console.replace("\r", ""), guest.diagnoses, guest.report["diagnoses"]


def missed(found: Sequence[Diagnosis], listed: object) -> int:
    """Return the address that the one diagnosis, and the report, name."""
    (diagnosis,) = found
    assert diagnosis.id == "missed-call"
    address = re.search(r" missed an ultravisor call of the guest's kernel at (0x[0-9a-f]+),", diagnosis.message)
    assert address is not None
    assert "\n" not in str(diagnosis)
    assert isinstance(listed, list)
    assert isinstance(listed[0], dict)
    assert listed[0]["message"] == diagnosis.message
    return int(address[1], 16)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_a_module_calls_the_ultravisor(tmp_path: Path, machine: Machine, suite: str) -> None:
    outcome, console, found, _ = run(tmp_path, machine, suite)
    assert outcome is Outcome.POWEROFF
    assert "answer=0001\nstatus=0\n" in console  # the guest's secret store is locked
    assert not found


@pytest.mark.usefixtures("plugin")
@WITHOUT_PLUGIN
@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_a_missed_call_of_a_module_is_explained(
    tmp_path: Path, machine: Machine, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "Sites", NoHandler)
    outcome, console, found, listed = run(tmp_path, machine, suite)
    assert outcome is Outcome.POWEROFF
    assert "illegal operation: 0001" in console
    module = re.search(r"^uvdevice (\d+) .* 0x([0-9a-f]+)", console, re.MULTILINE)
    assert module is not None, console[-2000:]
    assert 0 <= missed(found, listed) - int(module[2], 16) < int(module[1])


@pytest.mark.usefixtures("plugin")
@WITHOUT_PLUGIN
@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_a_missed_call_of_a_kernel_that_can_say_nothing_yet_is_explained(
    tmp_path: Path, machine: Machine, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[frozenset[int]] = []

    class Noted(NothingFound):
        def kernel_proper(self, asce: int, address: int) -> None:
            super().kernel_proper(asce, address)
            calls.append(self._kernel_calls)

    monkeypatch.setattr(engine_module, "Sites", Noted)
    outcome, console, found, listed = run(tmp_path, machine, suite)
    assert outcome is Outcome.PANIC
    assert "illegal operation" not in console
    assert missed(found, listed) in calls[0]
