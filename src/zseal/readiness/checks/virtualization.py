"""Checks of QEMU and libvirt: versions, abilities, and whether libvirt's cached answers still match the host."""

from __future__ import annotations

import re

from zseal.libvirt.capabilities import CachedEmulator
from zseal.linux.cmdline import libvirt_enables
from zseal.readiness.checks.interface import Check, Judgement, failed, not_applicable, passed, warned
from zseal.readiness.checks.kernel import has_facility
from zseal.readiness.facts import HostFacts, Version, find_version

REFRESH = "zseal host refresh-libvirt-cache"
_OBJECT = "s390-pv-guest"
_QEMU_MINIMUM = Version(5, 1)
_QEMU_LAUNCH_SECURITY = Version(6, 0)
_LIBVIRT_LAUNCH_SECURITY = Version(7, 6)
_LIBVIRT_REFRESHES = Version(6, 5)
_VALIDATE_LINE = re.compile(r"Checking for secure guest support\s*:\s*(\S+)(?:\s*\((.*)\))?")


class QemuVersion(Check):
    """The version of QEMU."""

    id = "qemu-version"
    title = "QEMU"
    meaning = "QEMU can start protected guests since 5.1; the object for <launchSecurity> came with 6.0."

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``qemu-system-s390x --version``."""
        answer = facts.qemu
        if answer is None:
            return not_applicable("QEMU was not checked")
        if not answer.installed:
            return failed(
                "QEMU is not installed", "install qemu-system-s390x (qemu-kvm on Red Hat, qemu-system-misc on Debian)"
            )
        version = find_version(answer.stdout)
        if version is None:
            return warned("QEMU does not print its version")
        if version < _QEMU_MINIMUM:
            return failed(f"QEMU {version} is older than 5.1", "update QEMU")
        if version < _QEMU_LAUNCH_SECURITY:
            return warned(
                f"QEMU {version} does not support <launchSecurity>",
                "update to 6.0, or write iommu='on' on every virtio device (zseal domain convert --style iommu)",
            )
        return passed(f"QEMU {version}")


class QemuObject(Check):
    """Whether the QEMU build has the object itself."""

    id = "qemu-pv-object"
    title = "QEMU's protected-guest object"
    meaning = f"<launchSecurity> becomes QEMU's object {_OBJECT}, which only s390x builds with KVM contain."

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``qemu-system-s390x -object help``."""
        answer = facts.qemu_objects
        if answer is None or not answer.installed:
            return not_applicable("QEMU was not checked")
        if _OBJECT in answer.stdout.split():
            return passed(f"{_OBJECT} is built in")
        if not answer.stdout.strip():
            return not_applicable("QEMU did not list its objects")
        version = find_version(facts.qemu.stdout) if facts.qemu else None
        if version is not None and version < _QEMU_LAUNCH_SECURITY:
            return not_applicable("it came with QEMU 6.0")
        return failed(f"{_OBJECT} is not in this build", "install the distribution's s390x build of QEMU, 6.0 or newer")


