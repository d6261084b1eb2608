"""Make a new minimal domain for a protected guest, in either style."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from zseal.arch.sclp import PROTECTED_CPU_LIMIT
from zseal.domain.model import Style
from zseal.errors import UsageError

MIN_MEMORY = 128 << 20
_MIB = 1 << 20
_DISK_FORMATS = ("qcow2", "raw")
MAX_DISKS = 26
MAX_DRIVER_QUEUES = 256
# libvirt refuses a slash and a line end in names; control characters cannot be in XML at all
_BAD_NAME = re.compile(r"[/\x00-\x1f\x7f]|^\s*$|^\.\.?$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclasses.dataclass(frozen=True)
class NewDisk:
    """A disk: a file or block device of the host, its format, and how many queues it gets (0: QEMU's default)."""

    path: str
    format: str = "qcow2"
    queues: int = 0

    @property
    def is_block(self) -> bool:
        """Whether it is a device of the host."""
        return self.path.startswith("/dev/")


@dataclasses.dataclass(frozen=True)
class NewDomain:
    """A domain to create. ``memory`` is in bytes; ``network`` is a libvirt network, "user", or None for no network.

    ``image`` is a sealed image to boot directly; without one the guest boots from the first disk.
    """

    name: str
    style: Style = Style.LAUNCH_SECURITY
    memory: int = 4 << 30
    vcpus: int = 2
    image: str | None = None
    disks: tuple[NewDisk, ...] = ()
    network: str | None = "default"
    bridge: str | None = None
    console: bool = True
    uuid: uuid.UUID | None = None

    def __post_init__(self) -> None:
        if _BAD_NAME.search(self.name):
            raise UsageError(f"{self.name!r} is not a valid domain name")
        if not 1 <= self.vcpus <= PROTECTED_CPU_LIMIT:
            raise UsageError(f"a protected guest can have 1 to {PROTECTED_CPU_LIMIT} processors, not {self.vcpus}")
        if self.memory < MIN_MEMORY or self.memory % (1 << 10):
            raise UsageError(f"the memory must be at least {MIN_MEMORY // _MIB} MiB, in whole KiB")
        if not self.image and not self.disks:
            raise UsageError("the guest has nothing to boot", hint="add an image or a disk")
        if len(self.disks) > MAX_DISKS:
            raise UsageError(f"at most {MAX_DISKS} disks")
        if self.style is Style.NONE:
            raise UsageError("the style must be launch-security or iommu")
        if self.style is Style.IOMMU and not self.disks and self.network is None and self.bridge is None:
            hint = "use launch-security, or add a disk"
            raise UsageError("the iommu style is an attribute of virtio devices, and the domain has none", hint=hint)
        for disk in self.disks:
            if disk.format not in _DISK_FORMATS:
                raise UsageError(f"unknown disk format {disk.format!r}", hint=f"use {' or '.join(_DISK_FORMATS)}")
            if not 0 <= disk.queues <= MAX_DRIVER_QUEUES:
                raise UsageError(f"a disk can have at most {MAX_DRIVER_QUEUES} queues")
        for text in (self.image, self.network, self.bridge, *(disk.path for disk in self.disks)):
            if text is not None and _CONTROL.search(text):
                raise UsageError(f"{text!r} has characters that XML cannot contain")


def parse_disk(text: str) -> NewDisk:
    """Read ``PATH[,format=qcow2|raw][,queues=N]``; block devices are raw. Raises UsageError."""
    path, *options = re.split(r",(?=(?:format|queues)=)", text)
    values = dict(option.split("=", 1) for option in options)
    queues = values.get("queues", "0")
    if not path or not queues.isdecimal() or len(queues) > 4:
        raise UsageError(f"invalid disk {text!r}: use PATH[,format=qcow2|raw][,queues=N]")
    default = "raw" if path.startswith("/dev/") or path.endswith((".raw", ".img")) else "qcow2"
    return NewDisk(path, values.get("format", default), int(queues))


def _memory_element(tag: str, size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size % (1 << shift) == 0:
            return f"<{tag} unit='{unit}'>{size >> shift}</{tag}>"
    raise UsageError("the memory must be in whole KiB")


def _attribute(value: str) -> str:
    quoted = quoteattr(value)
    return f"'{quoted[1:-1]}'" if quoted.startswith('"') and "'" not in value else quoted


def _disk(disk: NewDisk, index: int, iommu: str, boot: bool) -> Iterable[str]:
    kind, source = ("block", "dev") if disk.is_block else ("file", "file")
    queues = f" queues='{disk.queues}'" if disk.queues else ""
    yield f"<disk type='{kind}' device='disk'>"
    yield f"  <driver name='qemu' type='{disk.format}'{queues}{iommu}/>"
    yield f"  <source {source}={_attribute(disk.path)}/>"
    yield f"  <target dev='vd{chr(ord('a') + index)}' bus='virtio'/>"
    if boot:
        yield "  <boot order='1'/>"
    yield "</disk>"


def _interface(spec: NewDomain, covered: bool) -> Iterable[str]:
    if spec.bridge is not None:
        start, source = "<interface type='bridge'>", f"  <source bridge={_attribute(spec.bridge)}/>"
    elif spec.network == "user":
        start, source = "<interface type='user'>", ""
    else:
        start, source = "<interface type='network'>", f"  <source network={_attribute(spec.network or '')}/>"
    yield start
    if source:
        yield source
    yield "  <model type='virtio'/>"
    if covered:
        yield "  <driver iommu='on'/>"
    yield "</interface>"


def _devices(spec: NewDomain) -> Iterable[str]:
    covered = spec.style is Style.IOMMU
    for index, disk in enumerate(spec.disks):
        yield from _disk(disk, index, " iommu='on'" if covered else "", index == 0 and not spec.image)
    if spec.network is not None or spec.bridge is not None:
        yield from _interface(spec, covered)
    if spec.console:
        yield from ("<console type='pty'>", "  <target type='sclp' port='0'/>", "</console>")
    yield "<memballoon model='none'/>"


def _accepted(spec: NewDomain) -> Iterable[str]:
    """The advice that follows from the wishes, with what to do about it."""
    if spec.style is Style.IOMMU:
        yield "PV109 as requested: each device needs iommu, hot-plugged ones too"
    if spec.console:
        yield "PV612 the host can read and type on the console: disable logins there"
    if spec.disks:
        yield "PV615 Secure Execution does not encrypt disks: use LUKS in the guest"


def create_domain(spec: NewDomain) -> str:
    """Return the XML of a minimal domain; the same ``spec`` gives the same text."""
    kernel = [f"    <kernel>{escape(spec.image)}</kernel>"] if spec.image else []
    nosharepages = ["  <memoryBacking>", "    <nosharepages/>", "  </memoryBacking>"]
    lines = [
        "<domain type='kvm'>",
        *(f"  <!-- zseal:ignore {line} -->" for line in _accepted(spec)),
        f"  <name>{escape(spec.name)}</name>",
        *([f"  <uuid>{spec.uuid}</uuid>"] if spec.uuid else []),
        "  " + _memory_element("memory", spec.memory),
        "  " + _memory_element("currentMemory", spec.memory),
        *(nosharepages if spec.style is Style.IOMMU else []),
        f"  <vcpu placement='static'>{spec.vcpus}</vcpu>",
        "  <os>",
        "    <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>",
        *kernel,
        "  </os>",
        "  <cpu mode='host-model'/>",
        "  <on_crash>destroy</on_crash>",
        "  <devices>",
        *(f"    {line}" for line in _devices(spec)),
        "  </devices>",
        *(["  <launchSecurity type='s390-pv'/>"] if spec.style is Style.LAUNCH_SECURITY else []),
        "</domain>",
    ]
    return "\n".join(lines) + "\n"
