"""Kernels that move themselves to a random address: they are protected, found and served like any other.

A kernel randomises its address only where the CPU has KMC-PRNG, which QEMU's has not. So firmware of these tests tells
the boot code that there is one: the random numbers themselves then come from PRNO, which QEMU has.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.arch.dat import translate
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu import engine as engine_module
from zseal.engine.qemu import trapped_run
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.sites import Sites, Stage
from zseal.engine.qemu.traps import Traps
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

KMC = b"\xb9\x2f"
FUNCTION = 0x7F  # of general register 0; 0 asks which functions there are
PRNG_BYTE, PRNG_BIT = 67 // 8, 0x80 >> 67 % 8
POOL_SLOTS = 4096
POOL_PAGES = POOL_SLOTS * 2048 // 4096
INIT = """#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
echo guest=$($b cat /sys/firmware/uv/prot_virt_guest)
echo text=$($b grep ' _stext$' /proc/kallsyms)
$b test -c /dev/uv && echo uvdevice
$b dmesg | $b grep -i kaslr
$b poweroff -f
"""


class SitesWithPrng(Sites):
    """Stops at the boot code's KMC instructions as well."""

    def __init__(self, memory: SharedMemory, entry: int) -> None:
        super().__init__(memory, entry)
        self.kmc: frozenset[int] = frozenset()
        self.queries = 0
        self.kernels: list[tuple[int, int]] = []
        """Virtual and absolute address of each kernel proper."""

    def __iter__(self) -> Iterator[int]:
        yield from super().__iter__()
        if self.stage is Stage.DECOMPRESSOR:
            yield from self.kmc

    def kernel_entered(self, address: int) -> None:
        super().kernel_entered(address)
        code = self._memory.read(address, 1 << 18)
        self.kmc = frozenset(address + match.start() for match in re.finditer(KMC, code) if match.start() % 2 == 0)

    def kernel_proper(self, asce: int, address: int) -> None:
        super().kernel_proper(asce, address)
        self.kernels.append((address, translate(self._memory, asce, address)))


class TrapsWithPrng(Traps):
    """Adds the PRNG to what the boot code is told of KMC's functions."""

    _sites: SitesWithPrng

    def handle(self, cpu: QemuCpu) -> bool:
        if self._sites.stage is not Stage.DECOMPRESSOR or cpu.psw.address not in self._sites.kmc:
            return super().handle(cpu)
        if cpu.instruction()[:2] != KMC or cpu.gr(0) & FUNCTION:
            return True
        status = cpu.gr(1) + PRNG_BYTE
        cpu.step()
        self._memory.write(status, bytes([self._memory.read(status, 1)[0] | PRNG_BIT]))
        self._sites.queries += 1
        return False


@dataclasses.dataclass(frozen=True)
class Boot:
    console: str
    sites: SitesWithPrng
    shared: int
    """Pages that it shared at its end."""
    diagnoses: list[str]

    @property
    def text(self) -> int:
        """Virtual address of the kernel's text, as the kernel says."""
        found = re.search(r"^text=([0-9a-f]{16}) T _stext", self.console, re.MULTILINE)
        assert found is not None, self.console
        return int(found[1], 16)


def boot(folder: Path, machine: Machine, suite: str, parameters: str = "") -> Boot:
    archive = DebianArchive(suite)
    kernel = archive.kernel()
    image = folder / "image"
    build_image(
        image,
        kernel=kernel.kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), INIT, modules=kernel.module("uvdevice")),
        cmdline=f"swiotlb={POOL_SLOTS} {parameters}".encode(),
        host_keys=[machine.keys.host.public_key()],
        overwrite=True,
    )
    with Guest(image, machine=machine, cpus=2, timeout=PATIENCE) as guest:
        console = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput)).decode()
        assert isinstance(guest.engine, QemuEngine)
        sites = guest.engine.sites
        result = guest.result
        diagnoses = [found.id for found in guest.diagnoses]
        ultravisor = guest.report["ultravisor"]
    assert isinstance(sites, SitesWithPrng)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF, console[-2000:]
    assert isinstance(ultravisor, dict)
    pages = ultravisor["pages"]
    assert isinstance(pages, dict)
    return Boot(console.replace("\r", ""), sites, int(str(pages["shared"])), diagnoses)


@pytest.fixture(autouse=True)
def prng(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "Sites", SitesWithPrng)
    monkeypatch.setattr(trapped_run, "Traps", TrapsWithPrng)


@pytest.mark.parametrize(("suite", "plugin"), [("trixie", False), ("sid", False), ("sid", True)], indirect=["plugin"])
def test_a_kernel_at_a_random_address_is_protected_and_shares_its_pool(
    tmp_path: Path, machine: Machine, suite: str, plugin: bool
) -> None:
    boots = [boot(tmp_path, machine, suite) for _ in range(2)]
    fixed = boot(tmp_path, machine, suite, "nokaslr")
    assert all(one.sites.queries for one in boots)
    for one in (*boots, fixed):
        assert "guest=1" in one.console
        assert "KASLR disabled: CPU has no PRNG" not in one.console
        assert "uvdevice" in one.console
        assert (one.sites.exception_handler is None) is plugin
        assert one.sites.kernels == [(one.text, one.sites.kernels[0][1])]
        assert one.shared > POOL_PAGES
        assert one.diagnoses == []
    places = {one.sites.kernels[0] for one in (*boots, fixed)}
    for addresses in zip(*places, strict=True):  # virtual and absolute: a boot moves both
        assert len(set(addresses)) == 3
    assert not fixed.sites.queries
