"""stage3a: what it asks of the hypervisor, and what it says when it does not get it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from zseal.image.bootloaders import Bootloaders

if TYPE_CHECKING:
    from tests.unit.native.conftest import GuestMachine
else:
    GuestMachine = object

BASE = 0x10000
IPIB = 0x20000
HEADER = 0x14000
HEADER_SIZE = 640


def load(machine: GuestMachine) -> None:
    blob = Bootloaders.default().stage3a
    arguments = BASE + len(blob) - 24
    filled = blob[:-24] + struct.pack(">QQQ", HEADER - arguments, HEADER_SIZE, IPIB - arguments)
    machine.load_code(BASE, filled[:0x18])
    machine.load_code(BASE + 0x1000, filled[0x1000:])


def enter_protected_mode_with(machine: GuestMachine, response: int) -> None:
    machine.diag308 = lambda subcode, address: 1 if subcode == 8 else response


def test_fits_the_place_image_builders_and_loaders_give_it() -> None:
    blob = Bootloaders.default().stage3a
    assert len(blob) % 8 == 0  # the arguments are doublewords
    assert BASE + len(blob) < 0x13000
    assert blob[8:14] != b"S390EP"
    assert not any(blob[0x18:0x1000])  # unused, with the loader's fields 0x400-0x7ff in it
    assert blob[0x430:0x438] == bytes(8)  # no command-line capacity of its own
    assert blob[-24:] == bytes(24)


@pytest.mark.parametrize("mask", [0x0000000180000000, 0x0000000080000000], ids=["64-bit", "31-bit"])
@pytest.mark.parametrize("entry", [0x10000, 0x11000])
def test_hands_over_the_ipl_block_with_the_header_and_enters_protected_mode(
    machine: GuestMachine, entry: int, mask: int
) -> None:
    seen: list[tuple[int, int, int]] = []

    def answer(subcode: int, address: int) -> int:
        seen.append((subcode, machine.read_number(IPIB + 0x78, 8), machine.read_number(IPIB + 0x80, 8)))
        return 1 if subcode == 8 else 0xA02

    load(machine)
    machine.diag308 = answer
    machine.run(entry, mask)
    assert seen == [(8, HEADER, HEADER_SIZE), (10, HEADER, HEADER_SIZE)]
    assert machine.diag_calls == [(8, IPIB), (10, 0)]


def test_changes_nothing_but_its_own_storage(machine: GuestMachine) -> None:
    load(machine)
    enter_protected_mode_with(machine, 0xA02)
    machine.run(0x11000)
    junk = bytes([0xA5])
    assert machine.read(0x10018, 0xFE8) == junk * 0xFE8  # also what a loader left at 0x10400-0x107ff
    assert machine.read(0x3000, 0xC000) == junk * 0xC000
    assert machine.read(IPIB, 0x78) == junk * 0x78
    assert machine.read(IPIB + 0x88, 0x1000) == junk * 0x1000


@pytest.mark.parametrize("facilities", [set(), {158}, {160, 162}])
def test_without_the_unpack_facility_it_stops_before_any_diagnose(machine: GuestMachine, facilities: set[int]) -> None:
    load(machine)
    machine.facilities = facilities
    machine.run(0x11000)
    assert machine.lines == ["Secure unpack facility is not available"]
    assert machine.stop_code == 0x4607
    assert machine.diag_calls == []


def test_template_without_arguments_says_so(machine: GuestMachine) -> None:
    blob = Bootloaders.default().stage3a
    machine.load_code(BASE, blob)
    machine.run(0x11000)
    assert machine.lines == ["This bootloader is not part of a complete image"]
    assert machine.stop_code == 0x4511
    assert machine.diag_calls == []


def test_refused_ipl_block(machine: GuestMachine) -> None:
    load(machine)
    machine.diag308 = lambda subcode, address: 0x402
    machine.run(0x11000)
    assert machine.lines == ["Protected boot setup has failed: 0x402"]
    assert machine.stop_code == 0x4608
    assert machine.diag_calls == [(8, IPIB)]


@pytest.mark.parametrize(
    ("response", "lines"),
    [
        (0x0A02, ["Protected boot has failed: 0xa02"]),
        (
            0x0902,
            ["The hypervisor has no configuration for a protected guest", "Protected boot has failed: 0x902"],
        ),
    ],
)
def test_short_response_of_older_hypervisors(machine: GuestMachine, response: int, lines: list[str]) -> None:
    load(machine)
    enter_protected_mode_with(machine, response)
    machine.run(0x11000)
    assert machine.lines == lines
    assert machine.stop_code == 0x4608


SET_PARAMETERS, UNPACK, VERIFY = 2, 3, 4
COMMANDS = {SET_PARAMETERS: "KVM_PV_SET_SEC_PARMS", UNPACK: "KVM_PV_UNPACK", VERIFY: "KVM_PV_VERIFY"}


@pytest.mark.parametrize(
    ("command", "rc", "rrc", "cause"),
    [
        (VERIFY, 0x102, 0x1A, "(ALD)"),
        (VERIFY, 0x102, 0x1B, "(PLD)"),
        (VERIFY, 0x102, 0x1C, "(TLD)"),
        (VERIFY, 0x102, 0x1D, "number of encrypted pages"),
        (VERIFY, 0x102, 0x7F, "not the one its header describes"),
        (SET_PARAMETERS, 0x104, 0x01, "version of the SE header"),
        (SET_PARAMETERS, 0x106, 0x30, "plaintext control flag"),
        (SET_PARAMETERS, 0x108, 0x05, "No key slot"),
        (SET_PARAMETERS, 0x108, 0x0B, "public customer key"),
        (SET_PARAMETERS, 0x108, 0x34, "backup (secondary) host key"),
        (SET_PARAMETERS, 0x108, 0x99, "encrypted for this host?"),
        (SET_PARAMETERS, 0x109, 0x00, "secret control flag"),
        (SET_PARAMETERS, 0x10A, 0x31, "wrong header size"),
        (SET_PARAMETERS, 0x10A, 0x39, "size of its encrypted area"),
        (SET_PARAMETERS, 0x10A, 0x40, "no key slot"),
        (SET_PARAMETERS, 0x10A, 0x77, "SE header is damaged"),
    ],
)
def test_packed_response_is_told_with_its_cause(
    machine: GuestMachine, command: int, rc: int, rrc: int, cause: str
) -> None:
    load(machine)
    enter_protected_mode_with(machine, command << 48 | rrc << 32 | rc << 16 | 0xA02)
    machine.run(0x11000)
    first, second = machine.lines
    assert cause in first
    assert second == f"Protected boot failed: 0xa02, {COMMANDS[command]} - RC: 0x{rc:x}, RRC:0x{rrc:x}"
    assert all(len(line) <= 80 for line in machine.lines)
    assert machine.stop_code == 0x4608


def test_packed_response_with_an_unknown_reason_has_no_cause_line(machine: GuestMachine) -> None:
    load(machine)
    enter_protected_mode_with(machine, 0x0003_0002_0107_0A02)
    machine.run(0x11000)
    assert machine.lines == ["Protected boot failed: 0xa02, KVM_PV_UNPACK - RC: 0x107, RRC:0x2"]


def test_failed_enable_names_it(machine: GuestMachine) -> None:
    load(machine)
    enter_protected_mode_with(machine, 0x0000_0000_0103_0A02)
    machine.run(0x11000)
    assert machine.lines == ["Protected boot failed: 0xa02, KVM_PV_ENABLE - RC: 0x103, RRC:0x0"]


def test_console_is_opened_again_after_the_reset_of_a_failed_start(machine: GuestMachine) -> None:
    def answer(subcode: int, address: int) -> int:
        machine.send_mask = 0
        return 1 if subcode == 8 else 0xA02

    load(machine)
    machine.diag308 = answer
    machine.run(0x11000)
    assert machine.lines == ["Protected boot has failed: 0xa02"]


def test_busy_sclp_and_signals_of_others_lose_no_line(machine: GuestMachine) -> None:
    load(machine)
    machine.facilities = set()
    machine.sclp_busy = 3
    machine.sclp_spurious = 2
    machine.run(0x11000)
    assert machine.lines == ["Secure unpack facility is not available"]


def test_without_an_sclp_it_still_stops_with_its_code(machine: GuestMachine) -> None:
    load(machine)
    machine.facilities = set()
    machine.sclp_there = False
    machine.run(0x11000)
    assert machine.stop_code == 0x4607


@pytest.mark.parametrize("subcode", [8, 10])
def test_program_check_is_told_and_stops_at_its_address(machine: GuestMachine, subcode: int) -> None:
    def answer(called: int, address: int) -> int:
        if called == subcode:
            raise machine.program_check(0x0006)
        return 1

    load(machine)
    machine.diag308 = answer
    machine.run(0x11000)
    assert machine.lines == [f"Program check 0x0006 at 0x{machine.stop_code:x}"]
    assert BASE + 0x1000 < machine.stop_code < 0x13000
