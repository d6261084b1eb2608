"""Sealed test guests, and the watch that nothing of them is left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

Seal = Callable[..., Path]
Start = Callable[..., Guest]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.fixture
def seal(tmp_path: Path, machine: Machine) -> Seal:
    def build(words: str, name: str = "image", owner: Machine | None = None) -> Path:
        path = tmp_path / name
        key = (owner or machine).keys.host.public_key()
        build_image(path, kernel=kernel(), cmdline=words.encode(), host_keys=[key])
        return path

    return build


@pytest.fixture
def start(seal: Seal, machine: Machine) -> Start:
    """Return a guest, not started, whose command line is the given words."""

    number = itertools.count(1)

    def make(words: str, **options: object) -> Guest:
        options.setdefault("memory", 64 << 20)
        options.setdefault("timeout", PATIENCE)
        return Guest(seal(words, f"image-{next(number)}"), machine=machine, **options)  # type: ignore[arg-type]  # as the caller says

    return make


@pytest.fixture(params=[True, False], ids=["plugin", "breakpoints"])
def plugin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether QEMU has the plugin; else calls and notifications are found by breakpoints."""
    if not request.param:
        monkeypatch.setenv("ZSEAL_PLUGIN", "off")
    return bool(request.param)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> set[int]:
    """The processes whose parent is this one."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == os.getpid():
                found.add(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where a test leaves a process, a descriptor or a temporary file behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    before_children = children()
    before_descriptors = descriptors()
    yield
    assert children() == before_children
    assert descriptors() == before_descriptors
    assert not list(scratch.iterdir())
