"""Dynamic address translation: page-table walks over absolute storage, as the CPU makes them.

Rules: z/Architecture Principles of Operation, chapter 3 ("Dynamic Address Translation", "Prefixing"), with the
enhanced-DAT facilities 1 and 2 (1 MiB and 2 GiB frames). Table origins are taken as absolute addresses, as QEMU does
(the architecture leaves real or absolute open); the result of a translation is real, and prefixing makes it absolute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import DAT, AddressSpace, Psw
from zseal.arch.storage import PAGE_SIZE, Storage
from zseal.errors import FormatError

PREFIX_AREA_SIZE = 0x2000
PREFIX_MASK = 0x7FFFE000
"""The bits of a prefix register: a multiple of 8 KiB below 2 GiB."""
ADDRESS_MASK = (1 << 64) - 1
TABLE_LIMIT = 1 << 16
"""The most translation tables that one walk reads: enough for 64 GiB in 4 KiB pages, and an end for circular tables."""

# Fields that the ASCE and the table entries share (bit 0 is the most significant of 64).
ORIGIN = ADDRESS_MASK & ~0xFFF
TYPE_SHIFT, LENGTH_MASK = 2, 3
# Fields of the ASCE only.
ASCE_PRIVATE_SPACE = 0x100
ASCE_REAL_SPACE = 0x20
# Table entries.
FRAME = 0x400  # format control: a region-third or segment entry that names a large frame
PROTECTED = 0x200
EXECUTION_PROTECTED = 0x100  # instruction-execution protection, in page entries and entries of large frames
INVALID = 0x20
COMMON_SEGMENT = 0x10
PAGE_TABLE_ORIGIN = ADDRESS_MASK & ~0x7FF
PAGE_INVALID = 0x400
PAGE_RESERVED = 0x800

_SEGMENT, _REGION_THIRD = 0, 1
_LEVEL_SHIFT = (20, 31, 42, 53)  # of the segment, region-third, -second and -first index
_LEVEL_CODE = (
    ProgramCode.SEGMENT_TRANSLATION,
    ProgramCode.REGION_THIRD_TRANSLATION,
    ProgramCode.REGION_SECOND_TRANSLATION,
    ProgramCode.REGION_FIRST_TRANSLATION,
)
_FRAME_MASK = (0xFFFFF, 0x7FFFFFFF)  # byte index inside a 1 MiB and a 2 GiB frame
_LOW_ADDRESS_PROTECTION = 1 << (63 - 35)  # in CR0
_EXECUTION_PROTECTION = 1 << (63 - 43)  # in CR0


class Registers(Protocol):
    """The registers that address translation uses; ``zseal.engine.interface.Cpu`` has them."""

    @property
    def psw(self) -> Psw:
        """The current PSW."""

    @property
    def prefix(self) -> int:
        """The prefix register."""

    def cr(self, number: int) -> int:
        """Return control register ``number``."""

    def ar(self, number: int) -> int:
        """Return access register ``number``."""


Translations = dict[int | None, tuple[dict[int, int], dict[int, int]]]
"""Pages already translated, by ASCE (None: real addresses): for fetches and for stores, page number to page address."""


def real_to_absolute(address: int, prefix: int) -> int:
    """Apply prefixing: real 0 to 0x1fff and the 8 KiB at ``prefix`` trade places. Applying it again undoes it."""
    area = address & ~(PREFIX_AREA_SIZE - 1)
    if area == 0:
        return address + prefix
    if area == prefix:
        return address - prefix
    return address


def _entry(storage: Storage, address: int) -> int:
    return int.from_bytes(storage.read(address, 8), "big")


def translate(
    storage: Storage, asce: int, virtual: int, *, write: bool = False, execute: bool = False, prefix: int = 0
) -> int:
    """Translate 64-bit ``virtual`` under the address-space-control element ``asce``; return the absolute address.

    Raises ProgramInterruption with the code the CPU would present: ASCE type, region-first, -second and -third,
    segment and page translation, translation specification, addressing (a table outside storage) and protection:
    for a store (``write``) DAT protection, for an instruction fetch (``execute``) instruction-execution protection.
    The resulting address is not checked against the storage's size.
    """
    if asce & ASCE_REAL_SPACE:
        return real_to_absolute(virtual, prefix)
    level = asce >> TYPE_SHIFT & 3
    if virtual >> _LEVEL_SHIFT[level] > 0x7FF:
        raise ProgramInterruption(ProgramCode.ASCE_TYPE, virtual)
    origin, first, last = asce & ORIGIN, 0, asce & LENGTH_MASK
    protected, executable = 0, True
    while True:
        index = virtual >> _LEVEL_SHIFT[level] & 0x7FF
        if not first <= index >> 9 <= last:
            raise ProgramInterruption(_LEVEL_CODE[level], virtual)
        entry = _entry(storage, origin + index * 8)
        if entry & INVALID:
            raise ProgramInterruption(_LEVEL_CODE[level], virtual)
        if entry >> TYPE_SHIFT & 3 != level:
            raise ProgramInterruption(ProgramCode.TRANSLATION_SPECIFICATION, virtual)
        protected |= entry & PROTECTED
        if level == _SEGMENT and entry & COMMON_SEGMENT and asce & ASCE_PRIVATE_SPACE:
            raise ProgramInterruption(ProgramCode.TRANSLATION_SPECIFICATION, virtual)
        if level <= _REGION_THIRD and entry & FRAME:
            inside = _FRAME_MASK[level]
            real = entry & ~inside & ADDRESS_MASK | virtual & inside
            executable = not entry & EXECUTION_PROTECTED
            break
        if level == _SEGMENT:
            page = _entry(storage, (entry & PAGE_TABLE_ORIGIN) + (virtual >> 12 & 0xFF) * 8)
            if page & PAGE_INVALID:
                raise ProgramInterruption(ProgramCode.PAGE_TRANSLATION, virtual)
            if page & PAGE_RESERVED:
                raise ProgramInterruption(ProgramCode.TRANSLATION_SPECIFICATION, virtual)
            protected |= page & PROTECTED
            real = page & ORIGIN | virtual & 0xFFF
            executable = not page & EXECUTION_PROTECTED
            break
        origin, first, last = entry & ORIGIN, entry >> 6 & 3, entry & LENGTH_MASK
        level -= 1
    if (write and protected) or (execute and not executable):
        raise ProgramInterruption(ProgramCode.PROTECTION, virtual)
    return real_to_absolute(real, prefix)


class _TableWalk:
    """One pass over all tables under an ASCE; yields mapped runs of real storage in order of virtual address."""

    def __init__(self, storage: Storage, *, start: int, end: int, executable: bool) -> None:
        self._storage = storage
        self._start, self._end = start, end
        self._executable = executable
        self._tables = 0

    def _table(self, origin: int, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Return the table's entries from ``first`` on, without those outside storage."""
        self._tables += 1
        if self._tables > TABLE_LIMIT:
            raise FormatError(
                f"the guest's address space has more than {TABLE_LIMIT} translation tables",
                hint="its page tables are damaged or circular",
            )
        begin = origin + first * 8
        size = min(count * 8, self._storage.size - begin)
        if size <= 0:
            return np.empty(0, np.uint64)
        return np.frombuffer(self._storage.read(begin, size), ">u8").astype(np.uint64)

    def runs(self, level: int, origin: int, first: int, last: int, base: int) -> Iterator[tuple[int, int, int]]:
        """Yield (virtual, real, length) for the quarters ``first`` to ``last`` of the table at ``origin``."""
        shift = _LEVEL_SHIFT[level]
        span = 1 << shift
        entries = self._table(origin, first * 512, (last - first + 1) * 512)
        # numpy selects the entries: a hostile guest can fill every table with entries to skip.
        usable = entries & np.uint64(INVALID | 3 << TYPE_SHIFT) == np.uint64(level << TYPE_SHIFT)
        start = base + first * 512 * span
        begin, end = max(0, (self._start - start) // span), max(0, -(-(self._end - start) // span))
        for index in (np.flatnonzero(usable[begin:end]) + begin).tolist():
            entry = int(entries[index])
            virtual = start + index * span
            if level <= _REGION_THIRD and entry & FRAME:
                if not (self._executable and entry & EXECUTION_PROTECTED):
                    yield virtual, entry & ~_FRAME_MASK[level] & ADDRESS_MASK, span
            elif level == _SEGMENT:
                yield from self._pages(entry & PAGE_TABLE_ORIGIN, virtual)
            else:
                yield from self.runs(level - 1, entry & ORIGIN, entry >> 6 & 3, entry & LENGTH_MASK, virtual)

    def _pages(self, origin: int, base: int) -> Iterator[tuple[int, int, int]]:
        entries = self._table(origin, 0, 256)
        reject = PAGE_INVALID | PAGE_RESERVED | (EXECUTION_PROTECTED if self._executable else 0)
        index = np.flatnonzero(entries & np.uint64(reject) == 0)
        if not index.size:
            return
        real = (entries[index] & np.uint64(ORIGIN)).astype(np.int64)
        breaks = np.flatnonzero((np.diff(index) != 1) | (np.diff(real) != PAGE_SIZE)) + 1
        begins = [0, *breaks.tolist()]
        ends = [*breaks.tolist(), index.size]
        for begin, end in zip(begins, ends, strict=True):
            yield base + int(index[begin]) * PAGE_SIZE, int(real[begin]) & ADDRESS_MASK, (end - begin) * PAGE_SIZE


def mapped_ranges(
    storage: Storage,
    asce: int,
    *,
    prefix: int = 0,
    start: int = 0,
    end: int = 1 << 64,
    executable_only: bool = False,
) -> Iterator[tuple[int, int, int]]:
    """Yield (virtual, absolute, length) of all storage mapped under ``asce``, merged and by ascending virtual address.

    Only storage between virtual ``start`` and ``end`` is included. ``executable_only`` omits what instruction-execution
    protection covers. Damaged entries are skipped; more than TABLE_LIMIT tables raise FormatError, so that a hostile
    guest cannot make this endless.
    """
    if asce & ASCE_REAL_SPACE:
        runs: Iterator[tuple[int, int, int]] = iter([(0, 0, storage.size)])
    else:
        walk = _TableWalk(storage, start=start, end=end, executable=executable_only)
        runs = walk.runs(asce >> TYPE_SHIFT & 3, asce & ORIGIN, 0, asce & LENGTH_MASK, 0)
    pending: tuple[int, int, int] | None = None
    for virtual, absolute, length in _absolute_runs(_clipped(runs, start, end), prefix):
        length = min(length, storage.size - absolute)
        if length <= 0:
            continue
        if pending and pending[0] + pending[2] == virtual and pending[1] + pending[2] == absolute:
            pending = (pending[0], pending[1], pending[2] + length)
            continue
        if pending:
            yield pending
        pending = (virtual, absolute, length)
    if pending:
        yield pending


def _clipped(runs: Iterator[tuple[int, int, int]], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    for virtual, real, length in runs:
        begin, stop = max(virtual, start), min(virtual + length, end)
        if begin < stop:
            yield begin, real + begin - virtual, stop - begin


def _absolute_runs(runs: Iterator[tuple[int, int, int]], prefix: int) -> Iterator[tuple[int, int, int]]:
    """Apply prefixing to runs of real storage, which splits those that cross a prefixed area."""
    edges = sorted({PREFIX_AREA_SIZE, prefix, prefix + PREFIX_AREA_SIZE}) if prefix else []
    for virtual, real, length in runs:
        cuts = [edge for edge in edges if real < edge < real + length]
        for begin, stop in zip([real, *cuts], [*cuts, real + length], strict=True):
            yield virtual + begin - real, real_to_absolute(begin, prefix), stop - begin


def fetch_absolute(cpu: Registers, storage: Storage, address: int) -> int:
    """Return the absolute address from which ``cpu`` fetches the instruction at logical ``address``.

    Instructions come from the home space in home-space mode and from the primary space otherwise. Raises
    ProgramInterruption; with PROTECTION if CR0 turns on instruction-execution protection and the page is not
    executable.
    """
    psw = cpu.psw
    if psw.mask & DAT:
        asce = cpu.cr(13 if psw.address_space is AddressSpace.HOME else 1)
        execute = bool(cpu.cr(0) & _EXECUTION_PROTECTION)
        absolute = translate(storage, asce, address, execute=execute, prefix=cpu.prefix)
    else:
        absolute = real_to_absolute(address, cpu.prefix)
    if absolute >= storage.size:
        raise ProgramInterruption(ProgramCode.ADDRESSING, address)
    return absolute


class CpuMemory:
    """Storage as an instruction of one stopped CPU sees it (``zseal.arch.storage.OperandMemory``).

    DAT off: addresses are real. DAT on: they belong to ``space``; HOME (CR13) is where a UVC's operands are. With
    ``space`` None they belong to the space that the PSW names for ordinary operands; in access-register mode that is
    the primary space for an access-list-entry token (ALET) of 0 and the secondary one for 1, taken from the access
    register ``base``. The object keeps translations as long as it lives, like a TLB: make a new one at each stop. A CPU
    that runs ahead without a stop lends its own in the attribute ``translations``.
    """

    def __init__(
        self, cpu: Registers, storage: Storage, *, space: AddressSpace | None = AddressSpace.HOME, base: int = 0
    ) -> None:
        self._storage = storage
        self._cpu = cpu
        self._prefix = cpu.prefix
        psw = cpu.psw
        self._space = psw.address_space if space is None else space
        self._asce = self._control_element(cpu, base) if psw.mask & DAT else None
        translations: Translations | None = getattr(cpu, "translations", None)
        known = translations.get(self._asce) if translations is not None else None
        if known is None:
            known = ({}, {})
            if translations is not None:
                translations[self._asce] = known
        self._fetched, self._stored = known

    def _control_element(self, cpu: Registers, base: int) -> int:
        space = self._space
        if space is AddressSpace.HOME:
            return cpu.cr(13)
        if space is AddressSpace.ACCESS_REGISTER:
            # Access register 0 is not used for translation: it stands for an ALET of 0.
            alet = cpu.ar(base) if base else 0
            if alet > 1:
                raise ProgramInterruption(ProgramCode.ALEN_TRANSLATION)
            return cpu.cr(7 if alet else 1)
        return cpu.cr(7 if space is AddressSpace.SECONDARY else 1)

    @property
    def designation(self) -> int | None:
        """The address-space-control element in use; None with DAT off."""
        return self._asce

    def absolute(self, address: int, *, write: bool = False) -> int:
        """Return the absolute address of the byte at logical ``address``; raises ProgramInterruption."""
        if write and address & ~0x11FF == 0 and self.low_addresses_protected():
            raise self._interruption(ProgramCode.PROTECTION, address, valid=False)
        known = self._stored if write else self._fetched
        page = known.get(address >> 12)
        if page is None:
            page = known[address >> 12] = self.page(address, write=write)
        return page | address & 0xFFF

    def low_addresses_protected(self) -> bool:
        """Whether stores to 0-511 and 4096-4607 are refused; a private space is exempt."""
        private = self._asce is not None and self._asce & ASCE_PRIVATE_SPACE
        return bool(self._cpu.cr(0) & _LOW_ADDRESS_PROTECTION) and not private

    def page(self, address: int, *, write: bool = False) -> int:
        """Return the absolute address of the page of logical ``address``, without low-address protection."""
        if self._asce is None:
            page = real_to_absolute(address & ORIGIN, self._prefix)
        else:
            try:
                page = translate(self._storage, self._asce, address & ORIGIN, write=write, prefix=self._prefix)
            except ProgramInterruption as error:
                raise self._interruption(error.code, address, valid=error.code is ProgramCode.PROTECTION) from None
        if page >= self._storage.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return page

    def _interruption(self, code: ProgramCode, address: int, *, valid: bool) -> ProgramInterruption:
        # Translation-exception identification: page address, bit 61 (for protection: this address and DAT), space.
        teid = address & ORIGIN | (4 if valid else 0) | int(self._space)
        return ProgramInterruption(code, address, teid=teid if self._asce is not None else None)

    def _pieces(self, address: int, length: int, write: bool) -> list[tuple[int, int]]:
        """Absolute (address, length) of every piece inside one page; all are translated before any is used."""
        if length < 0:
            raise ValueError(f"a length cannot be negative: {length}")
        if (address & 0xFFF) + length <= PAGE_SIZE and address <= ADDRESS_MASK and length:
            return [(self.absolute(address, write=write), length)]
        pieces = []
        while length:
            address &= ADDRESS_MASK
            step = min(length, PAGE_SIZE - (address & 0xFFF))
            pieces.append((self.absolute(address, write=write), step))
            address += step
            length -= step
        return pieces

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes at logical ``address``; raises ProgramInterruption."""
        # The first two lines are a shortcut for ultravisor calls, which come here most of all.
        if 0 < length <= PAGE_SIZE - (address & 0xFFF) and (page := self._fetched.get(address >> 12)) is not None:
            return self._storage.read(page | address & 0xFFF, length)
        return b"".join(self._storage.read(at, size) for at, size in self._pieces(address, length, False))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at logical ``address``, all or nothing; raises ProgramInterruption."""
        pieces = self._pieces(address, len(data), True)
        if len(pieces) == 1:
            self._storage.write(pieces[0][0], data)
            return
        done = 0
        view = memoryview(data).cast("B")
        for at, size in pieces:
            self._storage.write(at, view[done : done + size])
            done += size

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access to all ``length`` bytes would raise."""
        known = self._stored if write else self._fetched
        low = write and address < 2 * PAGE_SIZE  # where low-address protection applies
        if low or not 0 < length <= PAGE_SIZE - (address & 0xFFF) or address >> 12 not in known:
            self._pieces(address, length, write)
