"""Explains known failures that a guest's console messages show.

A Linux kernel reports what is wrong with a protected guest's environment, but in its own words and among thousands of
other lines. Each entry of the table recognises one such line and explains what to change.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from zseal.arch import instructions
from zseal.arch.interruption import ProgramCode
from zseal.engine.interface import Interrupted
from zseal.messages import Message, guest_boot, guest_kernel, initramfs

_LINE_LIMIT = 1024
_KIND_LIMIT = 32
"""The most distinct diagnoses to keep for one run."""
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LINE_END = re.compile(rb"[\r\n]+")

Match: TypeAlias = "re.Match[str]"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A known failure: its ``id``, what it is (``message``), what to change (``hint``) and its first ``line``.

    ``count`` is how often it was seen.
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
    """``explain`` returns (message, hint) for a line that ``expression`` finds.

    ``key`` are the groups whose values make it a separate diagnosis, for example of another device.
    """

    id: str
    expression: re.Pattern[str]
    explain: Callable[[Match], tuple[str, str]]
    key: Sequence[str] = ()
    unless: str | None = None
    """The id of a diagnosis that also explains this line."""


def _of_message(
    identifier: str,
    message: Message,
    *,
    hint: str | None = None,
    key: Sequence[str] = (),
    unless: str | None = None,
    expression: re.Pattern[str] | None = None,
) -> Pattern:
    """Return the pattern for a known message; ``hint`` replaces its remedy if a run knows a better one."""

    def explain(match: Match) -> tuple[str, str]:
        meaning = message.read(match.string)
        return meaning.meaning, hint or meaning.remedy

    return Pattern(identifier, expression or message.values or message.expression, explain, key, unless)


WITHOUT_IOMMU = "virtio-without-iommu"
"""The id of devices that a protected guest cannot use."""
_ADD_IOMMU = (
    "remove iommu=off from the guest's disks and networks, add iommu_platform=on to your own QEMU devices, write "
    "<driver iommu='on'/> in domain XML"
)


def _missed_call(match: Match) -> tuple[str, str]:
    return _about_missed_call(int(match["address"], 16))


def _about_missed_call(address: int) -> tuple[str, str]:
    return (
        f"zseal missed an ultravisor call of the guest's kernel at {address:#x}, so its instruction, UVC, ended in an "
        f"operation exception there",
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
"""The refused functions of DIAGNOSE 0x308, and what to do, by subcode."""

PATTERNS: Sequence[Pattern] = (
    _of_message(WITHOUT_IOMMU, guest_kernel.NO_ACCESS_PLATFORM, hint=_ADD_IOMMU, key=("driver", "device")),
    _of_message("swiotlb-none", guest_kernel.SWIOTLB_NONE),
    _of_message("swiotlb-none", guest_kernel.SWIOTLB_FULL, expression=guest_kernel.EMPTY_POOL),
    _of_message("swiotlb-full", guest_kernel.SWIOTLB_FULL),
    _of_message("swiotlb-shrunk", guest_kernel.SWIOTLB_SHRUNK),
    _of_message("facilities-missing", guest_kernel.MISSING_FACILITIES),
    _of_message("no-room-for-kernel", guest_boot.NO_ROOM),
    _of_message("no-room-for-kernel", guest_boot.FAULT, expression=guest_boot.END_OF_MEMORY),
    _of_message("boot-fault", guest_boot.FAULT),
    _of_message("kernel-damaged", guest_boot.CORRUPT),
    _of_message("ramdisk-damaged", guest_boot.RAMDISK_DAMAGED),
    _of_message("root-missing", initramfs.ROOT_MISSING),
    _of_message("root-missing", initramfs.ROOT_TIMEOUT),
    _of_message("kernel-panic", guest_boot.PANIC, key=("reason",), unless="missed-call"),
    # The interrupted instruction in the code that a kernel prints of itself.
    Pattern(
        "missed-call", re.compile(r"[#*](?P<address>[0-9a-f]{16}): ?b9a4[0-9a-f]{4}\b"), _missed_call, key=("address",)
    ),
)


def never_protected() -> Diagnosis:
    """Return the diagnosis of a guest that was never protected and did not report it."""
    return Diagnosis(
        "never-protected",
        "the guest ran without any protection: it did not boot a Secure Execution image",
        "seal it with zseal image create and install the result with zipl; remove older boot entries",
        "",
    )


def unused_device(device: str) -> Diagnosis:
    """Return the diagnosis of a guest that never set up ``device``, which lacks iommu_platform, even if its console
    does not show it.
    """
    message = f"the guest made no use of {device}: it comes without iommu_platform, so a protected guest cannot "
    return Diagnosis(WITHOUT_IOMMU, f"{message}send its data through shared memory", _ADD_IOMMU, "")


def refused_function(subcode: int | None, count: int = 1) -> Diagnosis:
    """Return the diagnosis of a guest that asked ``count`` times for a missing DIAGNOSE 0x308 function; None: it
    stopped there.

    If it only stopped, the function is not known.
    """
    what, hint = _REFUSED_FUNCTIONS.get(subcode, (f"function {subcode} of DIAGNOSE 0x308", _NOT_INSIDE))
    message = f"the guest asked for {what}: protected guests have no such function (specification exception)"
    return Diagnosis("diag308-refused", message, hint, "", count)


def explain_end(last: Interrupted) -> Diagnosis | None:
    """Return why a protected guest's kernel stopped with ``last`` as its last program interruption, if known."""
    instruction = instructions.classify(last.instruction)
    if last.code == ProgramCode.OPERATION and instruction is instructions.Pattern.UVC:
        return Diagnosis("missed-call", *_about_missed_call(last.address), "")
    if last.code == ProgramCode.SPECIFICATION and instruction is instructions.Pattern.DIAG_308:
        return refused_function(None)
    return None


