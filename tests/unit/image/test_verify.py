"""Verifying images without booting them: what a machine accepts, what it refuses and with which code."""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.image.conftest import COMMAND_LINE, HOST_KEYS, KERNEL, RAMDISK, VECTORS, fake_kernel, image
from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import FormatError, InputError, OutputError
from zseal.formats.ipib import Ipib, IpibComponent
from zseal.formats.se_header import PlainFlags
from zseal.image.bootloaders import Bootloaders
from zseal.image.build import build_image
from zseal.image.verify import verify_image
from zseal.ultravisor.refusal import UvcRefusal

MACHINE = MachineKeys(HOST_KEYS[0])
OTHER = ec.derive_private_key(4711, ec.SECP521R1())
ARGUMENTS_AT = 0x10000 + 4656 - 24
HEADER, KERNEL_AT, RAMDISK_AT, CMDLINE_AT, STAGE3B_AT, IPIB = 0x14000, 0x15000, 0x17000, 0x18000, 0x19000, 0x1A000


@functools.cache
def known(name: str = "se-kat2") -> bytes:
    return image(name)


def flipped(offset: int, bits: int = 1, name: str = "se-kat2") -> bytes:
    data = bytearray(known(name))
    data[offset] ^= bits
    return bytes(data)


def refusal(data: bytes, keys: MachineKeys = MACHINE) -> tuple[int, int]:
    with pytest.raises(UvcRefusal) as raised:
        verify_image(data, keys)
    return raised.value.rc, raised.value.rrc


@pytest.mark.parametrize("name", ["se-kat1", "se-kat2", "se-kat3"])
def test_known_answers_verify_and_extract(name: str, tmp_path: Path) -> None:
    result = verify_image(image(name), MACHINE, extract=tmp_path / "out")
    assert [part.original_size for part in result.components] == [len(KERNEL), len(RAMDISK), len(COMMAND_LINE), None]
    assert not result.backup_key
    assert {path.name for path in result.extracted} == {"kernel", "ramdisk", "parmfile"}
    assert (tmp_path / "out/kernel").read_bytes() == KERNEL
    assert (tmp_path / "out/ramdisk").read_bytes() == RAMDISK
    assert (tmp_path / "out/parmfile").read_bytes() == COMMAND_LINE.rstrip(b"\0")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o600}


def test_second_host_key_opens_as_well() -> None:
    verify_image(known(), MachineKeys(HOST_KEYS[1]))


def test_other_machine_is_refused() -> None:
    assert refusal(known(), MachineKeys(OTHER)) == (0x108, 5)


@pytest.mark.parametrize("offset", range(HEADER, HEADER + 720))
def test_every_flipped_byte_of_the_header_is_refused(offset: int) -> None:
    # the first key is not the last slot's, so slots that are not used are covered too
    with pytest.raises(UvcRefusal):
        verify_image(flipped(offset), MACHINE)


@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (0x0, (0x10A, 0x01)),
        (0x8, (0x104, 0x01)),
        (0xF, (0x10A, 0x31)),
        (0x10, (0x107, 0x01)),
        (0x27, (0x10A, 0x31)),
        (0x2F, (0x10A, 0x39)),
        (0x38, (0x106, 0x30)),
        (0x8F, (0x108, 0x0B)),
        (0x1A0, (0x108, 0x05)),
        (0xE0, (0x107, 0x01)),
    ],
)
def test_flipped_header_byte_gets_the_code_of_its_check(offset: int, code: tuple[int, int]) -> None:
    assert refusal(flipped(HEADER + offset)) == code


@pytest.mark.parametrize("offset", range(IPIB + 0x88, IPIB + 232))
def test_every_flipped_byte_of_the_component_list_is_refused(offset: int) -> None:
    with pytest.raises((UvcRefusal, FormatError)):
        verify_image(flipped(offset, 0x10), MACHINE)


