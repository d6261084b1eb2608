"""What boot code tells of itself, on code laid out by hand."""

from __future__ import annotations

import struct

import pytest

from zseal.linux.boot_code import has_operand_length, kernel_starts, unmapped_kernel

NOISE = bytes.fromhex("e32080000024a7110fff07fee310f0a8002418efb9040021") * 3
LPSWE = bytes.fromhex("b2b2f0d0")
KERNEL = bytes.fromhex("c03e0400c001a53a8000e330f0d00024c44800014123e340f0d80024")
"""Linux 6.12: llihf %r3,0x0400c001; oilh; stg; lgrl; stg."""
WAIT = bytes.fromhex("c01e00020001e3b0f0b00024a51a8000e310f0a80024")
"""Linux 7.2: llihf %r1,0x00020001; stg; oilh; stg."""
UNDECIDED = bytes.fromhex("e3b0f0a80024c010ffffffd0e310f0b00024")


def starts(*parts: bytes) -> list[int]:
    """Join parts, each in front of an LPSWE (or being one of 4 bytes); return the numbers of those kept."""
    code, offsets = bytearray(), []
    for part in parts:
        code += NOISE + part
        if part[:2] != b"\xb2\xb2":
            code += LPSWE
        offsets.append(len(code) - 4)
    kept = kernel_starts(memoryview(bytes(code + NOISE)), offsets)
    return [offsets.index(offset) for offset in kept]


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ([WAIT, KERNEL, UNDECIDED], [1]),
        ([WAIT, UNDECIDED, WAIT], [1]),
        ([WAIT, bytes.fromhex("b2b22000"), UNDECIDED], [1, 2]),
        ([bytes.fromhex("b2b20290"), UNDECIDED], [1]),  # back from an interruption
        ([WAIT], []),
        ([KERNEL, KERNEL], [0, 1]),
        ([KERNEL + WAIT], []),  # what was loaded last counts
        ([bytes.fromhex("a50c0404") + UNDECIDED], [0]),  # llihh
        ([bytes.fromhex("a50c0002") + UNDECIDED], []),
        ([bytes.fromhex("c010") + KERNEL[:4] + UNDECIDED, KERNEL], [1]),  # larl whose offset looks like a load
    ],
)
def test_the_psw_in_front_of_an_lpswe_tells_what_it_is_for(parts: list[bytes], kept: list[int]) -> None:
    assert starts(*parts) == kept


@pytest.mark.parametrize(
    ("front", "code"),
    [
        ("b9040004", True),  # lgr %r0,%r4
        ("a7090003" + "b9040025", True),  # lghi %r0,3; lgr %r2,%r5
        ("e30010080004", True),  # lg %r0,8(%r1)
        ("1700", True),  # xr %r0,%r0
        ("b9040040", False),  # lgr %r4,%r0
        ("a7190003", False),  # lghi %r1,3
    ],
)
def test_an_stfle_has_register_0_set_in_front_of_it(front: str, code: bool) -> None:
    text = bytes.fromhex("a7110fff") * 20 + bytes.fromhex(front)
    assert has_operand_length(memoryview(text + bytes.fromhex("b2b0f0a0") + NOISE), len(text)) is code


def test_tables_of_numbers_are_no_stfle() -> None:
    # from Linux 6.12: entries of eight bytes each, in the kernel's data
    table = bytes.fromhex("b2920000001c0001b29c0000001d0001b2a60000001e0001b2b00000001f0001b2ba0000")
    assert not has_operand_length(memoryview(table * 4), table.index(bytes.fromhex("b2b0")))


def told(*words: int) -> tuple[int, int] | None:
    """What is made of boot code that ends in ``words``, in front of something else."""
    return unmapped_kernel(memoryview(NOISE * 8 + struct.pack(f">{len(words)}Q", *words) + NOISE))


def test_kernel_that_begins_with_dat_off_is_told_by_its_boot_code() -> None:
    assert told(0x100000, 0x100000, 0x118E000, 0xAD000, 0xF5E000) == (0x100000, 0x118E000)


@pytest.mark.parametrize(
    "words",
    [
        (0x3FFE0100000, 0x3FFE0100000, 0x118E000, 0xAD000),  # a virtual address
        (0x100000, 0x100120, 0x118E000, 0xAD000),
        (0x100008, 0x100008, 0x118E000, 0xAD000),
        (0, 0, 0x118E000, 0xAD000),
        (0x100000, 0x100000, 0, 0xAD000),
        (0x100000, 0x100000, 0x118E000, 1 << 40),
        (0x100000, 0x100000, 0x118E000, 0xAD000, 0x200000, 0x200000, 0x118E000, 0xAD000),  # which?
        (),
    ],
)
def test_other_numbers_tell_of_no_such_kernel(words: tuple[int, ...]) -> None:
    assert told(*words) is None