def kernel_unaware() -> Diagnosis:
    """Return the diagnosis of a kernel that ran protected without support for it."""
    return Diagnosis(
        "kernel-unaware",
        "the guest's kernel shared no page with the host: it is built without support for protected guests "
        "(CONFIG_PROTECTED_VIRTUALIZATION_GUEST, missing from Debian 12's 6.1 for example), so it can use no disk "
        "and no network",
        "seal a kernel that is built with it; from Linux 6.10 on all are",
        "",
    )


class ConsoleWatch:
    """Searches a guest's output, in pieces of any size, for known failures; keeps at most a line of each channel."""

    def __init__(self, patterns: Sequence[Pattern] = PATTERNS) -> None:
        self._patterns = patterns
        self._rests: dict[str, bytearray] = {}
        self._found: dict[tuple[str, ...], Diagnosis] = {}

    def feed(self, data: bytes, channel: str = "") -> None:
        """Take output of the guest on the console ``channel``."""
        rest = self._rests.setdefault(channel, bytearray())
        *lines, last = _LINE_END.split(data)
        for line in lines:
            _extend(rest, line)
            self._examine(rest)
            rest.clear()
        _extend(rest, last)

    def finish(self) -> None:
        """Take the last output as a line: the guest has ended."""
        for rest in self._rests.values():
            self._examine(rest)
            rest.clear()

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """The diagnoses so far, in the order of their first appearance."""
        return tuple(self._found.values())

    def _examine(self, data: bytearray) -> None:
        if not data:
            return
        line = _ESCAPES.sub(b"", data).decode("utf-8", "replace")
        for pattern in self._patterns:
            match = pattern.expression.search(line)
            if match is not None:
                if pattern.unless is None or not any(known.id == pattern.unless for known in self._found.values()):
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
    """Add to an unfinished line; text beyond the limit is ignored."""
    rest += data[: max(0, _LINE_LIMIT - len(rest))]
