"""Bootloaders and test guest where they belong: in a sealed image, on a machine with an ultravisor."""

from __future__ import annotations

import dataclasses
import random
import zlib
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

pytestmark = pytest.mark.qemu

RAMDISK = random.Random(2).randbytes(54321)


@dataclasses.dataclass(frozen=True)
class SealedRun:
    lines: list[str]
    result: Result | None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return new_machine(tmp_path_factory.mktemp("machines") / "ours")


def new_machine(directory: Path) -> Machine:
    Machine.create(directory, name=directory.name)
    return Machine.load(directory)


def seal(path: Path, machine: Machine, words: str) -> Path:
    build_image(
        path,
        kernel=kernel(),
        ramdisk=RAMDISK,
        cmdline=words.encode(),
        host_keys=[machine.host_key_document.public_key()],  # type: ignore[list-item]  # a host key is always P-521
    )
    return path


def run(image: Path, machine: Machine) -> SealedRun:
    output = b""
    with Guest(image, machine=machine, memory=128 << 20, timeout=PATIENCE) as guest:
        for event in guest.events():
            if isinstance(event, ConsoleOutput):
                output += event.data
    lines = [line.removeprefix("zseal-test-guest: ") for line in output.decode().splitlines()]
    return SealedRun(lines, guest.result)


def test_image_with_our_bootloaders_starts_protected(tmp_path: Path, machine: Machine) -> None:
    words = "hello facility cmdline ramdisk query zero=pool,1000 zero=2000,1000 share=2 unshare=1"
    sealed = run(seal(tmp_path / "image", machine, words), machine)
    expected = [
        "hello",
        "facility 158 yes",
        "facility 161 no",
        f"cmdline length={len(words)} crc32={zlib.crc32(words.encode()):08x} {words}",
        f"ramdisk address=0x2b000 size=54321 crc32={zlib.crc32(RAMDISK):08x}",
    ]
    assert sealed.lines[:5] == expected
    assert sealed.lines[5].startswith("query cc=0 rc=0001 rrc=0000 calls=80c0")
    assert sealed.lines[6] == "zero address=0x200000 size=0x1000 yes"
    assert sealed.lines[8:] == [
        "share pages=2 of 2 address=0x200000 cc=0 rc=0001 rrc=0000 intact=2",
        "unshare pages=1 of 1 address=0x200000 cc=0 rc=0001 rrc=0000 intact=1",
    ]
    assert sealed.result is not None
    assert sealed.result.outcome is Outcome.POWEROFF


def test_image_for_another_machine_says_why_it_does_not_start(tmp_path: Path, machine: Machine) -> None:
    sealed = run(seal(tmp_path / "image", new_machine(tmp_path / "another"), "hello"), machine)
    assert sealed.lines == [
        "No key slot of the image matches the host key of this machine",
        "Protected boot failed: 0xa02, KVM_PV_SET_SEC_PARMS - RC: 0x108, RRC:0x5",
    ]
    assert sealed.result is not None
    assert sealed.result.outcome is Outcome.REFUSED


def test_changed_component_is_told_by_its_digest(tmp_path: Path, machine: Machine) -> None:
    image = seal(tmp_path / "image", machine, "hello")
    contents = bytearray(image.read_bytes())
    contents[0x16000] ^= 1
    image.write_bytes(contents)
    assert run(image, machine).lines == [
        "Image check failed: the content of a component was changed (PLD)",
        "Protected boot failed: 0xa02, KVM_PV_VERIFY - RC: 0x102, RRC:0x1b",
    ]
