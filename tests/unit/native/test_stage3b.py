"""stage3b: where kernel, command line and ramdisk end up, and what is refused."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from zseal.image.bootloaders import Bootloaders

if TYPE_CHECKING:
    from tests.unit.native.conftest import GuestMachine
else:
    GuestMachine = object

KERNEL = 0x15000
PSW = (0x0000000180000000, 0x10000)
JUNK = 0xA5


def kernel(size: int = 0x23457, *, capacity: int = 4096) -> bytes:
    image = bytearray(random.Random(size).randbytes(size))
    image[0x10400:0x10440] = bytes(0x40)
    image[0x10430:0x10438] = struct.pack(">Q", capacity)
    return bytes(image[:size])


def load(
    machine: GuestMachine,
    kernel_image: bytes,
    *,
    at: int = 0x100000,
    command_line: bytes = b"",
    ramdisk: bytes = b"",
    kernel_at: int = KERNEL,
    command_line_at: int = 0x80000,
    ramdisk_at: int = 0x90000,
) -> int:
    """Lay the components out as the ultravisor leaves them and return where stage3b starts."""
    arguments = struct.pack(
        ">8Q",
        kernel_at,
        len(kernel_image),
        command_line_at if command_line else 0,
        len(command_line),
        ramdisk_at if ramdisk else 0,
        len(ramdisk),
        *PSW,
    )
    machine.write(0, bytes(0x10000))  # in protected mode, what is no component reads as zero
    machine.load_code(at, Bootloaders.default().stage3b[:-64] + arguments)
    machine.write(kernel_at, kernel_image)
    machine.write(command_line_at, command_line)
    machine.write(ramdisk_at, ramdisk)
    return at


def test_fits_the_contract() -> None:
    blob = Bootloaders.default().stage3b
    assert len(blob) % 16 == 0
    assert 64 < len(blob) <= 0x5000
    assert blob[-64:] == bytes(64)


@pytest.mark.parametrize("at", [0x40000, 0x100000, 0x2FF000])
@pytest.mark.parametrize("size", [0x10438, 0x11000, 0x20000, 0x23457])
def test_starts_the_kernel_from_any_page(machine: GuestMachine, at: int, size: int) -> None:
    image = kernel(size)
    machine.run(load(machine, image, at=at, command_line=b"root=/dev/vda1 quiet\0", ramdisk=b"ramdisk contents"))
    assert machine.final_psw == PSW
    expected = bytearray(image[0x10000:])
    expected[0x408:0x418] = struct.pack(">QQ", 0x90000, 16)
    if size >= 0x10500:
        expected[0x480:0x495] = b"root=/dev/vda1 quiet\0"
    assert machine.read(0x10000, len(expected)) == bytes(expected)
    assert machine.read(0x10480, 21) == b"root=/dev/vda1 quiet\0"
    assert machine.read(0x90000, 16) == b"ramdisk contents"


def test_a_good_start_is_silent(machine: GuestMachine) -> None:
    machine.run(load(machine, kernel(), command_line=b"quiet\0"))
    assert machine.service_calls == 0


@pytest.mark.parametrize("distance", [1, 255, 256, 257, 4096])
def test_the_move_is_right_for_any_overlap(machine: GuestMachine, distance: int) -> None:
    image = kernel()
    machine.run(load(machine, image, kernel_at=distance))  # sources only `distance` bytes above their destination
    assert machine.read(0x10000, len(image) - 0x10000) == image[0x10000:]


def test_without_command_line_and_ramdisk_their_fields_stay_the_kernels(machine: GuestMachine) -> None:
    image = kernel()
    machine.run(load(machine, image))
    assert machine.read(0x10000, len(image) - 0x10000) == image[0x10000:]


@pytest.mark.parametrize("size", [0, 1, 0xFFFF])
def test_kernel_that_is_too_small(machine: GuestMachine, size: int) -> None:
    machine.run(load(machine, bytes(size)))
    assert machine.lines == ["Invalid kernel"]
    assert machine.stop_code == 0x4511


@pytest.mark.parametrize(("capacity", "limit"), [(0, 896), (64, 64), (4096, 4096)])
def test_command_line_limit_counts_the_nul(machine: GuestMachine, capacity: int, limit: int) -> None:
    machine.run(load(machine, kernel(capacity=capacity), command_line=b"x" * (limit - 1) + b"\0"))
    assert machine.final_psw == PSW
    assert machine.read(0x10480, limit) == b"x" * (limit - 1) + b"\0"


@pytest.mark.parametrize(("capacity", "limit"), [(0, 896), (64, 64), (4096, 4096)])
def test_command_line_above_the_limit(machine: GuestMachine, capacity: int, limit: int) -> None:
    machine.run(load(machine, kernel(capacity=capacity), command_line=b"x" * limit + b"\0"))
    assert machine.lines == ["Command line is too large"]
    assert machine.stop_code == 0x4511


def test_command_line_without_nul(machine: GuestMachine) -> None:
    machine.run(load(machine, kernel(), command_line=b"quiet"))
    assert machine.lines == ["Command line is not terminated"]
    assert machine.stop_code == 0x4511


@pytest.mark.parametrize("place", ["command_line_at", "ramdisk_at", "at"])
def test_component_in_the_kernels_way_is_not_overwritten(machine: GuestMachine, place: str) -> None:
    image = kernel(0x23457)
    where = {"command_line_at": 0x12000, "ramdisk_at": 0x12000, "at": 0x12000}[place]
    machine.run(load(machine, image, command_line=b"quiet\0", ramdisk=b"ramdisk", kernel_at=0x200000, **{place: where}))
    assert machine.lines == ["Invalid kernel: it would overwrite another component of the image"]
    assert machine.stop_code == 0x4511


def test_program_check_stops_at_its_address(machine: GuestMachine) -> None:
    start = load(machine, kernel())
    entry = Bootloaders.default().stage3b
    machine.write(start + len(entry) - 64, struct.pack(">Q", 1 << 40))  # a kernel where there is no storage
    machine.run(start)
    assert start < machine.stop_code < start + len(entry)
