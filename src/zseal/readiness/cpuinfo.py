"""Reads ``/proc/cpuinfo`` and ``/proc/sysinfo`` of an s390x Linux; lists the machines with Secure Execution."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

MASKED = "masked"
"""Replaces private names and numbers in captures."""


@dataclasses.dataclass(frozen=True)
class MachineModel:
    """A machine generation: its four-digit type, names, and whether it can have Secure Execution."""

    type: str
    name: str
    capable: bool
    attests: bool = False


MACHINE_MODELS: Mapping[str, MachineModel] = {
    model.type: model
    for model in (
        MachineModel("9175", "IBM z17 or LinuxONE Emperor 5", True, True),
        MachineModel("9176", "IBM z17 generation", True, True),
        MachineModel("3931", "IBM z16 or LinuxONE Emperor 4", True, True),
        MachineModel("3932", "IBM z16 single frame or LinuxONE Rockhopper 4", True, True),
        MachineModel("8561", "IBM z15 or LinuxONE III LT1", True),
        MachineModel("8562", "IBM z15 T02 or LinuxONE III LT2", True),
        MachineModel("3906", "IBM z14 or LinuxONE Emperor II", False),
        MachineModel("3907", "IBM z14 ZR1 or LinuxONE Rockhopper II", False),
        MachineModel("2964", "IBM z13 or LinuxONE Emperor", False),
        MachineModel("2965", "IBM z13s or LinuxONE Rockhopper", False),
        MachineModel("2827", "IBM zEC12", False),
        MachineModel("2828", "IBM zBC12", False),
        MachineModel("2817", "IBM z196", False),
        MachineModel("2818", "IBM z114", False),
    )
}


@dataclasses.dataclass(frozen=True)
class CpuInfo:
    """``machine`` is the four-digit type; ``facilities`` and ``features`` are None if the line is missing."""

    machine: str | None
    facilities: frozenset[int] | None
    features: frozenset[str] | None


_MACHINE = re.compile(r"\bmachine\s*[=:]\s*([0-9A-Fa-f]{4})\b")


def _words_after_colon(text: str, label: str) -> list[str] | None:
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        if colon and name.split()[:1] == [label]:
            return rest.split()
    return None


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read ``/proc/cpuinfo``.

    Facilities are whole decimal tokens of the first ``facilities`` line; a file without the line is not s390x or cut
    off, which differs from "no facility".
    """
    facilities = _words_after_colon(text, "facilities")
    features = _words_after_colon(text, "features")
    machine = _MACHINE.search(text)
    return CpuInfo(
        machine=machine[1].upper() if machine else None,
        facilities=None
        if facilities is None
        else frozenset(int(t) for t in facilities if t.isascii() and t.isdecimal() and len(t) < 6),
        features=None if features is None else frozenset(features),
    )


@dataclasses.dataclass(frozen=True)
class SysInfo:
    """``machine`` is the type; ``control_program`` names the hypervisor above an LPAR ("KVM/Linux", "z/VM …")."""

    machine: str | None
    control_program: str | None
    lpar_name: str | None


def parse_sysinfo(text: str) -> SysInfo:
    """Read ``/proc/sysinfo``: lines of ``label: value``; ``VM00 …`` lines are there only below a hypervisor."""
    values: dict[str, str] = {}
    hypervisor = False
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if colon:
            values.setdefault(" ".join(label.split()), " ".join(value.split()))
            hypervisor = hypervisor or label.startswith("VM00 ")
    machine = values.get("Type", "")
    return SysInfo(
        machine=machine.upper() if re.fullmatch(r"[0-9A-Fa-f]{4}", machine) else None,
        control_program=values.get("VM00 Control Program", "unknown") if hypervisor else None,
        # its replacement in a capture
        lpar_name=None if values.get("LPAR Name") == MASKED else values.get("LPAR Name"),
    )
