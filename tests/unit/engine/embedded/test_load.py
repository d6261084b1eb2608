"""What is loaded where, and that Linux is sent to QEMU in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zseal.arch.storage import MIB
from zseal.engine.embedded.load import Program
from zseal.engine.errors import EngineError
from zseal.engine.memory import SharedMemory
from zseal.linux import kernel_file


@pytest.fixture
def memory():  # type: ignore[no-untyped-def]
    made = SharedMemory(4 * MIB)
    yield made
    made.close()


def opened(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def kernel(*, capacity: int = 0, version: bytes | None = None) -> bytes:
    data = bytearray(0x14000)
    data[0x10008:0x1000E] = b"S390EP"
    data[0x10430:0x10438] = capacity.to_bytes(8, "big")
    if version is not None:
        data[0x10428:0x10430] = (0x13000).to_bytes(8, "big")
        data[0x13000 : 0x13000 + len(version)] = version
    return bytes(data)


def test_an_image_begins_where_its_short_psw_says(tmp_path: Path, memory: SharedMemory) -> None:
    data = bytearray(0x12000)
    data[4:8] = (0x80011000).to_bytes(4, "big")
    assert Program(opened(tmp_path / "a", bytes(data))).load(memory) == 0x11000
    assert Program(opened(tmp_path / "b", bytes(100))).load(memory) == 0x10000


def test_a_kernel_gets_command_line_and_ramdisk(tmp_path: Path, memory: SharedMemory) -> None:
    program = Program(opened(tmp_path / "k", kernel()), opened(tmp_path / "r", b"ramdisk!"), "hello world")
    assert program.load(memory) == 0x10000
    assert memory.read(0x10480, 12) == b"hello world\0"
    address = int.from_bytes(memory.read(0x10408, 8), "big")
    assert address == MIB
    assert int.from_bytes(memory.read(0x10410, 8), "big") == 8
    assert memory.read(address, 8) == b"ramdisk!"


def test_what_does_not_fit_is_refused(tmp_path: Path, memory: SharedMemory) -> None:
    descriptor = opened(tmp_path / "k", kernel())
    Program(descriptor, cmdline="x" * 895).load(memory)
    with pytest.raises(EngineError, match="895 characters"):
        Program(descriptor, cmdline="x" * 896).load(memory)
    Program(opened(tmp_path / "l", kernel(capacity=2000)), cmdline="x" * 1999).load(memory)
    with pytest.raises(EngineError, match="does not fit into 4 MiB"):
        Program(opened(tmp_path / "big", bytes(4 * MIB + 1))).load(memory)
    with pytest.raises(EngineError, match="ramdisk"):
        Program(descriptor, opened(tmp_path / "r", bytes(4 * MIB))).load(memory)


@pytest.mark.parametrize(
    ("version", "release"),
    [
        (b"6.12.107+deb13-s390x (debian-kernel@lists.debian.org) #1 SMP\0", "6.12.107+deb13-s390x"),
        (b"7.2.0\0", "7.2.0"),
        (b"not a version", None),
        (None, None),
    ],
)
def test_linux_is_known_by_its_version(
    tmp_path: Path, memory: SharedMemory, version: bytes | None, release: str | None
) -> None:
    Program(opened(tmp_path / "k", kernel(version=version))).load(memory)
    assert kernel_file.release(memory.read) == release


def test_the_test_guest_is_not_linux(tmp_path: Path, memory: SharedMemory) -> None:
    from zseal.testguest import kernel as test_guest

    Program(opened(tmp_path / "k", test_guest())).load(memory)
    assert kernel_file.release(memory.read) is None
