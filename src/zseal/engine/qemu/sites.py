"""Finds the instructions that firmware completes, by searching the guest's code, never at fixed addresses.

The guest goes through four stages, and each has its own set of sites::

    IMAGE         stage3a, unprotected: STFLE and DIAG 308 in the plain text at the image's entry
    BOOTLOADER    stage3b, protected: wait for the kernel's entry
    DECOMPRESSOR  the kernel's boot code, DAT off: STFLE, UVC, DIAG 308 and the LPSWE that leaves it; before Linux 6.3
                  that is one of the kernel itself, which is entered with DAT off
    KERNEL        the kernel proper: virtual addresses of UVC and DIAG 308, and its own first STFLE

Byte patterns occur in data as well, so a site is only a candidate. Each breakpoint makes all code a little slower in
QEMU, and that of its own page much slower, so zseal sets few and removes all of them. If a plugin in QEMU sees
ultravisor calls and the boot code's LPSWEs, they need none (``Sites.calls``, ``Sites.loads``). If it does not see
calls, one breakpoint is on a Linux kernel's handler of operation exceptions, where every UVC without a breakpoint ends.
The place of a UVC that turns up there is watched as long as calls come. From its first call until the first user
program a kernel executes only UVCs in its image, so these are watched meanwhile: the kernel tries other instructions
that end in the same handler, and a stop late in a boot is expensive.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from zseal.arch.dat import mapped_ranges
from zseal.arch.instructions import Pattern, find_patterns
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.interface import TrapKind
from zseal.engine.memory import SharedMemory
from zseal.linux import kernel_file
from zseal.linux.boot_code import (
    begins_instruction,
    has_operand_length,
    kernel_starts,
    plain_length,
    unmapped_kernel,
    uvc_opcodes,
)
from zseal.linux.program_checks import find_handler

PLAIN_TEXT_LIMIT = 0x40000
"""Bytes from the image's entry on to search: stage3a is some 10 KiB, and the rest is encrypted."""
KERNEL_WINDOW = 48 << 20
"""Bytes on each side of the kernel's first instruction to search, as far as they are mapped."""

_BOOT_PATTERNS = (Pattern.STFLE, Pattern.UVC, Pattern.LPSWE, Pattern.DIAG_308)
_BY_EXCEPTION = (TrapKind.UVC, TrapKind.DIAG_308)  # the second is then not seen: Sites.resets_unseen
_KERNEL_PATTERNS = (Pattern.STFLE, Pattern.UVC, Pattern.DIAG_308)
_SMALL = 1 << 20  # bytes of code; in more code, a few bytes occur by chance in too many places

_RAMDISK_FIELD = 0x408  # Linux/s390 kernel parameter area: the place of the ramdisk, which is packed but not a kernel


