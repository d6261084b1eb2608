"""Rules that compare the domain with a host: PV801 to PV810. They need facts about it, or a target version."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.facts import TargetHost
from zseal.domain.model import Style
from zseal.domain.rules.interface import Context, Hit, Input, Safety, Severity, Table
from zseal.domain.versions import (
    ASYNC_TEARDOWN,
    IOMMU_ATTRIBUTE,
    LAUNCH_SECURITY_LIBVIRT,
    LAUNCH_SECURITY_QEMU,
    show,
)
from zseal.libvirt.capabilities import DomainCapabilities
from zseal.linux.cmdline import kata_enables, kernel_enables, libvirt_enables, spellings
from zseal.messages import bootloaders, libvirt, qemu

TABLE = Table(__name__)

EMULATION = "qemu"

_HOST_CHECK = "Run zseal host check on the host; it names the missing step."


def _uses_launch_security(ctx: Context) -> bool:
    return ctx.domain.style is Style.LAUNCH_SECURITY


def _capabilities(ctx: Context) -> DomainCapabilities | None:
    """libvirt's domain capabilities, None for those of QEMU's emulation, which say nothing about the host."""
    capabilities = ctx.host.capabilities if ctx.host is not None else None
    return None if capabilities is None or capabilities.virt_type == EMULATION else capabilities


@TABLE.rule(
    "PV801", Severity.ERROR, "libvirt does not offer s390-pv on the host",
    why="libvirt starts a domain with launchSecurity only if QEMU has the object s390-pv-guest and the host's kernel "
    "uses the ultravisor.",
    effect=f"'S390 {libvirt.HOST_NOT_READY.text}' (or: with this QEMU binary).",
    remedy=_HOST_CHECK, needs=[Input.HOST],
)  # fmt: skip
def _not_offered(ctx: Context) -> Iterator[Hit]:
    capabilities = _capabilities(ctx)
    if capabilities is not None and _uses_launch_security(ctx) and capabilities.s390_pv is False:
        if capabilities.unpack:
            reason = "the host offers unpack, so /sys/firmware is masked or QEMU is old; the iommu style can work"
        else:
            reason = "the host is not set up for protected guests, or libvirt's capabilities cache is stale"
        yield Hit(ctx.domain.launch_security[0], f"libvirt does not offer s390-pv on this host: {reason}")


@TABLE.rule(
    "PV802", Severity.ERROR, "the host's CPU model lacks unpack",
    why="QEMU adds the unpack facility to the host model only if KVM can run protected guests.",
    effect=f"QEMU ends with '{qemu.CPU_MODEL.text}', or the image's bootloader stops.",
    remedy=_HOST_CHECK, needs=[Input.HOST],
)  # fmt: skip
def _no_unpack(ctx: Context) -> Iterator[Hit]:
    capabilities = _capabilities(ctx)
    if capabilities is not None and not capabilities.unpack:
        cpu = ctx.root.find("cpu")
        yield Hit(cpu if cpu is not None else ctx.root, "the host does not offer the CPU feature unpack")


@TABLE.rule(
    "PV803", Severity.ERROR, "libvirt is too old for the domain",
    why=f"launchSecurity s390-pv needs libvirt {show(LAUNCH_SECURITY_LIBVIRT)}, iommu on drivers "
    f"{show(IOMMU_ATTRIBUTE)}, on vsock 7.1.0, and async-teardown {show(ASYNC_TEARDOWN)}.",
    effect="libvirt refuses the domain, or drops the element and starts the guest without it.",
    remedy="Upgrade libvirt, or run zseal domain convert --style iommu.",
    safety=Safety.ASK, command="", needs=[Input.VERSIONS],
)  # fmt: skip
def _libvirt(ctx: Context) -> Iterator[Hit]:
    version = ctx.target.libvirt
    if version is None:
        return
    have = f"libvirt {show(version)}"
    if _uses_launch_security(ctx):
        if version < LAUNCH_SECURITY_LIBVIRT:
            message = f"{have} does not support launchSecurity s390-pv: convert to the iommu style or upgrade"
            yield Hit(ctx.domain.launch_security[0], message)
    else:
        for device in ctx.domain.virtio:
            if device.covered and version < device.kind.iommu_since:
                message = f"{have} does not support iommu='on' on <{device.kind.tag}>"
                yield Hit(device.driver, f"{message}, {show(device.kind.iommu_since)} does")
    feature = ctx.root.find("features", "async-teardown")
    if feature is not None and version < ASYNC_TEARDOWN:
        yield Hit(feature, f"{have} does not support async-teardown, {show(ASYNC_TEARDOWN)} does")


@TABLE.rule(
    "PV804", Severity.ERROR, "QEMU is too old for launchSecurity",
    why=f"The object s390-pv-guest needs QEMU {show(LAUNCH_SECURITY_QEMU)}.",
    effect="libvirt refuses the domain: not supported with this QEMU binary.",
    remedy="Upgrade QEMU, or run zseal domain convert --style iommu.",
    safety=Safety.ASK, command="", needs=[Input.VERSIONS],
)  # fmt: skip
def _qemu(ctx: Context) -> Iterator[Hit]:
    if _uses_launch_security(ctx) and ctx.target.qemu is not None and ctx.target.qemu < LAUNCH_SECURITY_QEMU:
        message = f"QEMU {show(ctx.target.qemu)} does not have s390-pv-guest: convert to the iommu style or upgrade"
        yield Hit(ctx.domain.launch_security[0], message)


@TABLE.rule(
    "PV805", Severity.WARNING, "libvirt and the kernel disagree about the host",
    why="libvirt reads the kernel parameters, and QEMU asks KVM. They disagree if the ultravisor's initialisation "
    "failed, or if libvirt's capabilities cache is older than the last reboot.",
    effect="libvirt refuses domains although the host is ready, or accepts them although it is not.",
    remedy="If prot_virt_host is 1, run zseal host refresh-libvirt-cache. If it is 0, search the kernel log for "
    "'prot_virt'.",
    needs=[Input.HOST],
)  # fmt: skip
def _disagree(ctx: Context) -> Iterator[Hit]:
    host, capabilities = ctx.host, _capabilities(ctx)
    if host is None or capabilities is None:
        return
    if capabilities.s390_pv and not capabilities.unpack:
        reason = "the ultravisor failed to start, or the cache is stale"
        yield Hit(ctx.root, f"libvirt offers s390-pv but the host model lacks unpack: {reason}")
    elif host.prot_virt_host and capabilities.s390_pv is False:
        yield Hit(
            ctx.root,
            "the kernel can host protected guests but libvirt does not offer s390-pv: its capabilities cache is stale",
        )


@TABLE.rule(
    "PV806", Severity.ERROR, "the host cannot run protected guests",
    why="A host needs facility 158, a kernel with ultravisor support, prot_virt=1, and a started ultravisor.",
    effect=f"The guest does not start, or its bootloader stops: '{bootloaders.NO_UNPACK.text}'.",
    remedy=_HOST_CHECK, needs=[Input.HOST],
)  # fmt: skip
def _not_ready(ctx: Context) -> Iterator[Hit]:
    host = ctx.host
    if host is None or host.firmware_masked:
        return
    message = _missing(host)
    if message:
        yield Hit(ctx.root, message)


def _missing(host: TargetHost) -> str:
    """The first thing that is missing, in the order of the steps to set up a host."""
    if host.architecture not in (None, "s390x"):
        return f"the host is {host.architecture}: only IBM Z and LinuxONE (s390x) run protected guests in hardware"
    if host.facility is False:
        return "the machine does not offer facility 158: older than z15 or LinuxONE III, a nested guest, or not enabled"
    if host.facility and host.uv_directory is False:
        return "the host kernel does not support the ultravisor: /sys/firmware/uv is missing"
    if host.facility and host.command_line is not None and not kernel_enables(host.command_line):
        return "the host kernel runs without prot_virt=1"
    if host.prot_virt_host is False:
        return "prot_virt_host is 0: the ultravisor did not start on this host"
    return ""


@TABLE.rule(
    "PV807", Severity.WARNING, "a spelling of prot_virt= that programs read differently",
    why="The kernel, libvirt and Kata Containers each parse the parameter differently, and only the kernel's result "
    "counts.",
    effect="One of them takes the host for ready although it is not, or the other way round.",
    remedy="Write prot_virt=1 in the host's kernel parameters, and run zipl.",
    needs=[Input.HOST],
)  # fmt: skip
def _spelling(ctx: Context) -> Iterator[Hit]:
    line = ctx.host.command_line if ctx.host is not None else None
    if line is None:
        return
    verdicts = {"the kernel": kernel_enables(line), "libvirt": libvirt_enables(line), "Kata": kata_enables(line)}
    if len(set(verdicts.values())) > 1:
        readings = ", ".join(f"{program}: {'on' if on else 'off'}" for program, on in verdicts.items())
        yield Hit(ctx.root, f"{' '.join(spellings(line)) or 'prot_virt'} is read differently ({readings})")


@TABLE.rule(
    "PV808", Severity.ERROR, "more processors than the ultravisor allows",
    why="The ultravisor supports the number of processors in /sys/firmware/uv/query/max_cpus.",
    effect="The switch to protected mode fails.",
    remedy="Give the guest fewer processors.", needs=[Input.HOST],
)  # fmt: skip
def _processors(ctx: Context) -> Iterator[Hit]:
    limit = ctx.host.max_cpus if ctx.host is not None else None
    if limit is not None and ctx.domain.vcpus is not None and ctx.domain.vcpus > limit:
        message = f"{ctx.domain.vcpus} virtual processors, but the ultravisor allows {limit}"
        yield Hit(ctx.root.find("vcpu") or ctx.root, message)


@TABLE.rule(
    "PV809", Severity.WARNING, "the host was examined from a container",
    why="Unprivileged containers see an empty /sys/firmware, so every check of the ultravisor fails there.",
    effect="libvirt in the container refuses launchSecurity: 'not supported by this host or kernel'.",
    remedy="Run the check on the host; in such a container, use the iommu style.", needs=[Input.HOST],
)  # fmt: skip
def _container(ctx: Context) -> Iterator[Hit]:
    if ctx.host is not None and ctx.host.firmware_masked:
        yield Hit(ctx.root, "/sys/firmware is empty, as in a container, so lint cannot examine the ultravisor")


@TABLE.rule(
    "PV810", Severity.WARNING, "the capabilities are those of QEMU's emulation",
    why="libvirt has capabilities for each type of domain. Those of type qemu describe QEMU's emulation of s390x, "
    "not the "
    "host and its KVM.",
    effect="They do not show whether the host can run protected guests, and no rule judges the host by them.",
    remedy="Take the capabilities of type kvm: virsh domcapabilities --virttype kvm.",
    needs=[Input.HOST],
)  # fmt: skip
def _emulated(ctx: Context) -> Iterator[Hit]:
    capabilities = ctx.host.capabilities if ctx.host is not None else None
    if capabilities is not None and capabilities.virt_type == EMULATION:
        yield Hit(ctx.root, "the capabilities are those of type qemu, not of kvm: they say nothing about the host")
