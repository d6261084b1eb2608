"""Rules about virtio devices without iommu='on' in the iommu style: PV201 to PV217.

``_ROWS`` has one row for each kind of device: the rule for a device in the domain, and the rule for one that libvirt
adds. :func:`_uncovered` and :func:`_added_uncovered` are the checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from zseal.domain.devices import (
    BALLOON,
    CRYPTO,
    DISK,
    FILESYSTEM,
    INPUT,
    INTERFACE,
    RNG,
    SCSI_CONTROLLER,
    SERIAL_CONTROLLER,
    SOUND,
    VIDEO,
    VSOCK,
    ExplicitDevice,
    VirtioKind,
)  # fmt: skip
from zseal.domain.document import Document
from zseal.domain.edits import Change, Edit, insert_child, replace_element, set_attributes
from zseal.domain.model import Domain, Style
from zseal.domain.rules.interface import Check, Context, Hit, Safety, Severity, Table
from zseal.messages import guest_kernel

TABLE = Table(__name__)

DRIVER = "<driver iommu='on'/>"

_WHY = (
    "A protected guest shares only its bounce buffers with the host. It therefore accepts a virtio device only if QEMU "
    "offers VIRTIO_F_ACCESS_PLATFORM, which iommu='on' requests."
)
_EFFECT = f"The guest's kernel refuses the device: '{guest_kernel.NO_ACCESS_PLATFORM.text}'. {{}}"
_REMEDY = "Add <driver iommu='on'/> to the {}, or iommu='on' to its driver element."


def cover(document: Document, device: ExplicitDevice) -> Change:
    """The change that gives a device ``iommu='on'``, on its driver element or on a new one."""
    if device.driver is not None:
        return set_attributes(device.driver, iommu="on")
    # first in disks and the like, otherwise after the elements that describe the device
    describing = list(device.element.all("mac", "source", "model", "backend", "cid"))
    first = device.kind.driver_first
    return insert_child(document, device.element, DRIVER, first=first, after=describing[-1] if describing else None)


def write_out(document: Document, domain: Domain) -> dict[VirtioKind, Change]:
    """The changes that add, covered, the devices that libvirt would add; all devices of one kind in one change."""
    edits: dict[VirtioKind, list[Edit]] = {}
    for device in domain.implicit:
        last = list(domain.devices.all("controller", device.cause.tag))[-1]
        edits.setdefault(device.kind, []).extend(insert_child(document, domain.devices, device.fragment, after=last))
    return {kind: Change(together) for kind, together in edits.items()}


def _no_balloon(document: Document, device: ExplicitDevice) -> Change:
    return replace_element(document, device.element, "<memballoon model='none'/>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Added:
    """The rule for a device of the kind that libvirt adds; ``element`` is what the domain needs instead."""

    rule: str
    title: str
    why: str
    element: str
    example: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """The rules of one kind of device; ``effect`` is what the guest lacks when a device is not covered."""

    kind: VirtioKind
    rule: str
    effect: str
    example: str
    remedy: str = ""
    repair: Callable[[Document, ExplicitDevice], Change] = cover
    added: _Added | None = None


_ROWS = (
    _Row(
        kind=DISK, rule="PV201", effect="The guest does not see the disk; without its root disk it stops in its "
        "ramdisk.",
        example="<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'/>\n"
        "  <source file='/images/b.qcow2'/>\n  <target dev='vdb' bus='virtio'/>\n</disk>",
    ),
    _Row(
        kind=INTERFACE, rule="PV202", effect="The guest does not have a network.",
        example="<interface type='network'>\n  <source network='default'/>\n</interface>",
    ),
    _Row(
        kind=SCSI_CONTROLLER, rule="PV203", effect="The guest does not see any disk on the controller.",
        example="<controller type='scsi' index='0' model='virtio-scsi'/>",
        added=_Added(
            rule="PV204", title="an implicit SCSI controller",
            why="A disk on the scsi bus or a passed-through SCSI device needs a virtio-scsi controller. If the "
            "domain does not contain one, libvirt adds it without iommu='on'.",
            element="controller type='scsi' index='N' model='virtio-scsi'",
            example="<disk type='file' device='disk'>\n  <source file='/images/b.qcow2'/>\n"
            "  <target dev='sda' bus='scsi'/>\n</disk>",
        ),
    ),
    _Row(
        kind=SERIAL_CONTROLLER, rule="PV205", effect="The guest does not see any channel or console on the controller.",
        example="<controller type='virtio-serial' index='0'/>",
        added=_Added(
            rule="PV206", title="an implicit virtio-serial controller",
            why="Channels and consoles with a virtio target need a virtio-serial controller. If the domain does not "
            "contain one, libvirt adds it without iommu='on'.",
            element="controller type='virtio-serial' index='0'",
            example="<channel type='unix'>\n  <target type='virtio' name='org.example.0'/>\n</channel>",
        ),
    ),
    _Row(
        kind=RNG, rule="PV207", effect="The guest does not have /dev/hwrng.",
        example="<rng model='virtio'>\n  <backend model='random'>/dev/urandom</backend>\n</rng>",
    ),
    _Row(
        kind=BALLOON, rule="PV208", repair=_no_balloon, remedy="Write <memballoon model='none'/>.",
        effect="The host cannot read memory statistics. Ballooning itself never works (PV302).",
        example="<memballoon model='virtio'/>",
    ),
    _Row(
        kind=VSOCK, rule="PV209", effect="The guest does not have a vsock.",
        example="<vsock model='virtio'>\n  <cid auto='yes'/>\n</vsock>",
    ),
    _Row(
        kind=FILESYSTEM, rule="PV210", effect="The guest cannot mount the share.",
        example="<filesystem type='mount'>\n  <source dir='/srv/share'/>\n  <target dir='share'/>\n</filesystem>",
    ),
    _Row(
        kind=INPUT, rule="PV211", effect="The guest does not see the input device.",
        example="<input type='keyboard' bus='virtio'/>",
    ),
    _Row(
        kind=VIDEO, rule="PV212", effect="The guest does not have a display.",
        example="<video>\n  <model type='virtio'/>\n</video>",
        added=_Added(
            rule="PV217", title="an implicit video device",
            why="If a domain has <graphics> but no <video>, libvirt adds a virtio video device without iommu='on'.",
            element="video", example="<graphics type='vnc'/>",
        ),
    ),
    _Row(
        kind=CRYPTO, rule="PV213", effect="The guest does not have a crypto device.",
        example="<crypto model='virtio' type='qemu'>\n  <backend model='builtin'/>\n</crypto>",
    ),
    _Row(kind=SOUND, rule="PV214", effect="The guest does not have sound.", example="<sound model='virtio'/>"),
)  # fmt: skip


def _uncovered(row: _Row) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        for device in ctx.domain.virtio:
            # any other value is an attempt that PV219 explains
            if device.kind is row.kind and device.iommu in ("", "off"):
                state = "has iommu='off'" if device.iommu else "has no iommu='on'"
                message = f"{device} {state}: a protected guest cannot use it"
                yield Hit(device.driver or device.element, message, row.repair(ctx.document, device))

    return check


def _added_uncovered(kind: VirtioKind) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        found = [device for device in ctx.domain.implicit if device.kind is kind]
        change = write_out(ctx.document, ctx.domain)[kind] if found else Change()
        for device in found:
            yield Hit(device.cause, f"libvirt adds {device.noun} without iommu='on'; add it yourself", change)

    return check


for _row in _ROWS:
    TABLE.rule(
        _row.rule, Severity.ERROR, f"a virtio {_row.kind.noun} without iommu='on'", why=_WHY,
        effect=_EFFECT.format(_row.effect), remedy=_row.remedy or _REMEDY.format(_row.kind.tag),
        style=Style.IOMMU, safety=Safety.SAFE, example=_row.example,
    )(_uncovered(_row))  # fmt: skip
    if _row.added is not None:
        TABLE.rule(
            _row.added.rule, Severity.ERROR, _row.added.title, why=_row.added.why, effect=_EFFECT.format(_row.effect),
            remedy=f"Add <{_row.added.element}> with <driver iommu='on'/> in it.",
            style=Style.IOMMU, safety=Safety.SAFE, example=_row.added.example,
        )(_added_uncovered(_row.kind))  # fmt: skip


@TABLE.rule(
    "PV216", Severity.ERROR, "virtio memory in the iommu style",
    why="libvirt does not have an iommu attribute for virtio-mem and virtio-pmem.",
    effect="The guest refuses the device, and QEMU refuses the switch to protected mode while a device can discard "
    "memory.",
    remedy="Remove the memory device; protected guests do not support memory hotplug.",
    style=Style.IOMMU,
    example="<memory model='virtio-mem'>\n  <target>\n    <size unit='GiB'>2</size>\n    <block unit='MiB'>2</block>\n"
    "    <requested unit='GiB'>1</requested>\n  </target>\n</memory>",
)  # fmt: skip
def _memory(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.devices.all("memory"):
        if element.get("model") in ("virtio-mem", "virtio-pmem"):
            yield Hit(element, f"{element.get('model')} cannot be covered and does not work in protected guests")
