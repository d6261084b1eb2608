"""Checks of the machine: architecture, partition, generation, and the firmware feature itself."""

from __future__ import annotations

from zseal.arch.facilities import Facility
from zseal.readiness.checks.interface import Check, Judgement, failed, not_applicable, passed, warned
from zseal.readiness.cpuinfo import MACHINE_MODELS
from zseal.readiness.facts import HostFacts


class Architecture(Check):
    """Whether this is the right kind of computer."""

    id = "architecture"
    title = "IBM Z or LinuxONE"
    meaning = "Protected guests run on real hardware only on IBM Z and LinuxONE, architecture s390x."
    only_ibm_z = False

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``uname``."""
        if facts.is_s390x:
            return passed("s390x")
        if facts.architecture is None:
            return failed("the architecture is not known", "give a capture with commands/uname.out, or run on the host")
        return failed(
            f"{facts.architecture}: this is not an IBM Z",
            "use an IBM Z or LinuxONE machine for real protection, or zseal run on this one to build, test and learn",
        )


class Partition(Check):
    """Whether Linux owns the ultravisor or is a guest itself."""

    id = "partition"
    title = "Linux in a logical partition"
    meaning = (
        "Only Linux directly in an LPAR (or DPM partition) can host protected guests: neither z/VM nor KVM passes on "
        "the ultravisor call facility, so there is no nesting."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``VM00`` block of ``/proc/sysinfo``."""
        if facts.prot_virt_guest:
            return failed(
                "this system is itself a protected guest", "run the check on the LPAR that hosts it, not in the guest"
            )
        if facts.system is None:
            return not_applicable("/proc/sysinfo cannot be read")
        program = facts.system.control_program
        if program is None:
            name = f" {facts.system.lpar_name}" if facts.system.lpar_name else ""
            return passed(f"logical partition{name}")
        return failed(f"a guest of {program}", "install the host in an LPAR or DPM partition of its own")


class MachineType(Check):
    """The generation, by the four-digit type."""

    id = "machine-type"
    title = "Machine generation"
    meaning = "Secure Execution came with z15 and LinuxONE III; attestation, dumps and secrets came with z16."

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the machine type of ``/proc/cpuinfo``, or of ``/proc/sysinfo``."""
        if facts.machine is None:
            return not_applicable("neither /proc/cpuinfo nor /proc/sysinfo names a machine type")
        model = MACHINE_MODELS.get(facts.machine)
        if model is not None and model.capable:
            return passed(f"{facts.machine}, {model.name}")
        if model is not None:
            return failed(
                f"{facts.machine}, {model.name}: older than Secure Execution",
                "use a z15, LinuxONE III or newer machine; zseal run tries images without one",
            )
        # facility 158 decides, so that a machine newer than this program is not refused
        return warned(f"{facts.machine}: a type this version of zseal does not know; facility 158 decides")


class UltravisorFacility(Check):
    """The firmware feature on which everything else depends."""

    id = "facility-158"
    title = "Ultravisor call facility"
    meaning = (
        "Facility 158 is installed if the machine has Secure Execution and its feature code is enabled for this "
        "partition. virt-host-validate checks it first."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``facilities`` line of ``/proc/cpuinfo``."""
        facilities = facts.cpu.facilities if facts.cpu else None
        if facilities is None:
            return not_applicable("/proc/cpuinfo has no facilities line: it is cut off or not of this architecture")
        if Facility.ULTRAVISOR_CALL in facilities:
            return passed("facility 158 is installed")
        extra = (
            " (facility 161 is: this is a guest whose hypervisor offers protected mode to it)"
            if Facility.UNPACK in facilities
            else ""
        )
        return failed(
            f"facility 158 is not in /proc/cpuinfo{extra}",
            "have the Secure Execution feature code installed and enabled for this machine, "
            "then activate the partition again",
        )


CHECKS: tuple[Check, ...] = (Architecture(), Partition(), MachineType(), UltravisorFacility())
