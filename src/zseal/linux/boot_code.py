"""Facts that a kernel's boot code shows: where it ends, what is code in it, which LPSWE leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from zseal.arch.instructions import UVC_OPCODE, instruction_length
from zseal.arch.psw import DAT, WAIT
from zseal.arch.storage import PAGE_SIZE, Storage

_LOOK_BACK = 64  # bytes
_COMPRESSED_PAGES = 4
_COMPRESSED_DISTINCT = 251  # byte values in a page: compressed pages have all 256, code at most some 240
_KERNEL_LIMIT = 64 << 20  # bytes, and the address where an unpacked kernel may begin at most
# Loads of an immediate into bits 0-31 of a register, by first byte and low half of the second: the whole word
# (IIHF, LLIHF: 6 bytes) or its upper halfword (IIHH, LLIHH: 4 bytes).
_WORD_LOADS = frozenset({(0xC0, 0x8), (0xC0, 0xE)})
_HALFWORD_LOADS = frozenset({(0xA5, 0x0), (0xA5, 0xC)})
# Instructions with which a program sets register 0 before an STFLE, which takes the size to store from it: by first
# byte, and low half of the second, second byte or last one.
_SETS_RR = frozenset((0x17, 0x18, 0x41, 0x58))  # XR, LR, LA, L
_SETS_RI = frozenset({(0xA7, 0x8), (0xA7, 0x9), (0xA5, 0xF), (0xC0, 0x1), (0xC0, 0xF)})  # LHI, LGHI, LLILL, LGFI, LLILF
_SETS_RRE = frozenset((0x04, 0x14, 0x16, 0x82))  # LGR, LGFR, LLGFR, XGR
_SETS_RXY = frozenset((0x04, 0x14, 0x16, 0x58, 0x71))  # LG, LGF, LLGF, LY, LAY


class SparseStorage(Storage, Protocol):
    """Absolute storage that knows which parts of it were ever written."""

    def used(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the (address, length) runs from ``start`` on that may contain anything but zeros."""


def begins_instruction(code: memoryview, offset: int) -> bool:
    """Whether an instruction, rather than the middle of one, is likely at the even ``offset`` of ``code``.

    Decoding code from any place soon falls into step with the real instructions. So most places before a real
    instruction lead to it, and few of those before bytes that only look like one.
    """
    ways = _ways(code, offset)
    return 2 * sum(ways.values()) > len(ways)


def _ways(code: memoryview, offset: int) -> dict[int, bool]:
    """Return for each even place before ``offset``, nearest first, whether decoding from there leads to it."""
    ways = {offset: True}
    for at in range(offset - 2, max(0, offset - _LOOK_BACK) - 1, -2):
        ways[at] = ways.get(at + instruction_length(code[at]), False)
    return ways


def _instructions_before(code: memoryview, offset: int) -> Iterator[int]:
    """Yield the places of the instructions before ``offset`` in their order, once decoding is in step."""
    ways = _ways(code, offset)
    at = min(place for place, leads in ways.items() if leads)
    while at < offset:
        yield at
        at += instruction_length(code[at])


def has_operand_length(code: memoryview, offset: int) -> bool:
    """Whether register 0 is set before the STFLE at ``offset``, as in code; data that looks like an STFLE does not set
    it.
    """
    return any(_sets_register_0(code, at) for at in _instructions_before(code, offset))


def _sets_register_0(code: memoryview, at: int) -> bool:
    first, second = code[at], code[at + 1]
    if first == 0xB9:
        return second in _SETS_RRE and code[at + 3] >> 4 == 0
    if second >> 4:
        return False
    return first in _SETS_RR or (first, second & 15) in _SETS_RI or (first == 0xE3 and code[at + 5] in _SETS_RXY)


def uvc_opcodes(code: memoryview) -> list[int]:
    """Return the even offsets of all UVC opcodes, including those with bits that must be zero."""
    halfwords = np.frombuffer(code, ">u2", count=len(code) // 2)
    return [int(index) * 2 for index in np.flatnonzero(halfwords[:-1] == int.from_bytes(UVC_OPCODE, "big"))]


def plain_length(memory: SparseStorage, start: int, limit: int) -> tuple[int, bool]:
    """Return how many bytes from ``start`` on are not compressed, ``limit`` at most, and whether packed ones follow.

    That is the boot code before a packed kernel. Storage that was never written ends it too.
    """
    begin, size = next(memory.used(start), (start, 0))
    pages = min(max(0, begin + size - start), limit) // PAGE_SIZE
    dense = 0
    for page in range(pages):
        with memory.view(start + page * PAGE_SIZE, PAGE_SIZE) as view:
            distinct = np.count_nonzero(np.bincount(np.frombuffer(view, np.uint8), minlength=256))
        dense = dense + 1 if distinct > _COMPRESSED_DISTINCT else 0
        if dense == _COMPRESSED_PAGES:
            return (page - _COMPRESSED_PAGES + 1) * PAGE_SIZE, True
    return pages * PAGE_SIZE, False


def unmapped_kernel(code: memoryview) -> tuple[int, int] | None:
    """Return where the packed kernel will begin with DAT off, and its length; None if the boot code turns DAT on.

    Kernels before 6.3 turn it on themselves. Their boot code has address, entry and size of the unpacked kernel in a
    structure (``struct vmlinux_info``), and both addresses are the same.
    """
    words = np.frombuffer(code, ">u8", count=len(code) // 8)
    address, entry, size, bss = (words[at : len(words) - 3 + at] for at in range(4))
    alike = (address == entry) & (address >= PAGE_SIZE) & (address % PAGE_SIZE == 0) & (address < _KERNEL_LIMIT)
    found = np.flatnonzero(alike & (size > PAGE_SIZE) & (size < _KERNEL_LIMIT) & (bss < _KERNEL_LIMIT))
    return (int(address[found[0]]), int(size[found[0]])) if len(found) == 1 else None


def _masks_loaded(code: memoryview, offset: int) -> Iterator[int]:
    """Yield the values that the instructions before ``offset`` load into the upper half of registers (64 bits)."""
    for at in _instructions_before(code, offset):
        key = code[at], code[at + 1] & 15
        if key in _WORD_LOADS:
            yield int.from_bytes(code[at + 2 : at + 6], "big") << 32
        elif key in _HALFWORD_LOADS:
            yield int.from_bytes(code[at + 2 : at + 4], "big") << 48


def kernel_starts(code: memoryview, offsets: Iterable[int]) -> list[int]:
    """Return those of the LPSWE ``offsets`` in a decompressor that may start the kernel proper.

    A PSW mask is built right before the instruction that loads it: one with DAT on starts the kernel, one with the wait
    bit on ends everything. A PSW in the first 4 KiB returns to what was interrupted, which is boot code again. If one
    certainly starts the kernel, the undecided ones are omitted: each costs time while the kernel is unpacked.
    """
    sure, possible = [], []
    for offset in offsets:
        masks = [mask for mask in _masks_loaded(code, offset) if mask & (DAT | WAIT)]
        if masks and masks[-1] & DAT and not masks[-1] & WAIT:
            sure.append(offset)
        elif not masks and code[offset + 2] >> 4:
            possible.append(offset)
    return sure or possible