class Stage(enum.Enum):
    """The code that the guest runs, as far as it matters for sites."""

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
        self._packed = False
        self._unmapped: tuple[int, int] | None = None
        self.exception_handler: int | None = None
        """Virtual address of the kernel's handler of operation exceptions, if it was found."""
        self.user_entry: int | None = None
        """Virtual address where the kernel takes supervisor calls, while zseal watches for the first one."""
        self._kernel_calls: frozenset[int] = frozenset()
        self.stage = Stage.IMAGE
        self.calls = True
        """Whether to stop at UVCs, and at the entry of a kernel that follows a running one."""
        self.loads = True
        """Whether to stop at an LPSWE that may start the kernel proper."""
        self.notifications = False
        """Whether to stop at DIAGNOSE 0x500 as well, which notifies a device."""
        self.image()

    def __iter__(self) -> Iterator[int]:
        for address, kind in self._found.items():
            if self.loads or kind is not TrapKind.LPSWE:
                yield address
        if self.unmapped_entry is not None:
            yield self.unmapped_entry
        if self.user_entry is not None:
            yield self.user_entry
        elif self.exception_handler is not None:
            yield self.exception_handler

    @property
    def unmapped_entry(self) -> int | None:
        """Real address at which the kernel that the boot code unpacks will begin, if DAT is then off."""
        return None if self._unmapped is None else self._unmapped[0]

    def kind(self, address: int) -> TrapKind | None:
        """Return the kind of site at ``address``; None if there is none."""
        return self._found.get(address)

    def may_start_kernel(self, address: int) -> bool:
        """Whether the instruction at ``address`` may start the kernel proper. Any thread may ask."""
        return self.stage is Stage.DECOMPRESSOR and self.kind(address) is TrapKind.LPSWE

    def drop(self, address: int) -> None:
        """Forget the site at ``address``."""
        self._found.pop(address, None)

    def drop_kind(self, kind: TrapKind) -> None:
        """Forget all sites of ``kind``."""
        self._found = {address: known for address, known in self._found.items() if known is not kind}

    def _replace(self, stage: Stage, found: Iterable[tuple[int, TrapKind]]) -> None:
        self.stage = stage
        self.exception_handler = self.user_entry = self._unmapped = None
        self._found = dict(found)
        if self.calls or stage is not Stage.KERNEL:
            # With DAT off, only the image (after a reset) and the kernel begin here.
            self._found[kernel_file.ENTRY] = TrapKind.IMAGE_ENTRY
        if stage is Stage.IMAGE:
            self._found[self._entry] = TrapKind.IMAGE_ENTRY

    def _wanted(self, patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        wanted = patterns if self.calls else tuple(each for each in patterns if each is not Pattern.UVC)
        return (*wanted, Pattern.DIAG_500) if self.notifications else wanted

    def image(self) -> None:
        """Note that the machine was reset: the image is in storage again, or will be when its entry is reached."""
        self._replace(Stage.IMAGE, ())

    def image_entered(self, address: int) -> None:
        """Search the plain text of the image, which begins at ``address``."""
        start = min(address, kernel_file.ENTRY)
        self._replace(Stage.IMAGE, self._search([(start, start, PLAIN_TEXT_LIMIT)], (Pattern.STFLE, Pattern.DIAG_308)))
        self.drop(address)

    def protected(self) -> None:
        """Drop the sites of the plain text: protected execution begins."""
        self._replace(Stage.BOOTLOADER, ())

    def kernel_entered(self, address: int) -> None:
        """Search the kernel's boot code, which begins at ``address``, up to its compressed part."""
        ramdisk = int.from_bytes(self._memory.read(address + _RAMDISK_FIELD, 8), "big")
        limit = ramdisk - address if address < ramdisk < address + KERNEL_WINDOW else KERNEL_WINDOW
        length, self._packed = plain_length(self._memory, address, limit)
        found = self._search([(address, address, length)], self._wanted(_BOOT_PATTERNS))
        unmapped = None
        if self._packed:
            loads = [at - address for at, kind in found if kind is TrapKind.LPSWE]
            with self._memory.view(address, length) as code:
                starts = {offset + address for offset in kernel_starts(code, loads)}
            found = [(at, kind) for at, kind in found if kind is not TrapKind.LPSWE or at in starts]
            with self._memory.view(address, length + PAGE_SIZE) as code:  # its last words share a page with packed ones
                unmapped = unmapped_kernel(code)
        self._replace(Stage.DECOMPRESSOR, found)
        self._unmapped = unmapped
        self.drop(address)

    def unmapped_entered(self) -> None:
        """Search the unpacked kernel, which begins with DAT off, for its instructions until it turns DAT on."""
        if self._unmapped is not None:
            self._packed = False
            start, length = self._unmapped
            found = self._search([(start, start, length)], (Pattern.STFLE, Pattern.LPSWE))
            self._replace(Stage.DECOMPRESSOR, found)

    def ultravisor_queried(self) -> None:
        """The boot code knows facilities and ultravisor: it unpacks and starts the kernel next."""
        if self.stage is Stage.DECOMPRESSOR and self._packed:
            for kind in (TrapKind.STFLE, TrapKind.UVC, TrapKind.DIAG_308):
                self.drop_kind(kind)

    def kernel_proper(self, asce: int, address: int) -> None:
        """Search the storage mapped around virtual ``address`` under ``asce``, where the kernel proper begins."""
        patterns = self._wanted(_KERNEL_PATTERNS if self.calls else (Pattern.STFLE,))
        start = max(0, address - KERNEL_WINDOW) & ~(PAGE_SIZE - 1)
        end = min(1 << 64, address + KERNEL_WINDOW)
        # The tables have execution protection before it is switched on, and text is not exempt yet: ignore it here.
        ranges = list(mapped_ranges(self._memory, asce, start=start, end=end))
        found = self._search(ranges, patterns)
        self._kernel_calls = frozenset(at for at, kind in found if kind is TrapKind.UVC)
        handler = find_handler(self._memory, self._written(ranges)) if self.calls else None
        if handler is not None:
            # Calls that arrive there need no site of their own, not even the first time.
            found = [(at, kind) for at, kind in found if kind not in _BY_EXCEPTION]
        self._replace(Stage.KERNEL, found)
        self.exception_handler = handler

    @property
    def resets_unseen(self) -> bool:
        """Whether a DIAGNOSE 0x308 of the kernel does not stop it; a new kernel then shows its effect."""
        return self.stage is Stage.KERNEL and TrapKind.DIAG_308 not in self._found.values()

    def boot_breakpoints_remain(self) -> bool:
        """Whether ``drop_boot_breakpoints`` would drop any site.

        Not before the kernel has shown that its start is over.
        """
        kinds = set(self._found.values())
        if self.exception_handler is None or self.user_entry is not None or TrapKind.STFLE in kinds:
            return False
        return not kinds.isdisjoint(_BY_EXCEPTION)

    def drop_boot_breakpoints(self) -> None:
        """Drop the sites that the handler of operation exceptions would see too, and those that only a boot needs."""
        if self.boot_breakpoints_remain():
            for kind in _BY_EXCEPTION:
                self.drop_kind(kind)

    def add_site(self, address: int) -> None:
        """Watch the UVC at virtual ``address``, which reached the handler of operation exceptions."""
        self._found[address] = TrapKind.UVC

    def await_user(self, address: int, entry: int) -> None:
        """Watch the kernel's own UVCs and ``entry`` until a user program runs; the UVC at ``address`` came before one.

        ``entry`` is where supervisor calls begin. It has no effect if the call was not in the kernel's image.
        """
        if address in self._kernel_calls:
            self._found |= dict.fromkeys(self._kernel_calls, TrapKind.UVC)
            self.user_entry = entry

    def user_began(self) -> None:
        """Watch the handler of operation exceptions again: the first user program runs, so modules may come."""
        self.user_entry = None
        self.drop_kind(TrapKind.UVC)

    def _search(
        self, ranges: Iterable[tuple[int, int, int]], patterns: Iterable[Pattern]
    ) -> list[tuple[int, TrapKind]]:
        """Return (virtual address, kind) of all matches in ``ranges``, which are (virtual, absolute, length)."""
        found: list[tuple[int, TrapKind]] = []
        patterns = tuple(patterns)
        for virtual, absolute, length in self._written(ranges):
            with self._memory.view(absolute, length) as view:
                hits = find_patterns(view, patterns)
                if Pattern.UVC in patterns and length <= _SMALL:
                    hits += [(offset, Pattern.UVC) for offset in uvc_opcodes(view)]
                found += [
                    (virtual + offset, TrapKind(kind.value))
                    for offset, kind in hits
                    if begins_instruction(view, offset)
                    and (kind is not Pattern.STFLE or length <= _SMALL or has_operand_length(view, offset))
                ]
        return found

    def _written(self, ranges: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Yield the parts of ``ranges`` that were ever written, by ascending absolute address.

        In that order no storage is read twice, however many ranges a guest makes of it.
        """
        begin = end = 0  # the written run that was found last
        for absolute, virtual, length in sorted((absolute, virtual, length) for virtual, absolute, length in ranges):
            at, stop = absolute, min(absolute + length, self._memory.size)
            while at < stop:
                if at >= end:
                    run = next(self._memory.used(at), None)
                    if run is None:
                        return
                    begin, end = run[0], sum(run)
                first, last = max(at, begin), min(end, stop)
                if first < last:
                    yield virtual + first - absolute, first, last - first
                at = end
