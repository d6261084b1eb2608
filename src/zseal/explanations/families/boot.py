"""Codes at the boot of an image: the responses of DIAGNOSE X'308', and lines with codes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from zseal.arch.diag308 import ReturnCode
from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.explanations.families.ultravisor import UltravisorAnswers
from zseal.formats.uv_codes import Command
from zseal.messages import Role

DIAGNOSE = "DIAG 308"
_HYPERVISOR = "hypervisor (QEMU)"


def _diagnose(code: ReturnCode, meaning: str, cause: str, remedy: str) -> Reading:
    role = Role.NORMAL if code in (ReturnCode.OK, ReturnCode.NO_CONFIGURATION) else Role.CONSEQUENCE
    return Reading(
        f"DIAG 308 response {code:#06x}", code.name, _HYPERVISOR, meaning, cause, remedy, (DIAGNOSE,), role=role
    )


_DIAGNOSE: dict[int, Reading] = {
    ReturnCode.OK: _diagnose(ReturnCode.OK, "done", "no error", "nothing to do"),
    ReturnCode.NO_CONFIGURATION: _diagnose(
        ReturnCode.NO_CONFIGURATION,
        "no parameter block is stored",
        "subcode 6 or 9 asked for a block before one was set",
        "nothing to do: guests ask this to find out how they were started",
    ),
    ReturnCode.INVALID: _diagnose(
        ReturnCode.INVALID,
        "the IPL parameter block is not valid",
        "its length or type is wrong, it lists no components, a component is not page aligned, tweak prefixes do not "
        "ascend, or the header lies outside memory",
        "inspect the image (zseal inspect IMAGE) and build it again; give the guest more memory than the image needs",
    ),
    ReturnCode.NO_PV_CONFIGURATION: _diagnose(
        ReturnCode.NO_PV_CONFIGURATION,
        "protected mode was asked for without a parameter block",
        "subcode 10 came without a successful subcode 8 before it",
        "use an unchanged bootloader: pvimg's and zseal's issue both",
    ),
    ReturnCode.INVALID_FOR_PV: _diagnose(
        ReturnCode.INVALID_FOR_PV,
        "the guest could not enter protected mode",
        "the image is not built for this machine (by far the most frequent), was changed, the guest is backed by huge "
        "pages, or the host has too little memory or vmalloc space for it; older QEMU gives no details here",
        "search QEMU's log (/var/log/libvirt/qemu/NAME.log) for a line with KVM PV command, and explain that line; "
        "without an rc there, remove <hugepages> or give the host a larger vmalloc=",
    ),
}
# the numbers of struct kvm_pv_cmd in the Linux kernel's user interface, and the calls each one makes
KVM_PV_COMMANDS: dict[int, tuple[str, tuple[Command, ...]]] = {
    0: ("KVM_PV_ENABLE", (Command.CREATE_SEC_CONF, Command.CREATE_SEC_CPU)),
    1: ("KVM_PV_DISABLE", (Command.DESTROY_SEC_CONF, Command.DESTROY_SEC_CPU)),
    2: ("KVM_PV_SET_SEC_PARMS", (Command.SET_SEC_CONF_PARAMS,)),
    3: ("KVM_PV_UNPACK", (Command.UNPACK_IMG,)),
    4: ("KVM_PV_VERIFY", (Command.VERIFY_IMG,)),
    5: ("KVM_PV_PREP_RESET", (Command.PREPARE_RESET,)),
    6: ("KVM_PV_UNSHARE_ALL", (Command.SET_UNSHARE_ALL,)),
    7: ("KVM_PV_INFO", (Command.QUI,)),
    8: (
        "KVM_PV_DUMP",
        (Command.DUMP_INIT, Command.DUMP_CONF_STOR_STATE, Command.DUMP_CPU, Command.DUMP_COMPLETE),
    ),
    9: ("KVM_PV_ASYNC_CLEANUP_PREPARE", (Command.DESTROY_SEC_CPU,)),
    10: ("KVM_PV_ASYNC_CLEANUP_PERFORM", (Command.DESTROY_SEC_CONF,)),
}
_ERRNO = {
    5: "EIO: the ultravisor refused to create or destroy the guest",
    11: "EAGAIN: the ultravisor was busy with the page",
    12: "ENOMEM: the host has too little memory or vmalloc space",
    14: "EFAULT: the memory is not accessible, or backed by huge pages",
    22: "EINVAL: the ultravisor refused, or the host is not set up for protected guests",
    25: "ENOTTY: the host's kernel does not know the command",
    6: "ENXIO: a page of the guest is not mapped",
}
_ANSWERS = UltravisorAnswers()
_KVM_LINE = re.compile(
    r"KVM PV command (?P<number>\d{1,3}) \((?P<name>[A-Z_]{1,40})\).{0,20}?header rc (?P<rc>[0-9a-f]{1,4}) "
    r"rrc (?P<rrc>[0-9a-f]{1,4})(?: IOCTL rc: (?P<errno>-?\d{1,4}))?",
    re.IGNORECASE,
)
_LOADER_LINE = re.compile(
    r"Protected boot (?:setup )?(?:has )?failed:\s*(?:0x)?(?P<value>[0-9a-f]{1,16})"
    r"(?:,\s*(?P<name>KVM_PV_[A-Z_]{1,40})[\s-]*RC:\s*(?:0x)?(?P<rc>[0-9a-f]{1,4})"
    r"[,\s]*RRC:\s*(?:0x)?(?P<rrc>[0-9a-f]{1,4}))?",
    re.IGNORECASE,
)


def calls_of(name: str) -> tuple[Command, ...]:
    """Return the ultravisor calls of a KVM PV command's name, or none."""
    return next((calls for known, calls in KVM_PV_COMMANDS.values() if known == name.upper()), ())


