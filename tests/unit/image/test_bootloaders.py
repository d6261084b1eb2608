"""Which bootloaders an image gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from zseal.errors import InputError
from zseal.image.bootloaders import Bootloaders, FoundStage3a
from zseal.testguest import kernel

STAGE3A = b"a" * 100
STAGE3B = b"b" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stage3a.bin").write_bytes(STAGE3A)
    (tmp_path / "stage3b_reloc.bin").write_bytes(STAGE3B)
    return tmp_path


def test_directory_of_another_tool(folder: Path) -> None:
    assert Bootloaders.from_directory(folder) == Bootloaders(stage3a=STAGE3A, stage3b=STAGE3B)
    assert Bootloaders.from_directory(str(folder)).stage3a == STAGE3A


def test_relocatable_stage3b_is_preferred(folder: Path) -> None:
    (folder / "stage3b.bin").write_bytes(b"c" * 200)
    assert Bootloaders.from_directory(folder).stage3b == STAGE3B
    (folder / "stage3b_reloc.bin").unlink()
    assert Bootloaders.from_directory(folder).stage3b == b"c" * 200


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "stage3b_reloc.bin").unlink()
    with pytest.raises(InputError, match=r"stage3b_reloc\.bin: cannot read the bootloader: No such file"):
        Bootloaders.from_directory(folder)
    (folder / "stage3a.bin").unlink()
    with pytest.raises(InputError, match=r"stage3a\.bin: cannot read the bootloader: No such file"):
        Bootloaders.from_directory(folder)
    with pytest.raises(InputError, match="not a directory"):
        Bootloaders.from_directory(folder / "nowhere")


@pytest.mark.parametrize(("name", "size"), [("stage3a.bin", 24), ("stage3b_reloc.bin", 64)])
def test_blob_with_room_for_its_arguments_only(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"{name}: not a bootloader: {size} bytes"):
        Bootloaders.from_directory(folder)
    (folder / name).write_bytes(bytes(size + 1))
    Bootloaders.from_directory(folder)


def test_huge_file_is_refused_unread(folder: Path) -> None:
    with (folder / "stage3a.bin").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="larger than"):
        Bootloaders.from_directory(folder)


def test_directory_in_a_files_place(folder: Path) -> None:
    (folder / "stage3a.bin").unlink()
    (folder / "stage3a.bin").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        Bootloaders.from_directory(folder)


def test_blobs_given_directly_are_checked_too() -> None:
    with pytest.raises(InputError, match="stage3b: not a bootloader"):
        Bootloaders(stage3a=STAGE3A, stage3b=b"")


def test_ours_are_recognised_whatever_their_arguments() -> None:
    ours = Bootloaders.default().stage3a
    for same in (ours, ours[:-24] + b"x" * 24):
        assert FoundStage3a.identify(same, 0).owner == "zseal"
    for other in (b"x" + ours[1:], STAGE3A, b""):
        assert FoundStage3a.identify(other, 0).owner == "unknown"


def test_test_guest_looks_like_a_linux_kernel() -> None:
    image = kernel()
    assert image[:4] != b"\x7fELF"
    assert image[0x10008:0x1000E] == b"S390EP"
    assert int.from_bytes(image[0x10430:0x10438]) == 4096
    assert len(image) >= 0x10438
    assert image[0x10400:0x10430] == bytes(0x30)
