"""What boot code tells of itself, on code laid out by hand."""

from __future__ import annotations

import pytest

from zseal.engine.qemu.bootcode import kernel_starts

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
