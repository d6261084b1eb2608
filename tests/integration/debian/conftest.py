"""A Debian root disk, from the cache or built once, and an image that is sealed to boot from it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from zseal.debian.archive import AbsentPackageError
from zseal.debian.disk import CMDLINE, DebianDisk, Recipe, debian_disk
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image


@dataclasses.dataclass(frozen=True)
class Debian:
    """The machine, the image sealed for it, and copies of the disk."""

    machine: Machine
    image: Path
    built: DebianDisk
    suite: str

    def disk(self, folder: Path) -> Path:
        self.built.copy_disk(folder / "debian.img")
        return folder / "debian.img"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture(scope="session")
def debian(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Debian:
    assert shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin"), "mke2fs is not installed"
    suite, built = build(Recipe("trixie"), Recipe("sid", kernel_suite="trixie"))
    image = tmp_path_factory.mktemp("images") / "debian.se"
    build_image(
        image,
        kernel=built.kernel.read_bytes(),
        ramdisk=built.ramdisk,
        cmdline=CMDLINE.encode(),
        host_keys=[machine.keys.host.public_key()],
    )
    return Debian(machine, image, built, suite)


def build(recipe: Recipe, *others: Recipe) -> tuple[str, DebianDisk]:
    """Return the suite and disk of the first recipe that the mirror has whole: after a release it takes some hours."""
    try:
        return recipe.suite, debian_disk(recipe)
    except AbsentPackageError:
        if not others:
            raise
        return build(*others)
