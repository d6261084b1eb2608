"""Checks of the host kernel: its version, the ultravisor directory, ``prot_virt=``, and its effect at boot."""

from __future__ import annotations

import re

from zseal.arch.facilities import Facility
from zseal.linux.cmdline import kata_enables, kernel_enables, libvirt_enables, spellings, split_command_line
from zseal.messages.host_kernel import INIT_FAILED, NOT_RESERVED, RESERVED
from zseal.readiness.checks.interface import Check, Judgement, failed, not_applicable, passed, warned
from zseal.readiness.facts import HostFacts, Version

_ADD_PARAMETER = "add prot_virt=1 to the kernel parameters of the host, run zipl (or grub2-mkconfig and zipl), reboot"


def has_facility(facts: HostFacts) -> bool | None:
    """Return whether facility 158 is on, None if it is not known."""
    facilities = facts.cpu.facilities if facts.cpu else None
    return None if facilities is None else Facility.ULTRAVISOR_CALL in facilities


def _codes(match: re.Match[str]) -> str:
    return f"rc {int(match['rc'], 16):#x}, rrc {int(match['rrc'], 16):#x}"


class KernelVersion(Check):
    """The version of the kernel."""

    id = "kernel-version"
    title = "Host kernel"
    meaning = (
        "Linux can host protected guests since 5.7; enterprise distributions ported the support to older versions."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the release, but let the kernel's abilities overrule its number."""
        if facts.kernel is None:
            return not_applicable("the kernel's version is not known")
        if facts.kernel >= Version(5, 7):
            return passed(f"Linux {facts.kernel}")
        if facts.uv_directory:
            return passed(f"Linux {facts.kernel} with the support ported by its distributor")
        return failed(f"Linux {facts.kernel} is older than 5.7", "update the host's distribution")


class UvDirectory(Check):
    """Whether the kernel supports the ultravisor."""

    id = "uv-directory"
    title = "/sys/firmware/uv"
    meaning = (
        "The kernel shows this directory if facility 158 is installed and KVM (or guest support) is built in. libvirt "
        "and virt-host-validate check it second."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the directory's existence."""
        if facts.uv_directory:
            return passed("present")
        if facts.uv_directory is None:
            return not_applicable("/sys was not checked")
        if facts.firmware_masked:
            return warned(
                "/sys/firmware is empty: this is a container, in which no probe can see it",
                "run the check on the host itself; protected domains without <launchSecurity> still work from here",
            )
        if has_facility(facts) is False:
            return failed("missing, because facility 158 is missing", "see facility-158")
        return failed(
            "missing although the machine has the facility: this kernel is built without ultravisor support",
            "boot a kernel with CONFIG_KVM, 5.7 or newer",
        )


class ProtVirtParameter(Check):
    """The kernel's own verdict on its parameter."""

    id = "prot-virt-parameter"
    title = "prot_virt= in the kernel parameters"
    meaning = (
        "The host kernel donates memory to the ultravisor only on request. It accepts values that begin with y, Y, 1 "
        "or on; the name is spelt with an underscore; any enabling occurrence wins."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``/proc/cmdline`` by the kernel's rules."""
        if facts.command_line is None:
            return not_applicable("/proc/cmdline cannot be read")
        written = spellings(facts.command_line)
        if kernel_enables(facts.command_line):
            return passed(" ".join(written))
        if written:
            return failed(f"the kernel takes {' '.join(written)!r} for off", f"write prot_virt=1: {_ADD_PARAMETER}")
        return failed("not given", _ADD_PARAMETER)


class ProtVirtReaders(Check):
    """Whether libvirt and Kata Containers agree with the kernel."""

    id = "prot-virt-readers"
    title = "prot_virt= as others read it"
    meaning = (
        "libvirt and Kata Containers parse the kernel parameters themselves, each by its own rules. If they disagree "
        "with the kernel, they wrongly claim or refuse protected guests."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Compare the three parsers on ``/proc/cmdline``."""
        line = facts.command_line
        if line is None:
            return not_applicable("/proc/cmdline cannot be read")
        kernel = kernel_enables(line)
        others = {"libvirt": libvirt_enables(line), "Kata Containers": kata_enables(line)}
        wrong = [name for name, verdict in others.items() if verdict != kernel]
        if wrong:
            state = {True: "on", False: "off"}
            return warned(
                f"the kernel reads {' '.join(spellings(line))!r} as {state[kernel]}, {' and '.join(wrong)} as "
                f"{state[not kernel]}",
                "write prot_virt=1, which all of them understand",
            )
        return passed(f"kernel, libvirt and Kata Containers all read it as {'on' if kernel else 'off'}")


class ProtVirtHost(Check):
    """The decisive value."""

    id = "prot-virt-host"
    title = "Ultravisor initialised"
    meaning = (
        "/sys/firmware/uv/prot_virt_host is 1 when this kernel can host protected guests now. libvirt does not read "
        "it, so libvirt may say yes although this says no."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``prot_virt_host``, and name the most likely reason for a 0."""
        if facts.prot_virt_host:
            return passed("prot_virt_host is 1")
        if facts.prot_virt_host is None:
            if facts.firmware_masked:
                return not_applicable("/sys/firmware is masked in this container")
            if facts.uv_directory is None:
                return not_applicable("/sys was not checked")
            return failed("there is no /sys/firmware/uv/prot_virt_host", "see uv-directory")
        return failed(f"prot_virt_host is 0: {self._reason(facts)}", self._fix(facts))

    def _reason(self, facts: HostFacts) -> str:
        line = facts.command_line or ""
        if facts.prot_virt_guest:
            return "this is a protected guest"
        if facts.command_line is not None and not kernel_enables(line):
            return "prot_virt= does not turn it on"
        if any(p.name == "elfcorehdr" for p in split_command_line(line)):
            return "this is the kdump kernel"
        log = facts.kernel_log or ""
        if NOT_RESERVED.match(log):
            return "no memory could be reserved for the ultravisor"
        if match := INIT_FAILED.search(log):
            return f"the firmware refused to start ({_codes(match)})"
        return "memory could not be reserved, or the firmware refused"

    def _fix(self, facts: HostFacts) -> str:
        log = facts.kernel_log or ""
        if facts.prot_virt_guest:
            return "run the check on the host"
        if facts.command_line is not None and not kernel_enables(facts.command_line):
            return _ADD_PARAMETER
        if NOT_RESERVED.match(log):
            return "give the partition more memory (the storage lies above 2 GiB, in one piece), then reboot"
        if match := INIT_FAILED.search(log):
            return f"zseal explain 0x{match['rc']} --command INIT; then reboot, and report it to IBM if it stays"
        return "look for prot_virt: in the kernel's log (dmesg), then reboot"


class DonatedMemory(Check):
    """What the kernel's log reports about the memory given to the ultravisor."""

    id = "donated-memory"
    title = "Memory donated to the ultravisor"
    meaning = (
        "At boot the kernel gives the ultravisor a base storage that is lost to Linux; each protected guest takes "
        "more, out of vmalloc space, for its pages and CPUs."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``prot_virt:`` lines of the log."""
        if facts.kernel_log is None:
            return not_applicable("the kernel's log was not readable (dmesg needs root here)")
        if match := NOT_RESERVED.match(facts.kernel_log):
            return failed(
                f"the kernel could not reserve {int(match['bytes']) >> 20} MiB in one piece",
                "give the partition more memory, remove mem= and large crashkernel= reservations, then reboot",
            )
        if match := INIT_FAILED.search(facts.kernel_log):
            return failed(
                f"reserved, but the ultravisor did not start: {_codes(match)}",
                f"zseal explain 0x{match['rc']} --command INIT",
            )
        if match := RESERVED.match(facts.kernel_log):
            return passed(f"{match['mib']} MB of base storage")
        return not_applicable("the log contains no such message (it may have been overwritten since the boot)")


CHECKS: tuple[Check, ...] = (
    KernelVersion(),
    UvDirectory(),
    ProtVirtParameter(),
    ProtVirtReaders(),
    ProtVirtHost(),
    DonatedMemory(),
)
