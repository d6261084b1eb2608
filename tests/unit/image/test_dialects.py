"""Images of other builders: the layout of genprotimg up to 2.35, other numbers and places of components."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.image.conftest import COMMAND_LINE, HOST_KEYS, fake_kernel
from zseal.crypto.digests import ImageDigests
from zseal.crypto.header import seal_header
from zseal.crypto.keyexchange import MachineKeys, make_slot, public_coordinates
from zseal.crypto.xts import XtsPages
from zseal.errors import FormatError, InputError
from zseal.formats.image_layout import GENPROTIMG_NUMBERS, ComponentKind, Dialect, Stage3aArguments, Stage3bArguments
from zseal.formats.ipib import Ipib, IpibComponent
from zseal.formats.se_header import PCKMO, FixedPart, SecretArea, SecretFlags, header_size
from zseal.image.keys import ImageKeys
from zseal.image.read import read_image
from zseal.image.verify import verify_image

MACHINE = MachineKeys(HOST_KEYS[0])
KERNEL, RAMDISK = fake_kernel(), b"ramdisk " * 1000
STAGE3A_SIZE, IPIB_AT, HEADER_AT, FIRST = 0x2BD8, 0x13000, 0x14000, 0x15000


@dataclasses.dataclass
class Builder:
    """Builds in genprotimg's layout, or with other numbers, gaps and a bootloader without arguments."""

    numbers: Sequence[int] = tuple(GENPROTIMG_NUMBERS.values())
    gap: int = 0
    loader_arguments: bool = True
    start: int = 0
    """Where the guest starts, counted from the last component."""

    def build(self) -> bytes:
        keys = ImageKeys.generate()
        xts, digests = XtsPages(keys.image_key), ImageDigests()
        image = bytearray(FIRST)
        listed: list[IpibComponent] = []
        contents = [KERNEL, COMMAND_LINE, RAMDISK]
        for number, content in zip(self.numbers, [*contents, b""], strict=True):
            address = len(image) + self.gap
            if not content:
                content = self._loader(listed, contents)
            padded = content.ljust(-(-len(content) // 4096) * 4096, b"\0")
            prefix = number << 48 | 0x123456789ABC
            stored = xts.encrypt_run(padded, prefix, 0)
            digests.update_run(stored, address, prefix, 0)
            listed.append(IpibComponent(tweak_prefix=prefix, address=address, size=len(padded)))
            image += bytes(self.gap) + stored
        values = digests.values()
        fixed = FixedPart(
            iv=keys.iv, nep=values.nep, pcf=PCKMO, pld=values.pld, ald=values.ald, tld=values.tld,
            customer_key=public_coordinates(keys.customer_key.public_key()),
        )  # fmt: skip
        area = SecretArea(
            cck=keys.cck, image_key=keys.image_key, psw_mask=0x180000000, psw_address=listed[-1].address + self.start,
            scf=SecretFlags(0),
        )  # fmt: skip
        slot = make_slot(keys.customer_key, HOST_KEYS[0].public_key(), keys.header_key)
        header = seal_header(fixed, (slot,), area, keys.header_key)
        ipib = Ipib.build(header_address=0, header_size=header.size, components=listed)
        ipib = dataclasses.replace(ipib, header=dataclasses.replace(ipib.header, length=4096, pv_version=0))
        at = 0x10000 + STAGE3A_SIZE - 24
        arguments = Stage3aArguments(header_offset=HEADER_AT - at, header_size=header.size, ipib_offset=IPIB_AT - at)
        for offset, data in {
            0: bytes.fromhex("0008000180011000"), 0x10000: b"\x07\x5a" * ((STAGE3A_SIZE - 24) // 2),
            at: arguments.pack(), IPIB_AT: ipib.pack(), HEADER_AT: header.pack(),
        }.items():  # fmt: skip
            image[offset : offset + len(data)] = data
        assert header.size == header_size(1)
        return bytes(image)

    def _loader(self, listed: list[IpibComponent], contents: list[bytes]) -> bytes:
        if not self.loader_arguments:
            return b"\x07\x5a" * 100
        arguments = Stage3bArguments(
            kernel_address=listed[0].address, kernel_size=len(contents[0]),
            cmdline_address=listed[1].address, cmdline_size=len(contents[1]),
            ramdisk_address=listed[2].address, ramdisk_size=len(contents[2]),
            psw_address=0x12345,
        )  # fmt: skip
        return b"\x07\x5a" * 2000 + arguments.pack()


def extracted(folder: Path) -> tuple[bytes, bytes, bytes]:
    kernel, ramdisk, parmfile = ((folder / name).read_bytes() for name in ("kernel", "ramdisk", "parmfile"))
    return kernel, ramdisk, parmfile


CONTENT = (KERNEL, RAMDISK, COMMAND_LINE.rstrip(b"\0"))


def test_image_of_genprotimg_is_read_and_extracted(tmp_path: Path) -> None:
    data = Builder().build()
    image = read_image(data)
    assert image.stage3a is not None
    assert (image.dialect, image.stage3a.owner, image.stage3a.size) == (Dialect.GENPROTIMG, "unknown", STAGE3A_SIZE)
    assert [part.kind for part in image.components] == [
        ComponentKind.KERNEL, ComponentKind.CMDLINE, ComponentKind.RAMDISK, ComponentKind.STAGE3B,
    ]  # fmt: skip
    assert (image.base, image.ipib_offset, image.header_offset) == (0, IPIB_AT, HEADER_AT)
    verify_image(data, MACHINE, extract=tmp_path)
    assert extracted(tmp_path) == CONTENT


def test_image_of_genprotimg_in_a_larger_file(tmp_path: Path) -> None:
    data = b"\xee" * 0x54321 + Builder().build()
    image = read_image(data)
    assert (image.base, image.dialect) == (0x54321, Dialect.GENPROTIMG)
    verify_image(data, MACHINE, extract=tmp_path)
    assert extracted(tmp_path) == CONTENT


def test_damaged_component_list_is_told_apart_from_a_missing_one() -> None:
    data = bytearray(Builder().build())
    data[IPIB_AT + 0x97] ^= 1
    with pytest.raises(FormatError, match="not page aligned"):
        verify_image(bytes(data), MACHINE)
    data[0x10000:HEADER_AT] = bytes(HEADER_AT - 0x10000)
    with pytest.raises(FormatError, match="no IPL parameter block"):
        verify_image(bytes(data), MACHINE)


def test_unknown_numbering_is_sorted_out_by_the_boot_loader(tmp_path: Path) -> None:
    data = Builder(numbers=(1000, 2000, 3000, 4000), gap=0x3000).build()
    assert read_image(data).dialect is None
    assert {part.kind for part in read_image(data).components} == {None}
    result = verify_image(data, MACHINE, extract=tmp_path)
    assert extracted(tmp_path) == CONTENT
    assert [part.original_size for part in result.components[:3]] == [len(KERNEL), len(COMMAND_LINE), len(RAMDISK)]


def test_other_boot_loader_leaves_the_padding(tmp_path: Path) -> None:
    result = verify_image(Builder(loader_arguments=False).build(), MACHINE, extract=tmp_path)
    assert [part.original_size for part in result.components] == [None] * 4
    assert extracted(tmp_path)[0] == KERNEL.ljust(result.components[0].size, b"\0")


def test_nothing_is_extracted_where_nothing_tells_the_kernel(tmp_path: Path) -> None:
    data = Builder(numbers=(1000, 2000, 3000, 4000), loader_arguments=False).build()
    verify_image(data, MACHINE)
    with pytest.raises(InputError, match="the kernel cannot be identified"):
        verify_image(data, MACHINE, extract=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [tuple(GENPROTIMG_NUMBERS.values()), (1000, 2000, 3000, 4000)])
@pytest.mark.parametrize(("start", "reason"), [(0x10000, "outside all components"), (0x81, "an odd address")])
def test_a_start_where_no_instruction_can_be_is_refused(
    numbers: tuple[int, ...], start: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=rf"start PSW in the header leads to 0x[0-9a-f]+, {reason}"):
        verify_image(Builder(numbers=numbers, start=start).build(), MACHINE, extract=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_start_in_the_middle_of_a_known_builders_program_is_told() -> None:
    for start, place in ((0x80, "byte 0x80 of the component stage3b"), (-0x1000, "of the component ramdisk")):
        (warning,) = verify_image(Builder(start=start).build(), MACHINE).warnings
        assert place in warning
    assert not verify_image(Builder().build(), MACHINE).warnings
    assert not verify_image(Builder(numbers=(1000, 2000, 3000, 4000), start=0x80).build(), MACHINE).warnings