def _answers(rc: int, rrc: int, calls: Iterable[Command], by: str) -> list[Reading]:
    wanted = frozenset(calls)
    readings = _ANSWERS.number(Number(rc, rrc, "rc"), Scope(wanted or None))
    if readings:
        return [dataclasses.replace(reading, source=f"{reading.source}, reported by {by}") for reading in readings]
    return [
        Reading(
            f"rc {rc:#06x} rrc {rrc:#06x}",
            "UNDOCUMENTED",
            f"ultravisor, reported by {by}",
            "an answer that is not documented",
            "IBM publishes no meaning for it",
            "zseal image info --check-digests on the image, zseal host check on the host; then ask IBM support",
            tuple(command.name for command in wanted),
        )
    ]


def read_packed(value: int) -> list[Reading]:
    """Read the 64-bit response of newer QEMU: command, rrc, rc and DIAG 308 response, 16 bits each."""
    number, rrc, rc, response = (value >> shift & 0xFFFF for shift in (48, 32, 16, 0))
    if response not in _DIAGNOSE or (value > 0xFFFF and not rc):
        return []
    readings = [_DIAGNOSE[response]]
    if rc:
        name, calls = KVM_PV_COMMANDS.get(number, (f"KVM PV command {number}", ()))
        readings = [*_answers(rc, rrc, calls, f"QEMU ({name})"), _DIAGNOSE[response]]
    return readings


class Diagnose308(Family):
    """Responses of DIAGNOSE X'308', plain and packed."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as a response."""
        if not scope.diagnose or question.reason is not None or question.hint not in (None, "diag"):
            return ()
        return read_packed(question.value)

    def all(self) -> Iterable[Reading]:
        """Return the plain responses."""
        return _DIAGNOSE.values()


class BootMessages(Family):
    """Lines with codes in them, by the bootloader on the console and by QEMU in its log."""

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Extract the codes of a line and read them together."""
        if match := _KVM_LINE.search(line):
            number = int(match["number"])
            name, calls = KVM_PV_COMMANDS.get(number, (match["name"], ()))
            readings = _answers(int(match["rc"], 16), int(match["rrc"], 16), calls, f"QEMU ({name})")
            errno = _ERRNO.get(abs(int(match["errno"] or 0)))
            if errno:
                readings.append(
                    Reading(
                        f"IOCTL rc {match['errno']}",
                        errno.partition(":")[0],
                        "host kernel (KVM)",
                        errno.partition(": ")[2],
                        "follows from the ultravisor's answer" if int(match["rc"], 16) > 1 else _NO_ANSWER,
                        "see above" if int(match["rc"], 16) > 1 else "zseal host check, and the host kernel's log",
                        role=Role.CONSEQUENCE if int(match["rc"], 16) > 1 else Role.CAUSE,
                    )
                )
            return readings
        if match := _LOADER_LINE.search(line):
            value = int(match["value"], 16)
            if match["name"]:
                by = f"the bootloader ({match['name'].upper()})"
                codes = _answers(int(match["rc"], 16), int(match["rrc"], 16), calls_of(match["name"]), by)
                return [*codes, *read_packed(value & 0xFFFF)]
            return read_packed(value)
        return ()

    def all(self) -> Iterable[Reading]:
        """Return nothing: the codes are listed by their own families."""
        return ()


_NO_ANSWER = "the ultravisor was not asked or did not refuse: KVM itself failed"

FAMILIES: tuple[Family, ...] = (BootMessages(), Diagnose308())
