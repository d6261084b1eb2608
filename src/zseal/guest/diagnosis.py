"""What a guest's console messages mean for who runs it: known failures, explained.

A Linux kernel says what is wrong with a protected guest's surroundings, but in its own words and among thousands of
others. Each entry of the table recognises one such line and tells what to change.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from zseal.arch import instructions
from zseal.arch.interruption import ProgramCode
from zseal.arch.storage import MIB
from zseal.engine.interface import Interrupted
from zseal.linux.swiotlb import DEFAULT_SLOTS, LARGEST_SLOTS, SEGMENT_SLOTS, SLOT_SIZE

_LINE_LIMIT = 1024
_KIND_LIMIT = 32
"""Different diagnoses of one run that are kept."""
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LINE_END = re.compile(rb"[\r\n]+")

Match: TypeAlias = "re.Match[str]"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A known failure: its ``id``, what it is (``message``), what to change (``hint``) and the first ``line`` of it.

    ``count`` says how often it was seen.
    """

    id: str
    message: str
    hint: str
    line: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A line that ``expression`` finds is explained by ``explain``: (message, hint).

    ``key`` are the groups whose values make it another diagnosis, of another device for example.
    """

    id: str
    expression: re.Pattern[str]
    explain: Callable[[Match], tuple[str, str]]
    key: Sequence[str] = ()


WITHOUT_IOMMU = "virtio-without-iommu"
"""The id of devices that a protected guest can't use."""
_ADD_IOMMU = (
    "leave iommu=off away from --disk and --net, give devices behind -- iommu_platform=on, "
    "write <driver iommu='on'/> in domain XML"
)


def _no_access_platform(match: Match) -> tuple[str, str]:
    driver, device = match["driver"] or "virtio", match["device"] or "a device"
    return (
        f"the guest refused the {driver} device {device}: it comes without iommu_platform, so a protected guest can't "
        "send its data through shared memory",
        _ADD_IOMMU,
    )


def _facilities_missing(match: Match) -> tuple[str, str]:
    vectors = "129" in re.split("[,-]", match["list"])
    return (
        f"the guest's kernel needs facilities that its CPU does not have: {match['list']}",
        "vector instructions (129) are off because QEMU before 10.0 computes wrong checksums with them: "
        "give -- -cpu max, or use a newer QEMU"
        if vectors
        else "use a newer QEMU, or a kernel for older machines",
    )


def _size(slots: int) -> str:
    size = slots * SLOT_SIZE
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // 1024} KiB"


def _pool_full(match: Match) -> tuple[str, str]:
    wanted = int(match["size"])
    message = f"the guest's bounce buffers (SWIOTLB) ran full: a transfer of {wanted} bytes needs "
    message += f"{-(-wanted // SLOT_SIZE)} slots of 2 KiB in a row"
    if match["total"] is None:
        return message, "seal the image with a larger swiotlb=SLOTS in its kernel command line"
    total, used = int(match["total"]), int(match["used"])
    message += f", and {used} of {total} slots ({_size(used)} of {_size(total)}) were in use"
    if wanted > SEGMENT_SLOTS * SLOT_SIZE:
        return message, f"no pool can take it in one piece: more than {_size(SEGMENT_SLOTS)} never fit"
    if total >= LARGEST_SLOTS:
        return message, f"let fewer requests be under way at a time: {_size(LARGEST_SLOTS)} is the largest pool"
    # The message tells of one transfer, not of those that come with it: what Linux takes by itself, or twice the pool.
    more = min(max(1 << (2 * total - 1).bit_length(), DEFAULT_SLOTS), LARGEST_SLOTS)
    return (
        message,
        f"seal the image with swiotlb={more} in its kernel command line ({more} slots x 2 KiB = {_size(more)} "
        "of guest memory; the guest does not say how much more was waiting, so it may take still more), or let fewer "
        "requests be under way at a time",
    )


def _missed_call(match: Match) -> tuple[str, str]:
    return _about_missed_call(int(match["address"], 16))


def _about_missed_call(address: int) -> tuple[str, str]:
    return (
        f"zseal missed an ultravisor call of the guest's kernel at {address:#x}, so its instruction, UVC, ended in an "
        "operation exception there as an unknown one",
        "this is a fault of zseal, not of the image: report it with the kernel's version, and try another kernel",
    )


_WITH_CLEAR = (
    "run echo 1 > /sys/firmware/reipl/ccw/clear in the guest after each boot, and it asks for a re-IPL with clear "
    "(subcode 3), which protected guests have"
)
_NOT_INSIDE = "only a guest that is not protected may ask for it"
_REFUSED_FUNCTIONS = {
    None: (
        "a re-IPL without clear and stopped (most likely: DIAGNOSE 0x308 subcode 4, Linux' reboot from a disk)",
        _WITH_CLEAR,
    ),
    4: ("a re-IPL without clear (DIAGNOSE 0x308 subcode 4)", _WITH_CLEAR),
    8: ("a new protected start (DIAGNOSE 0x308 subcode 8)", _NOT_INSIDE),
    9: ("the parameters of its protected start (DIAGNOSE 0x308 subcode 9)", _NOT_INSIDE),
    10: ("a new protected start (DIAGNOSE 0x308 subcode 10)", _NOT_INSIDE),
}
"""What a refused function of DIAGNOSE 0x308 is, and what to do, by subcode."""

