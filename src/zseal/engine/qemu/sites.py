"""Where the instructions lie that firmware completes: found by looking at the guest's code, never by fixed addresses.

The guest goes through four stages, and each has its own set of sites::

    IMAGE         stage3a, unprotected: STFLE and DIAG 308 in the plain text at the image's entry
    BOOTLOADER    stage3b, protected: wait for the kernel's entry
    DECOMPRESSOR  the kernel's boot code, DAT off: STFLE, UVC, DIAG 308 and the LPSWE that leaves it
    KERNEL        the kernel proper: virtual addresses of UVC and DIAG 308, and its own first STFLE

Byte patterns occur in data as well, so a site is only a place to look at; but every page with a breakpoint runs slower
in QEMU, so few are set and none is left behind.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

import numpy as np

from zseal.arch.dat import mapped_ranges
from zseal.arch.instructions import Pattern, find_patterns, instruction_length
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.interface import TrapKind
from zseal.engine.memory import SharedMemory

KERNEL_START = 0x10000
"""Where a Linux kernel begins, and so where bootloaders put it (arch/s390/boot/head.S)."""
PLAIN_TEXT_LIMIT = 0x40000
"""Bytes from the image's entry on that are searched: stage3a is some 10 KiB, what follows is encrypted."""
KERNEL_WINDOW = 48 << 20
"""Bytes on each side of the kernel's first instruction that are searched, as far as they are mapped."""

_BOOT_PATTERNS = (Pattern.STFLE, Pattern.UVC, Pattern.LPSWE, Pattern.DIAG_308)
_KERNEL_PATTERNS = (Pattern.STFLE, Pattern.UVC, Pattern.DIAG_308)
_LOOK_BACK = 64  # bytes
_UVC_OPCODE = 0xB9A4
_EVERY_UVC = 1 << 20  # bytes of code; in more, two bytes alone are found in too many places by chance
_COMPRESSED_PAGES = 4
_COMPRESSED_DISTINCT = 251  # byte values in a page: compressed pages have all 256, code at most some 240


def _begins_instruction(code: memoryview, offset: int) -> bool:
    """Whether an instruction, rather than the middle of one, is likely to lie at even ``offset`` of ``code``.

    Code that is decoded from anywhere soon falls into step with the instructions that are meant: so most of the places
    in front of a real instruction lead to it, and few of those in front of bytes that only look like one.
    """
    start = max(0, offset - _LOOK_BACK)
    leads_there = {offset: True}
    for at in range(offset - 2, start - 1, -2):
        leads_there[at] = leads_there.get(at + instruction_length(code[at]), False)
    return 2 * sum(leads_there.values()) > len(leads_there)


