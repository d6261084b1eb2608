"""Debian's kernel with a shell on its console, sealed for one machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

MODULES = ("virtio_blk", "virtio_net", "virtio_rng", "diag288_wdt")
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
poweroff -f
"""

Seal = Callable[..., Path]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture(scope="session")
def seal(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Seal:
    """Returns an image whose kernel command line ends with the words given."""
    folder = tmp_path_factory.mktemp("images")
    archive = DebianArchive("trixie")
    kernel = archive.kernel()
    modules = dict(item for name in MODULES for item in kernel.module(name))
    ramdisk = busybox_ramdisk(archive.busybox(), INIT, modules=modules.items())

    @functools.cache
    def build(words: str = "swiotlb=4096") -> Path:
        path = folder / f"image-{len(list(folder.iterdir()))}"
        build_image(
            path,
            kernel=kernel.kernel.read_bytes(),
            ramdisk=ramdisk,
            cmdline=f"console=ttysclp0 panic=1 loglevel=5 {words}".encode(),
            host_keys=[machine.keys.host.public_key()],
        )
        return path

    return build
