"""Protected guests on the bare-metal test kernel, sealed once for each command line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

MEMORY = 32 << 20

Seal = Callable[[str], Path]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture(scope="session")
def seal(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Seal:
    """Returns an image that does the words of the test guest's command line."""
    folder = tmp_path_factory.mktemp("images")

    @functools.cache
    def image(words: str) -> Path:
        path = folder / f"image-{len(list(folder.iterdir()))}"
        build_image(path, kernel=kernel(), cmdline=words.encode(), host_keys=[machine.keys.host.public_key()])
        return path

    return image
