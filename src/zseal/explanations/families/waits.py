"""Disabled waits, which end an operating system or a bootloader: wait codes, whole PSWs, and crash reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.messages import Role

_LOADER = "bootloader (stage3a)"
_ZIPL = "zipl's bootloader"
_KERNEL = "guest's operating system"
_WAITS: dict[int, Reading] = {
    0x4607: Reading(
        "wait code 0x4607",
        "NO_PV_SUPPORT",
        _LOADER,
        "this machine offers no protected mode to the guest: facility 161 (unpack) is missing",
        "the host is not set up for protected guests, the CPU model has no unpack, or QEMU emulates the CPU (TCG)",
        "zseal host check on the host; zseal domain lint on the domain; without IBM Z hardware use zseal run",
    ),
    0x4608: Reading(
        "wait code 0x4608",
        "PV_FAILED",
        _LOADER,
        "entering protected mode failed",
        "the line on the console before the stop gives the reason",
        "explain that line: zseal explain 'Protected boot …'",
        role=Role.CONSEQUENCE,
    ),
    0x4511: Reading(
        "wait code 0x4511",
        "INTERNAL_ERROR",
        "bootloader (stage3b)",
        "the protected part of the bootloader found the image unusable",
        "the kernel component is not a kernel, or the command line is longer than the kernel takes",
        "build the image again with a raw kernel (not ELF) and a shorter command line",
    ),
    **{
        code: Reading(f"wait code {code:#06x}", name, _ZIPL, meaning, cause, remedy)
        for code, name, meaning, cause, remedy in (
            (0x4500, "ENABLE_DEVICE", "the boot disk cannot be switched on", "the disk is not there any more",
             "check the disk in the domain"),
            (0x4501, "DISABLE_DEVICE", "the boot disk cannot be switched off", "an I/O error", "check the disk"),
            (0x4502, "START_SUBCHANNEL", "the boot disk does not take the read command",
             "an I/O error, or zipl's boot map is older than the disk", "run zipl on the disk again"),
            (0x4510, "WRONG_TYPE", "the disk was started in another way than zipl prepared it for",
             "the disk was copied to another kind of disk", "run zipl on the disk again"),
            (0x4512, "SECURE_BOOT", "secure boot refused what zipl installed",
             "a component is not signed, or the parameters of the boot are missing",
             "turn secure boot off, or sign the kernel; it is not needed for IBM Secure Execution"),
        )
    },
}  # fmt: skip
# a whole PSW: 128 bits, or 64 as older documents and consoles show it
_PSW_DIGITS = 32
_SHORT_PSW_DIGITS = 16
_GROUP = r"(?:0x)?[0-9a-f]{4,16}"
_AFTER_PSW = re.compile(rf"\bpsw\b[\s:=(]*(?P<groups>{_GROUP}(?:[\s,]+{_GROUP}){{0,7}})", re.IGNORECASE)
_ONLY_GROUPS = re.compile(rf"(?P<groups>{_GROUP}(?:[\s,]+{_GROUP}){{1,7}})", re.IGNORECASE)
_FIELD = re.compile(
    r"psw[-_](?P<which>mask|addr)(?:ess)?[\"']?\s*[:=]\s*[\"']?(?P<value>0x[0-9a-f]{1,16}|\d{1,20})", re.IGNORECASE
)
_WORDS = re.compile(
    r"disabled[- ]wait(?:(?: code)? at| code)?[\s:(]*(?P<address>0x[0-9a-f]{1,16}|[0-9a-f]{4,16})\b", re.IGNORECASE
)
_REASON = re.compile(r"\b(?P<reason>(?:extint|pgmint|opint)-loop)\b")
_REASONS = {
    "extint-loop": ("external", "an external interruption"),
    "pgmint-loop": ("program", "a program interruption"),
    "opint-loop": ("operation", "an operation exception"),
}


def is_psw(text: str) -> bool:
    """Return whether ``text`` consists of the digits of a PSW, in groups."""
    match = _ONLY_GROUPS.fullmatch(text.strip())
    return match is not None and len(_digits(match["groups"])) == _PSW_DIGITS


def _digits(groups: str) -> str:
    return "".join(part.lower().removeprefix("0x") for part in re.split(r"[\s,]+", groups))


def _waited_at(mask: int, address: int) -> int | None:
    """Return the address of a PSW with the wait bit on and no way out of it; None for any other."""
    waiting, open_to = mask >> 49 & 1, mask >> 56 & 0x03 | mask >> 48 & 0x04
    return address if waiting and not open_to else None


def _from_digits(digits: str) -> int | None:
    if len(digits) == _PSW_DIGITS:
        return _waited_at(int(digits[:16], 16), int(digits[16:], 16))
    if len(digits) == _SHORT_PSW_DIGITS and int(digits[:4], 16) & 0x0008:
        return _waited_at(int(digits[:8], 16) << 32, int(digits[8:], 16) & 0x7FFFFFFF)
    return None


def find_wait(line: str) -> int | None:
    """Return the address of the disabled wait that ``line`` shows in any of the usual forms, or None."""
    fields = {match["which"].lower(): int(match["value"], 0 if "x" in match["value"].lower() else 10)
              for match in _FIELD.finditer(line)}  # fmt: skip
    if len(fields) == 2:
        return _waited_at(fields["mask"], fields["addr"])
    for pattern in (_AFTER_PSW, _ONLY_GROUPS):
        match = pattern.search(line) if pattern is _AFTER_PSW else pattern.fullmatch(line.strip())
        if match is not None and (found := _from_digits(_digits(match["groups"]))) is not None:
            return found
    match = _WORDS.search(line)
    return None if match is None else int(match["address"], 16)


def _stopped(address: int) -> Reading:
    known = _WAITS.get(address)
    if known is not None:
        return known
    if not address:
        return Reading(
            "disabled wait at 0x0",
            "NO_HANDLER",
            _KERNEL,
            "the guest stopped at an interruption that it had not prepared for",
            "the program that was started is not bootable, or failed before it set up its interruption handlers",
            "zseal inspect IMAGE; look at the last lines of the console",
            role=Role.CONSEQUENCE,
        )
    return Reading(
        f"disabled wait at {address:#x}",
        "STOPPED",
        _KERNEL,
        "the guest's kernel panicked or halted: the address lies in the kernel, it is not a wait code",
        "the last lines of the guest's console give the reason, mostly in a line with Kernel panic",
        "explain those lines; without them add console=ttysclp0 to the kernel parameters and remove quiet",
        role=Role.CONSEQUENCE,
    )


class WaitCodes(Family):
    """Addresses in the disabled wait PSW that end a boot or a guest."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as a wait code, or as a whole PSW."""
        if scope.commands is not None or question.reason is not None or question.hint not in (None, "wait"):
            return ()
        if question.value in _WAITS:
            return [_WAITS[question.value]]
        digits = f"{question.value:x}"
        width = _PSW_DIGITS if len(digits) > _SHORT_PSW_DIGITS else _SHORT_PSW_DIGITS
        address = _from_digits(digits.zfill(width))
        if address is None or (width == _SHORT_PSW_DIGITS and address not in _WAITS):
            return ()
        return [_stopped(address)]

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Read a PSW in a line of text, or the reason that QEMU gives."""
        address = find_wait(line)
        if address is not None:
            return [_stopped(address)]
        if match := _REASON.search(line):
            which, what = _REASONS[match["reason"]]
            return [
                Reading(
                    match["reason"],
                    "INTERRUPTION_LOOP",
                    "QEMU",
                    f"the guest's new PSW for {which} interruptions leads to {what} again, so it cannot go on",
                    "the guest's memory was overwritten, or it failed before it set up its interruption handlers",
                    "look at the last lines of the guest's console",
                    role=Role.CONSEQUENCE,
                )
            ]
        return ()

    def all(self) -> Iterable[Reading]:
        """Return every wait code."""
        return _WAITS.values()


FAMILIES: tuple[Family, ...] = (WaitCodes(),)