PATTERNS: Sequence[Pattern] = (
    Pattern(
        WITHOUT_IOMMU,
        re.compile(
            r"(?:(?P<driver>[\w-]{1,40}) (?P<device>virtio\d{1,5}): )?device must provide VIRTIO_F_ACCESS_PLATFORM"
        ),
        _no_access_platform,
        key=("driver", "device"),
    ),
    Pattern(
        "swiotlb-full",
        re.compile(
            r"swiotlb buffer is full \(sz: (?P<size>\d{1,18}) bytes\)"
            r"(?:, total (?P<total>\d{1,12}) \(slots\), used (?P<used>\d{1,12}) \(slots\))?"
        ),
        _pool_full,
    ),
    Pattern(
        "facilities-missing",
        re.compile(r"Missing facilities: (?P<list>\d{1,4}(?:[,-]\d{1,4}){0,40})"),
        _facilities_missing,
    ),
    # The interrupted instruction in the code that a kernel prints of itself.
    Pattern(
        "missed-call", re.compile(r"[#*](?P<address>[0-9a-f]{16}): ?b9a4[0-9a-f]{4}\b"), _missed_call, key=("address",)
    ),
)


def never_protected() -> Diagnosis:
    """What came to run was never protected, and nobody was told."""
    return Diagnosis(
        "never-protected",
        "the guest ran without any protection: what booted is no image for Secure Execution",
        "seal it with zseal image create and install the result with zipl; remove older boot entries",
        "",
    )


def unused_device(device: str) -> Diagnosis:
    """A protected guest never set up ``device``, which comes without iommu_platform, whatever its console shows."""
    message = f"the guest made no use of {device}: it comes without iommu_platform, so a protected guest can't "
    return Diagnosis(WITHOUT_IOMMU, f"{message}send its data through shared memory", _ADD_IOMMU, "")


def refused_function(subcode: int | None, count: int = 1) -> Diagnosis:
    """A protected guest asked ``count`` times for a function of DIAGNOSE 0x308 that it has not; None: it stopped there.

    Who sees only that it stopped does not know for which function.
    """
    what, hint = _REFUSED_FUNCTIONS.get(subcode, (f"function {subcode} of DIAGNOSE 0x308", _NOT_INSIDE))
    message = f"the guest asked for {what}: protected guests have no such function (specification exception)"
    return Diagnosis("diag308-refused", message, hint, "", count)


def explain_end(last: Interrupted) -> Diagnosis | None:
    """Return why a protected guest's kernel stopped whose last program interruption was ``last``; None: not known."""
    instruction = instructions.classify(last.instruction)
    if last.code == ProgramCode.OPERATION and instruction is instructions.Pattern.UVC:
        return Diagnosis("missed-call", *_about_missed_call(last.address), "")
    if last.code == ProgramCode.SPECIFICATION and instruction is instructions.Pattern.DIAG_308:
        return refused_function(None)
    return None


def kernel_unaware() -> Diagnosis:
    """A kernel ran protected and did not know."""
    return Diagnosis(
        "kernel-unaware",
        "the guest's kernel shared no page with the host: it is built without support for protected guests "
        "(CONFIG_PROTECTED_VIRTUALIZATION_GUEST, missing from Debian 12's 6.1 for example), so it can use no disk "
        "and no network",
        "seal a kernel that is built with it; from Linux 6.10 on all are",
        "",
    )


class ConsoleWatch:
    """Looks for known failures in what a guest writes, in pieces of any size; keeps at most a line of each channel."""

    def __init__(self, patterns: Sequence[Pattern] = PATTERNS) -> None:
        self._patterns = patterns
        self._rests: dict[str, bytearray] = {}
        self._found: dict[tuple[str, ...], Diagnosis] = {}

    def feed(self, data: bytes, channel: str = "") -> None:
        """Take what the guest has written to the console ``channel``."""
        rest = self._rests.setdefault(channel, bytearray())
        *lines, last = _LINE_END.split(data)
        for line in lines:
            _extend(rest, line)
            self._examine(rest)
            rest.clear()
        _extend(rest, last)

    def finish(self) -> None:
        """The guest has ended: what it wrote last is a line too."""
        for rest in self._rests.values():
            self._examine(rest)
            rest.clear()

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """What was found so far, in the order of its first appearance."""
        return tuple(self._found.values())

    def _examine(self, data: bytearray) -> None:
        if not data:
            return
        line = _ESCAPES.sub(b"", data).decode("utf-8", "replace")
        for pattern in self._patterns:
            match = pattern.expression.search(line)
            if match is not None:
                self._add(pattern, match, line)
                return

    def _add(self, pattern: Pattern, match: Match, line: str) -> None:
        key = (pattern.id, *(match[group] or "" for group in pattern.key))
        known = self._found.get(key)
        if known is not None:
            self._found[key] = dataclasses.replace(known, count=known.count + 1)
        elif len(self._found) < _KIND_LIMIT:
            message, hint = pattern.explain(match)
            self._found[key] = Diagnosis(
                pattern.id, message, hint, "".join(filter(str.isprintable, line.replace("\t", " "))).strip()
            )


def _extend(rest: bytearray, data: bytes) -> None:
    """Add to an unfinished line; what goes beyond the limit is not looked at."""
    rest += data[: max(0, _LINE_LIMIT - len(rest))]
