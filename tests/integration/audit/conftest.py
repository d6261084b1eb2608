"""Debian's kernel with a shell on its console, as a protected guest whose devices are audited."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

MIB = 1 << 20
MODULES = ("virtio_blk", "virtio_net", "virtio_rng")
INIT = """#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
stty -echo
echo "@ready"
while read -r line; do eval "$line"; done
"""


class Linux:
    """A guest that has come up; ``guest`` is closed by who made it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._numbers = itertools.count(1)
        guest.wait_for_output("@ready", PATIENCE)

    def start(self, command: str) -> str:
        """Let the shell begin with ``command``; returns what it writes when it is done."""
        mark = f"@end{next(self._numbers)}."
        self.guest.write_console(f"{command}; echo {mark[:2]}''{mark[2:]}\n".encode())
        return mark

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        """Run ``command`` and return all that the guest has written so far."""
        return self.guest.wait_for_output(self.start(command), timeout)


Boot = Callable[..., Guest]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture(scope="session")
def image(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns an image with the kernel of a suite and a shell."""
    folder = tmp_path_factory.mktemp("images")

    @functools.cache
    def build(suite: str) -> Path:
        archive = DebianArchive(suite)
        kernel = archive.kernel()
        modules = dict(item for name in MODULES for item in kernel.module(name))
        path = folder / suite
        build_image(
            path,
            kernel=kernel.kernel.read_bytes(),
            ramdisk=busybox_ramdisk(archive.busybox(), INIT, modules=modules.items()),
            cmdline=b"console=ttysclp0 quiet panic=1",
            host_keys=[machine.keys.host.public_key()],
        )
        return path

    return build


@pytest.fixture
def boot(machine: Machine, image: Callable[[str], Path]) -> Boot:
    """Returns a guest that is not started yet."""

    def make(
        *disks: Disk,
        suite: str = "trixie",
        policy: IoPolicy = IoPolicy.ENFORCE,
        cpus: int = 1,
        networks: Sequence[UserNetwork] = (),
        random_sources: Sequence[RandomSource] = (),
    ) -> Guest:
        return Guest(
            image(suite),
            machine=machine,
            memory=512 * MIB,
            cpus=cpus,
            disks=disks,
            networks=networks,
            random_sources=random_sources,
            io_policy=policy,
            timeout=PATIENCE,
        )

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Callable[[str], Disk]:
    """Returns a new disk of 32 MiB of zeros."""

    def make(name: str) -> Disk:
        path = tmp_path / name
        path.write_bytes(bytes(32 * MIB))
        return Disk(str(path))

    return make
