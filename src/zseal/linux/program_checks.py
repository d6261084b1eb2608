"""The kernel's table of program-check handlers, and the registers that it saves when it calls one.

Linux calls program-check handlers from ``pgm_check_table``, one pointer for each of 128 interruption codes. The table
is found by its shape, which kernels 5.10 to 7.x share.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from zseal.arch.storage import Storage

PT_REGS_SIZE = 152
PT_REGS_PSW, PT_REGS_GR = 8, 24
"""Size and offsets of ``struct user_pt_regs`` (uapi/asm/ptrace.h): an argument word, the PSW, general registers."""
PT_REGS_POINTER = 2
"""The general register with a handler's first argument, the address of ``struct pt_regs``."""
RETURN_ADDRESS = 14
"""The general register with a handler's return address."""
_ENTRIES = 128
_OPERATION = 1
# Interruption codes that share a handler with each other.
_ALIKE = ((0x08, 0x0A), (0x09, 0x0B), (0x10, 0x11), (0x10, 0x38), (0x10, 0x39), (0x10, 0x3A), (0x10, 0x3B))
_UNASSIGNED = range(0x41, _ENTRIES)
_UNASSIGNED_LEAST = 48  # of 63; the rest may have handlers (0x50, 0x60…)


def find_handler(storage: Storage, ranges: Iterable[tuple[int, int, int]]) -> int | None:
    """Return the virtual address of the operation-exception handler of the Linux kernel mapped at ``ranges``.

    ``ranges`` are (virtual, absolute, length). None if there is no such table, or more than one that differ.
    """
    mapped = list(ranges)
    low = min((virtual for virtual, _, _ in mapped), default=0)
    high = max((virtual + length for virtual, _, length in mapped), default=0)
    handlers = set()
    for _, absolute, length in mapped:
        with storage.view(absolute & ~7, length & ~7) as view:
            handlers |= set(_handlers(np.frombuffer(view, np.uint64), low, high))
    return handlers.pop() if len(handlers) == 1 else None


def _handlers(words: npt.NDArray[np.uint64], low: int, high: int) -> list[int]:
    """Return the operation-exception entries of all tables in ``words``, which are big-endian."""
    count = len(words) - _ENTRIES
    if count <= 0:
        return []
    # Comparing for equality needs no byte order, and leaves little to convert.
    alike = np.ones(count, bool)
    for first, second in _ALIKE[:3]:
        alike &= words[first : first + count] == words[second : second + count]
    alike &= words[:count] != words[_OPERATION : _OPERATION + count]
    alike &= words[0x08 : 0x08 + count] != words[0x09 : 0x09 + count]
    found = []
    for at in np.flatnonzero(alike).tolist():
        table = words[at : at + _ENTRIES].byteswap() if sys.byteorder == "little" else words[at : at + _ENTRIES]
        default = table[0]
        unassigned = int(np.count_nonzero(table[list(_UNASSIGNED)] == default))
        inside = bool(((table >= low) & (table < high)).all())
        distinct = table[_OPERATION] not in np.delete(table, _OPERATION) and table[0x10] != default
        same = all(table[first] == table[second] for first, second in _ALIKE)
        if inside and distinct and same and unassigned >= _UNASSIGNED_LEAST:
            found.append(int(table[_OPERATION]))
    return found