def _uvc_opcodes(code: memoryview) -> list[int]:
    """Return the even offsets of all UVC opcodes, those included that have bits on which must be zero."""
    halfwords = np.frombuffer(code, ">u2", count=len(code) // 2)
    return [int(index) * 2 for index in np.flatnonzero(halfwords[:-1] == _UVC_OPCODE)]


class Stage(enum.Enum):
    """Which code the guest runs, as far as sites are concerned."""

    IMAGE = "image"
    BOOTLOADER = "bootloader"
    DECOMPRESSOR = "decompressor"
    KERNEL = "kernel"


class Sites:
    """The places to stop at in the current stage, by address: real with DAT off, virtual in the kernel proper."""

    def __init__(self, memory: SharedMemory, entry: int) -> None:
        self._memory = memory
        self._entry = entry
        self._found: dict[int, TrapKind] = {}
        self.stage = Stage.IMAGE
        self.image()

    def __iter__(self) -> Iterator[int]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def kind(self, address: int) -> TrapKind | None:
        """Return what is expected at ``address``; None where nothing is."""
        return self._found.get(address)

    def drop(self, address: int) -> None:
        """Forget the site at ``address``."""
        self._found.pop(address, None)

    def drop_kind(self, kind: TrapKind) -> None:
        """Forget all sites of ``kind``."""
        self._found = {address: known for address, known in self._found.items() if known is not kind}

    def _replace(self, stage: Stage, found: Iterable[tuple[int, TrapKind]]) -> None:
        self.stage = stage
        self._found = dict(found)
        # With DAT off nothing but the image (after a reset) and the kernel ever begins here.
        self._found[KERNEL_START] = TrapKind.IMAGE_ENTRY
        if stage is Stage.IMAGE:
            self._found[self._entry] = TrapKind.IMAGE_ENTRY

    def image(self) -> None:
        """The machine was reset: the image is in storage again, or will be when its entry is reached."""
        self._replace(Stage.IMAGE, ())

    def image_entered(self, address: int) -> None:
        """The image begins at ``address``: search its plain text."""
        start = min(address, KERNEL_START)
        self._replace(Stage.IMAGE, self._search(start, PLAIN_TEXT_LIMIT, (Pattern.STFLE, Pattern.DIAG_308)))
        self.drop(address)

    def protected(self) -> None:
        """Protected execution begins: nothing of the plain text counts any longer."""
        self._replace(Stage.BOOTLOADER, ())

    def kernel_entered(self, address: int) -> None:
        """The kernel's boot code begins at ``address``: search up to its compressed part."""
        length = self._text_length(address)
        self._replace(Stage.DECOMPRESSOR, self._search(address, length, _BOOT_PATTERNS))
        self.drop(address)

    def kernel_proper(self, asce: int, address: int) -> None:
        """The kernel proper begins at virtual ``address`` under ``asce``: search what is mapped around it."""
        found: list[tuple[int, TrapKind]] = []
        start = max(0, address - KERNEL_WINDOW) & ~(PAGE_SIZE - 1)
        end = min(1 << 64, address + KERNEL_WINDOW)
        # Execution protection is in the tables before it is switched on, and text not exempt yet: it says nothing here.
        for virtual, absolute, length in mapped_ranges(self._memory, asce, start=start, end=end):
            shift = virtual - absolute
            found += [(at + shift, kind) for at, kind in self._search(absolute, length, _KERNEL_PATTERNS)]
        self._replace(Stage.KERNEL, found)

    def _search(self, start: int, length: int, patterns: Iterable[Pattern]) -> list[tuple[int, TrapKind]]:
        """Return (absolute address, kind) of all matches; storage that was never written is passed over."""
        found: list[tuple[int, TrapKind]] = []
        patterns = tuple(patterns)
        end = min(start + length, self._memory.size)
        for begin, size in self._memory.used(start):
            if begin >= end:
                break
            view = self._memory.view(begin, min(begin + size, end) - begin)
            hits = find_patterns(view, patterns)
            if Pattern.UVC in patterns and len(view) <= _EVERY_UVC:
                hits += [(offset, Pattern.UVC) for offset in _uvc_opcodes(view)]
            found += [
                (begin + offset, TrapKind(kind.value)) for offset, kind in hits if _begins_instruction(view, offset)
            ]
            view.release()
        return found

    def _text_length(self, start: int) -> int:
        """Return how many bytes from ``start`` on are not compressed: the boot code in front of the packed kernel."""
        # Storage is fresh when protected execution begins: what was never written ends the kernel.
        begin, size = next(iter(self._memory.used(start)), (start, 0))
        pages = min(max(0, begin + size - start), KERNEL_WINDOW) // PAGE_SIZE
        dense = 0
        for page in range(pages):
            view = self._memory.view(start + page * PAGE_SIZE, PAGE_SIZE)
            distinct = np.count_nonzero(np.bincount(np.frombuffer(view, np.uint8), minlength=256))
            view.release()
            dense = dense + 1 if distinct > _COMPRESSED_DISTINCT else 0
            if dense == _COMPRESSED_PAGES:
                return (page - _COMPRESSED_PAGES + 1) * PAGE_SIZE
        return pages * PAGE_SIZE