def relisted(*components: IpibComponent) -> bytes:
    ipib = Ipib.parse(known()[IPIB:])
    changed = Ipib.build(
        header_address=HEADER, header_size=ipib.header.header_size, components=components or ipib.components
    )
    return known()[:IPIB] + changed.pack()


def listed() -> tuple[IpibComponent, ...]:
    return Ipib.parse(known()[IPIB:]).components


def moved(index: int, **changes: int) -> bytes:
    components = list(listed())
    values = {name: getattr(components[index], name) for name in ("tweak_prefix", "address", "size")} | changes
    components[index] = IpibComponent(**values)
    return relisted(*components)


def test_component_list_attacks_get_the_code_of_their_digest() -> None:
    assert verify_image(relisted(), MACHINE)
    assert refusal(relisted(*listed()[:-1])) == (0x102, 0x1D)
    assert refusal(moved(0, size=0x1000)) == (0x102, 0x1D)
    assert refusal(moved(1, address=CMDLINE_AT)) == (0x102, 0x1A)
    assert refusal(moved(1, tweak_prefix=listed()[1].tweak_prefix + 1)) == (0x102, 0x1C)


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0x6, "the PSW at its beginning leads to 0x1ef00"),
        (ARGUMENTS_AT + 0x17, "hands over the component list at byte"),
        (0xC01B, "(component list|component list is|IPL parameter block)"),
    ],
)
def test_changed_plain_parts_that_lead_elsewhere_are_refused(offset: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        verify_image(flipped(offset, 0xFF), MACHINE)


@pytest.mark.parametrize("offset", [ARGUMENTS_AT + 0x7, ARGUMENTS_AT + 0xF])
def test_a_boot_loader_without_known_arguments_is_not_vouched_for(offset: int) -> None:
    """Another builder's may keep them elsewhere: the components are verified, and that is all that is said."""
    assert verify_image(known(), MACHINE).image.stage3a is not None
    assert verify_image(flipped(offset, 0xFF), MACHINE).image.stage3a is None


def test_our_boot_loader_with_other_arguments_is_refused() -> None:
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), host_keys=[HOST_KEYS[0].public_key()])
    data = bytearray(output.getvalue())
    data[0x10000 + len(Bootloaders.default().stage3a) - 24 + 7] ^= 8
    with pytest.raises(FormatError, match="zseal's, but its arguments do not name this SE header"):
        verify_image(bytes(data), MACHINE)


def test_other_component_list_than_the_boot_loader_hands_over_is_refused() -> None:
    """A whole and correct list counts for nothing if the machine gets another."""
    data = bytearray(known() + bytes(-len(known()) % 4096) + known()[IPIB:])
    data[0xC014:0xC01C] = (len(data) - len(known()[IPIB:])).to_bytes(8, "big")
    with pytest.raises(FormatError, match=f"hands over the component list at byte {IPIB}, the image's metadata"):
        verify_image(bytes(data), MACHINE)


@pytest.mark.parametrize("offset", [KERNEL_AT, KERNEL_AT + 0x1FFF, RAMDISK_AT + 77, CMDLINE_AT, STAGE3B_AT + 0xFFF])
@pytest.mark.parametrize("name", ["se-kat2", "se-kat3"])
def test_flipped_component_byte_is_refused(offset: int, name: str) -> None:
    assert refusal(flipped(offset, 0x80, name)) == (0x102, 0x1B)


