"""Bootloaders and test guest on a machine without Secure Execution."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zseal.image.bootloaders import Bootloaders
from zseal.testguest import kernel

if TYPE_CHECKING:
    from tests.integration.boot.conftest import PlainMachine
else:
    PlainMachine = object

pytestmark = pytest.mark.qemu

NAME = "zseal-test-guest: "


def image_file(contents: dict[int, bytes], entry: int) -> bytes:
    """A raw file that QEMU loads at address 0 and starts at ``entry`` (by the short PSW in its first bytes)."""
    image = bytearray(max(address + len(data) for address, data in contents.items()))
    image[:8] = (0x0008000180000000 | entry).to_bytes(8)
    for address, data in contents.items():
        image[address : address + len(data)] = data
    return bytes(image)


@pytest.mark.parametrize("console", ["sclpconsole", "sclplmconsole"])
def test_stage3a_says_that_the_facility_is_missing_and_stops(plain_machine: PlainMachine, console: str) -> None:
    image = image_file({0xC000: b"SeImgLnx", 0x10000: Bootloaders.default().stage3a}, 0x11000)
    run = plain_machine.run(image, console=console)
    assert run.lines == ["Secure unpack facility is not available"]
    info = run.event("GUEST_PANICKED")["info"]
    assert isinstance(info, dict)
    assert info["reason"] == "disabled-wait"
    assert info["psw-addr"] == 0x4607


def test_stage3a_started_by_a_loader_for_linux_kernels(plain_machine: PlainMachine, tmp_path: Path) -> None:
    """With a ramdisk the loader writes to 0x10408 and 0x10410, in the middle of stage3a's file."""
    (tmp_path / "ramdisk").write_bytes(b"x" * 5000)
    image = image_file({0x10000: Bootloaders.default().stage3a}, 0x10000)
    run = plain_machine.run(image, "-initrd", str(tmp_path / "ramdisk"))
    assert run.lines == ["Secure unpack facility is not available"]


def test_stage3b_starts_a_kernel_with_its_command_line_and_ramdisk(plain_machine: PlainMachine) -> None:
    ramdisk = random.Random(1).randbytes(12345)
    command_line = b"hello cmdline ramdisk\0"
    kernel_at, command_line_at, ramdisk_at, stage3b_at = 0x15000, 0x30000, 0x31000, 0x40000
    arguments = (kernel_at, len(kernel()), command_line_at, len(command_line), ramdisk_at, len(ramdisk))
    stage3b = Bootloaders.default().stage3b[:-64] + struct.pack(">8Q", *arguments, 0x180000000, 0x10000)
    run = plain_machine.run(
        image_file(
            {kernel_at: kernel(), command_line_at: command_line, ramdisk_at: ramdisk, stage3b_at: stage3b}, stage3b_at
        )
    )
    assert run.lines == [
        f"{NAME}hello",
        f"{NAME}cmdline length=21 crc32={zlib.crc32(command_line[:-1]):08x} hello cmdline ramdisk",
        f"{NAME}ramdisk address=0x31000 size=12345 crc32={zlib.crc32(ramdisk):08x}",
    ]
    assert run.event("SHUTDOWN")["reason"] == "guest-shutdown"


def test_guest_powers_off_after_its_last_word(plain_machine: PlainMachine) -> None:
    run = plain_machine.run(kernel(), "-append", "hello facility say=bye")
    assert run.lines == [NAME + line for line in ("hello", "facility 158 no", "facility 161 no", "bye")]
    assert run.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}


def test_ultravisor_words_survive_a_machine_without_ultravisor(plain_machine: PlainMachine) -> None:
    words = "query share=2 unshare-at=pool uvc=1000,30,20:pool problem mfields crossing readonly"
    run = plain_machine.run(kernel(), "-append", words)
    assert len(run.lines) == 10
    for line in run.lines:
        assert "program=0001" in line
    assert run.event("SHUTDOWN")["reason"] == "guest-shutdown"


def test_storage_words(plain_machine: PlainMachine) -> None:
    words = "store=pool+10,abc load=pool+10,4 crc=pool+10,3 marker=secret holds=marker,secret holds=marker,other"
    run = plain_machine.run(kernel(), "-append", words + " zero=pool,10 zero=pool,11 await=pool+10,abc load=end-1,1")
    assert [line.removeprefix(NAME) for line in run.lines] == [
        "store address=0x200010 length=3",
        "load 0x200010 61626300",
        f"crc address=0x200010 size=3 crc32={zlib.crc32(b'abc'):08x}",
        "marker address=0x100000 length=6",
        "holds address=0x100000 yes",
        "holds address=0x100000 no",
        "zero address=0x200000 size=0x10 yes",
        "zero address=0x200000 size=0x11 no",
        "await done",
        "load 0x7ffffff 00",
    ]


@pytest.mark.parametrize("mode", ["primary", "home"])
def test_guest_with_address_translation(plain_machine: PlainMachine, mode: str) -> None:
    words = f"store=pool,secret dat={mode} holds=40000000,secret holds=pool,secret query nap=5 dat=off hello"
    run = plain_machine.run(kernel(), "-append", words)
    assert [line.removeprefix(NAME) for line in run.lines] == [
        "store address=0x200000 length=6",
        f"dat {mode}",
        "holds address=0x40000000 yes",
        "holds address=0x200000 yes",
        "query program=0001",
        "nap done",
        "dat off",
        "hello",
    ]


def test_second_cpu_has_a_prefix_of_its_own(plain_machine: PlainMachine) -> None:
    run = plain_machine.run(kernel(), "-smp", "2", "-append", "cpu cpu hello")
    assert run.lines == [f"{NAME}cpu 1 prefix=0x6000 query program=0001"] * 2 + [f"{NAME}hello"]
    assert run.event("SHUTDOWN")["reason"] == "guest-shutdown"


def test_diagnose_308_of_an_ordinary_guest(plain_machine: PlainMachine) -> None:
    run = plain_machine.run(kernel(), "-append", "diag=0 diag=1 diag=4 diag=5 diag=6 diag=7 diag=8 diag=9 diag=a hello")
    assert [line.removeprefix(NAME) for line in run.lines] == [
        "diag 308 subcode 0 came back through the PSW at 0",
        "diag 308 subcode 1 came back through the PSW at 0",
        "diag 308 subcode 4 program=0006",
        "diag 308 subcode 5 response=0402",
        "diag 308 subcode 6 response=0102",
        "diag 308 subcode 7 program=0006",
        "diag 308 subcode 8 program=0006",
        "diag 308 subcode 9 program=0006",
        "diag 308 subcode a program=0006",
        "hello",
    ]


@pytest.mark.parametrize(("words", "code"), [("panic", 0xDEAD), ("panic=1234", 0x1234), ("gibberish", 0xBAD)])
def test_guest_that_stops_for_good(plain_machine: PlainMachine, words: str, code: int) -> None:
    info = plain_machine.run(kernel(), "-append", words).event("GUEST_PANICKED")["info"]
    assert isinstance(info, dict)
    assert info["psw-addr"] == code


def test_reboot_resets_the_machine(plain_machine: PlainMachine) -> None:
    run = plain_machine.run(kernel(), "-append", "hello reboot")
    assert run.lines == [f"{NAME}hello"]
    assert run.event("SHUTDOWN")["reason"] == "guest-reset"
