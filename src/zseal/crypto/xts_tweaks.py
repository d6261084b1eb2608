"""The block tweaks of XTS for many pages together: first tweak times x**0 … x**255 in GF(2**128).

A tweak is a polynomial over GF(2): bit n of its little-endian number is the coefficient of x**n, and
x**128 = x**7 + x**2 + x + 1 (0x87). Block 8k + i of a half page (128 blocks) is ``t = first * x**i`` times x**8k, that
is, t moved up by k bytes, where the k bytes leaving the top come back at the bottom times 0x87. Such a product reaches
7 bits into the next byte. So with

    low(v), high(v)   = the two bytes of v * 0x87
    folded[n]         = low(t[n]) ^ high(t[n - 1])
    joined            = folded[0..15], t[0] ^ high(t[15]), t[1..15]     (32 bytes)

the result is ``joined[16 - k : 32 - k]``, a plain copy, except that its first byte is low(t[16 - k]) alone: the byte
below did not leave the top. The second half page is the same from ``first * x**128``. Only the 16 values t of a page
are computed with shifts, all pages side by side, which is what numpy does fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

BLOCKS = 256
_HALVES, _BYTES, _BITS = 2, 16, 8


def _u64(value: int) -> np.uint64:
    return np.uint64(value)


def _each_byte(value: int) -> np.uint64:
    return np.uint64(value * 0x0101010101010101)


def _times_x(low: Words, high: Words, power: int) -> tuple[Words, Words]:
    """Multiply polynomials, given as low and high words, by x**power; ``power`` is 1 to 57."""
    bits, rest = _u64(power), _u64(64 - power)
    carry = high >> rest
    return low << bits ^ _times_87(carry), high << bits | low >> rest


def _times_87(word: Words) -> Words:
    product: Words = word ^ word << _u64(1) ^ word << _u64(2) ^ word << _u64(7)
    return product


def _bases(first: Words) -> tuple[Words, Words]:
    """Return low and high words, shape (2, 8, pages), of ``first`` times x**(128 h + i)."""
    pages = len(first)
    low, high = np.empty((_HALVES, _BITS, pages), np.uint64), np.empty((_HALVES, _BITS, pages), np.uint64)
    low[0, 0], high[0, 0] = first[:, 0], first[:, 1]
    for step in (1, 2, 4):
        low[0, step : 2 * step], high[0, step : 2 * step] = _times_x(low[0, :step], high[0, :step], step)
    # x**128 is 0x87, so this is the sum of four shifted copies; the bits that leave their tops are folded once more
    below, above = low[0], high[0]
    carry = above >> _u64(63) ^ above >> _u64(62) ^ above >> _u64(57)
    low[1] = _times_87(below) ^ _times_87(carry)
    high[1] = _times_87(above) ^ below >> _u64(63) ^ below >> _u64(62) ^ below >> _u64(57)
    return low, high


def _fold_bytes(words: Words) -> tuple[Words, Words]:
    """Return the low and the high bytes of every byte times 0x87."""
    low = (
        words
        ^ words << _u64(1) & _each_byte(0xFE)
        ^ words << _u64(2) & _each_byte(0xFC)
        ^ words << _u64(7) & _each_byte(0x80)
    )
    high = words >> _u64(7) & _each_byte(1) ^ words >> _u64(6) & _each_byte(3) ^ words >> _u64(1) & _each_byte(0x7F)
    return low, high


def _by_page(words: Words) -> Words:
    """Turn (halves, bits, pages) into (pages, halves, bits)."""
    return words.transpose(2, 0, 1)


class BlockTweaks:
    """The block tweaks of pages: prepared for many pages together, written for as many as fit the processor's cache.

    ``first`` has the shape (pages, 2): the encrypted page tweaks as little-endian words, low word first.
    """

    def __init__(self, first: Words) -> None:
        low, high = _bases(first)
        low_below, high_below = _fold_bytes(low)
        low_above, high_above = _fold_bytes(high)
        shape = (len(first), _HALVES, _BITS)
        self._joined = joined = np.empty((*shape, 4), "<u8")
        joined[..., 0] = _by_page(low_below ^ high_below << _u64(8))
        joined[..., 1] = _by_page(low_above ^ high_above << _u64(8) ^ high_below >> _u64(56))
        joined[..., 2] = _by_page(low ^ high_above >> _u64(56))
        joined[..., 3] = _by_page(high)
        self._lowest = np.empty((*shape, 2), "<u8")
        self._lowest[..., 0], self._lowest[..., 1] = _by_page(low_below), _by_page(low_above)
        self._low = np.ascontiguousarray(_by_page(low))

    def fill(self, start: int, target: Words) -> None:
        """Write those of the pages from ``start`` on into ``target``.

        That is contiguous and has the shape (pages, 256, 2): little-endian words, low word first.
        """
        pages = len(target)
        run = slice(start, start + pages)
        blocks = target.reshape(pages, _HALVES, _BYTES, _BITS, 2)
        # 16-byte elements: complex128 is only the widest type numpy copies in one move
        source = np.ndarray(
            (pages, _HALVES, _BYTES, _BITS), "c16", self._joined[run].data, 16, (2 * 8 * 32, 8 * 32, -1, 32)
        )
        np.copyto(blocks.view("c16")[..., 0], source)
        blocks.view(np.uint8)[:, :, 1:, :, 0] = self._lowest[run].view(np.uint8)[..., :0:-1].swapaxes(2, 3)
        blocks[:, :, 0, :, 0] = self._low[run]