class LibvirtVersion(Check):
    """The version of libvirt."""

    id = "libvirt-version"
    title = "libvirt"
    meaning = (
        "libvirt knows <launchSecurity type='s390-pv'/> since 7.6.0 and notices a host that became able to run "
        "protected guests by itself since 6.5.0."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``virsh --version``."""
        answer = facts.libvirt
        if answer is None:
            return not_applicable("virsh was not checked")
        if not answer.installed:
            return warned(
                "virsh is not installed: the checks of libvirt are skipped",
                "install libvirt's client, unless guests are started by other means",
            )
        version = find_version(answer.stdout)
        if version is None:
            return warned("virsh does not print its version")
        if version < _LIBVIRT_LAUNCH_SECURITY:
            return warned(
                f"libvirt {version} knows no <launchSecurity type='s390-pv'/>",
                "update to 7.6.0, or write iommu='on' on every virtio device (zseal domain convert --style iommu)",
            )
        return passed(f"libvirt {version}")


def _no_capabilities(facts: HostFacts) -> Judgement:
    problem = facts.domain_capabilities_problem
    if problem is None:
        return not_applicable("virsh domcapabilities was not checked")
    if facts.libvirt is not None and not facts.libvirt.installed:
        return not_applicable(problem)
    if "'kvm' is not supported" in problem:
        return failed(f"libvirt finds no KVM: {problem}", "see the check kvm, then restart libvirt's daemon")
    return warned(
        f"libvirt did not answer: {problem}",
        "start its daemon (systemctl start virtqemud.socket or libvirtd), or run the check as root",
    )


def _blame(facts: HostFacts) -> str:
    """Return what to do about an answer that denies protected guests."""
    if facts.prot_virt_host:
        return f"the host is ready, so libvirt remembers an older answer: {REFRESH}"
    if facts.firmware_masked:
        return "let libvirt's daemon see /sys/firmware, or use the iommu style"
    return f"make the host ready first (the checks above), then {REFRESH}"


class LaunchSecurity(Check):
    """Whether libvirt accepts the element."""

    id = "launch-security"
    title = "libvirt's s390-pv support"
    meaning = (
        "libvirt refuses <launchSecurity type='s390-pv'/> unless it considers the host ready: QEMU has the object, the "
        "machine has the facility, and the kernel parameters turn it on."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``features/s390-pv`` and the listed security types."""
        capabilities = facts.domain_capabilities
        if capabilities is None:
            return _no_capabilities(facts)
        types = capabilities.security_types
        if capabilities.s390_pv:
            listed = "" if types is None else f", launchSecurity types: {', '.join(types) or 'none'}"
            return passed(f"s390-pv is supported{listed}")
        if capabilities.s390_pv is None:
            return warned(
                "libvirt is too old to say", "update libvirt to 7.6.0 or newer; until then the iommu style works"
            )
        if capabilities.unpack:
            return warned("s390-pv is not supported, though QEMU offers unpack: the iommu style works", _blame(facts))
        return failed("s390-pv is not supported", _blame(facts))


class Unpack(Check):
    """The CPU feature that a guest needs to enter protected mode."""

    id = "unpack"
    title = "unpack in the host CPU model"
    meaning = (
        "A guest enters protected mode through the CPU feature unpack (facility 161). QEMU adds it to the host model "
        "only while KVM offers protection."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the features that the host model requires."""
        capabilities = facts.domain_capabilities
        if capabilities is None:
            return _no_capabilities(facts)
        if capabilities.unpack:
            return passed(f"required by the host model {capabilities.host_model or ''}".rstrip())
        if capabilities.host_model is None:
            return failed("the host CPU model is not supported with KVM", "see the check kvm")
        return failed(f"not in the host model {capabilities.host_model}", _blame(facts))


class CapabilitiesCache(Check):
    """A frequent trap: libvirt answers with what it learnt before the host became ready."""

    id = "capabilities-cache"
    title = "libvirt's capabilities cache"
    meaning = (
        "libvirt stores what it learnt about QEMU and the host in files. After prot_virt=1 was added, or the "
        "ultravisor failed at one boot and not at the next, it may still answer from them."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Compare the cached entries, and libvirt's present answer, with what the kernel says now."""
        if facts.cache is None:
            return self._without_files(facts)
        if not facts.cache:
            return passed("no cached description of an s390x QEMU: libvirt will probe it")
        problems = [text for entry in facts.cache for text in self._differences(facts, entry)]
        if not problems:
            return passed(f"{len(facts.cache)} cached description(s) agree with the host")
        found = "; ".join(problems)
        if self._answers_wrongly(facts):
            return failed(f"stale: {found}", REFRESH)
        return warned(f"out of date, but libvirt's present answer is right: {found}", f"{REFRESH} cleans up")

    def _without_files(self, facts: HostFacts) -> Judgement:
        if self._answers_wrongly(facts):
            return failed("libvirt's answer contradicts the kernel (the cache files are not readable here)", REFRESH)
        return not_applicable("the cache is not readable (it belongs to root), or libvirt was never asked")

    @staticmethod
    def _answers_wrongly(facts: HostFacts) -> bool:
        capabilities = facts.domain_capabilities
        if capabilities is None or facts.prot_virt_host is None:
            return False
        said = capabilities.unpack if capabilities.s390_pv is None else capabilities.unpack and capabilities.s390_pv
        return said != facts.prot_virt_host

    @staticmethod
    def _differences(facts: HostFacts, entry: CachedEmulator) -> list[str]:
        problems = []
        if has_facility(facts) is not None and facts.command_line is not None:
            live = bool(has_facility(facts) and facts.uv_directory) and libvirt_enables(facts.command_line)
            if entry.secure_guest != live:
                problems.append(
                    f"{entry.file} {'has' if entry.secure_guest else 'lacks'} libvirt's mark of a host for protected "
                    f"guests, which this host {'deserves' if live else 'does not deserve'}"
                )
        if entry.unpack is not None and facts.prot_virt_host is not None and entry.unpack != facts.prot_virt_host:
            problems.append(
                f"{entry.file} says {'unpack' if entry.unpack else 'no unpack'}, while prot_virt_host is "
                f"{int(facts.prot_virt_host)}"
            )
        if problems and entry.kernel and facts.kernel_identity and entry.kernel != facts.kernel_identity:
            problems.append("it was made under another kernel")
        version = entry.libvirt_version
        if problems and version and Version(version // 1_000_000, version // 1000 % 1000) < _LIBVIRT_REFRESHES:
            problems.append("libvirt before 6.5.0 does not notice this by itself")
        return problems


class HostValidate(Check):
    """libvirt's own host check."""

    id = "virt-host-validate"
    title = "virt-host-validate"
    meaning = (
        "libvirt's own check, which IBM's manual asks for. It does not read prot_virt_host, so its PASS is not proof."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the line on secure guest support; the exit status does not show it."""
        answer = facts.host_validate
        if answer is None or not answer.installed:
            return not_applicable("virt-host-validate is not installed, or was not run")
        match = _VALIDATE_LINE.search(answer.stdout)
        if match is None:
            return not_applicable("it has no line on secure guest support: libvirt before 6.5.0")
        verdict, reason = match[1], match[2]
        if verdict == "PASS":
            if facts.prot_virt_host is False:
                return warned("PASS, although prot_virt_host is 0", "trust prot-virt-host")
            return passed("PASS")
        return warned(f"{verdict}: {reason or 'no reason given'}", "see the checks above, which are more thorough")


CHECKS: tuple[Check, ...] = (
    QemuVersion(),
    QemuObject(),
    LibvirtVersion(),
    LaunchSecurity(),
    Unpack(),
    CapabilitiesCache(),
    HostValidate(),
)