def test_a_refused_image_extracts_nothing(tmp_path: Path) -> None:
    with pytest.raises(UvcRefusal):
        verify_image(flipped(STAGE3B_AT), MACHINE, extract=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UvcRefusal):
        verify_image(flipped(STAGE3B_AT), MACHINE, extract=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_extraction_replaces_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "ramdisk").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        verify_image(known(), MACHINE, extract=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ramdisk"]
    verify_image(known(), MACHINE, extract=tmp_path, overwrite=True)
    assert (tmp_path / "ramdisk").read_bytes() == RAMDISK
    with pytest.raises(OutputError, match="not a directory"):
        verify_image(known(), MACHINE, extract=tmp_path / "ramdisk")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"x", "not a Secure Execution image"),
        (b"\x7fELF" + bytes(100_000), "not a Secure Execution image"),
        (bytes(3_000_000), "not a Secure Execution image"),
    ],
)
def test_foreign_file_gets_one_clear_line(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        verify_image(data, MACHINE)


@pytest.mark.parametrize("size", [0x8000, 0xC010, 0x13000, 0x14005, 0x14100])
def test_image_cut_off_before_its_header_ends_is_refused(size: int) -> None:
    with pytest.raises((FormatError, UvcRefusal)):
        verify_image(known()[:size], MACHINE)


@pytest.mark.parametrize("size", [0x14000 + 720, 0x16000, 0x19FFF, IPIB, IPIB + 231])
def test_image_cut_off_behind_its_header_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="is cut off"):
        verify_image(known()[:size], MACHINE)


def test_bare_header_is_no_image() -> None:
    with pytest.raises(FormatError, match="give the whole image"):
        verify_image((VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes(), MACHINE)


def test_missing_file_and_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the image"):
        verify_image(tmp_path / "none", MACHINE)
    with pytest.raises(InputError, match="cannot read the image"):
        verify_image(tmp_path, MACHINE)
    with pytest.raises(InputError, match="not a pipe"):
        verify_image(io.BufferedReader(NoSeek()), MACHINE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a pipe"):
        verify_image(tmp_path / "pipe", MACHINE)  # nobody is at its other end


class NoSeek(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def build(*hosts: ec.EllipticCurvePrivateKey, flags: int = 0) -> bytes:
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), host_keys=[host.public_key() for host in hosts], flags=flags)
    return output.getvalue()


def test_backup_key_opens_only_with_its_flag() -> None:
    both = MachineKeys(HOST_KEYS[0], backup=OTHER)
    result = verify_image(build(OTHER, flags=PlainFlags.BACKUP_KEYS), both)
    assert result.backup_key
    assert refusal(build(OTHER), both) == (0x108, 5)
    assert refusal(build(HOST_KEYS[1], flags=PlainFlags.BACKUP_KEYS), both) == (0x108, 0x34)
    assert not verify_image(build(OTHER, HOST_KEYS[0], flags=PlainFlags.BACKUP_KEYS), both).backup_key


def test_unknown_flags_are_refused_with_their_code() -> None:
    assert refusal(build(HOST_KEYS[0], flags=1 << 40)) == (0x106, 0x30)
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), host_keys=[HOST_KEYS[0].public_key()], secret_flags=1)
    assert refusal(output.getvalue()) == (0x109, 0)


def test_image_inside_a_larger_file_verifies() -> None:
    verify_image(b"x" * 123_457 + known() + b"behind", MACHINE)


def test_image_without_metadata_is_found_by_its_boot_loader() -> None:
    data = bytearray(known())
    data[0xC000:0xC01C] = bytes(28)
    verify_image(bytes(data), MACHINE)


def test_result_shows_no_secret() -> None:
    result = verify_image(known("se-kat1"), MACHINE)
    assert result.accepted.image_key.reveal().hex() not in repr(result)
    assert repr(result.accepted.cck.reveal())[2:-1] not in repr(result)


@pytest.mark.parametrize("address", [0x10000, 0x11000])
def test_the_bootloader_has_two_entries(address: int) -> None:
    data = bytearray(known())
    data[4:8] = (0x80000000 | address).to_bytes(4, "big")
    assert verify_image(bytes(data), MACHINE)


@pytest.mark.parametrize("address", [0x10008, 0x10002, 0x11002, 0x11080])
def test_a_start_into_the_middle_of_the_bootloader_is_refused(address: int) -> None:
    data = bytearray(known())
    data[4:8] = (0x80000000 | address).to_bytes(4, "big")
    with pytest.raises(FormatError, match=f"leads to {address:#x}, into the middle of the bootloader"):
        verify_image(bytes(data), MACHINE)
