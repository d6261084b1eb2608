"""Rules about virtio devices without iommu='on' in the iommu style: PV201 to PV217.

``_ROWS`` has one row for each kind of device: the rule for one that the domain writes, and the rule for one that
libvirt adds by itself. :func:`_uncovered` and :func:`_added_uncovered` are the checks.
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
    "A protected guest shares only its bounce buffers with the host, so it accepts a virtio device only if QEMU offers "
    "VIRTIO_F_ACCESS_PLATFORM, which iommu='on' asks for."
)
_EFFECT = f"The guest's kernel refuses the device: '{guest_kernel.NO_ACCESS_PLATFORM.text}'. {{}}"
_REMEDY = "Add <driver iommu='on'/> to the {}, or iommu='on' to the driver element it has."


def cover(document: Document, device: ExplicitDevice) -> Change:
    """The change that gives a device ``iommu='on'``, on its driver element or on a new one."""
    if device.driver is not None:
        return set_attributes(device.driver, iommu="on")
    # it stands best first in disks and the like, else behind what describes the device
    describing = list(device.element.all("mac", "source", "model", "backend", "cid"))
    first = device.kind.driver_first
    return insert_child(document, device.element, DRIVER, first=first, after=describing[-1] if describing else None)


def write_out(document: Document, domain: Domain) -> dict[VirtioKind, Change]:
    """The changes that write out, covered, what libvirt would add; all devices of one kind in one change."""
    edits: dict[VirtioKind, list[Edit]] = {}
    for device in domain.implicit:
        last = list(domain.devices.all("controller", device.cause.tag))[-1]
        edits.setdefault(device.kind, []).extend(insert_child(document, domain.devices, device.fragment, after=last))
    return {kind: Change(together) for kind, together in edits.items()}


def _no_balloon(document: Document, device: ExplicitDevice) -> Change:
    return replace_element(document, device.element, "<memballoon model='none'/>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Added:
    """The rule for a device of the kind that libvirt adds by itself; ``element`` is what to write instead."""

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
        kind=DISK, rule="PV201", effect="The disk is missing; without its root disk the guest stops in its ramdisk.",
        example="<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'/>\n"
        "  <source file='/images/b.qcow2'/>\n  <target dev='vdb' bus='virtio'/>\n</disk>",
    ),
    _Row(
        kind=INTERFACE, rule="PV202", effect="The guest has no network.",
        example="<interface type='network'>\n  <source network='default'/>\n</interface>",
    ),
    _Row(
        kind=SCSI_CONTROLLER, rule="PV203", effect="All disks on the controller are missing.",
        example="<controller type='scsi' index='0' model='virtio-scsi'/>",
        added=_Added(
            rule="PV204", title="an implicit SCSI controller",
            why="A disk on the scsi bus, or a passed-through SCSI device, hangs on a virtio-scsi controller. Where the "
            "domain doesn't write that controller, libvirt adds one, without iommu='on'.",
            element="controller type='scsi' index='N' model='virtio-scsi'",
            example="<disk type='file' device='disk'>\n  <source file='/images/b.qcow2'/>\n"
            "  <target dev='sda' bus='scsi'/>\n</disk>",
        ),
    ),
    _Row(
        kind=SERIAL_CONTROLLER, rule="PV205", effect="All channels and consoles on the controller are missing.",
        example="<controller type='virtio-serial' index='0'/>",
        added=_Added(
            rule="PV206", title="an implicit virtio-serial controller",
            why="Channels and consoles with a virtio target hang on a virtio-serial controller. Where the domain "
            "doesn't write it, libvirt adds one, without iommu='on'.",
            element="controller type='virtio-serial' index='0'",
            example="<channel type='unix'>\n  <target type='virtio' name='org.example.0'/>\n</channel>",
        ),
    ),
    _Row(
        kind=RNG, rule="PV207", effect="The guest has no /dev/hwrng.",
        example="<rng model='virtio'>\n  <backend model='random'>/dev/urandom</backend>\n</rng>",
    ),
    _Row(
        kind=BALLOON, rule="PV208", repair=_no_balloon, remedy="Write <memballoon model='none'/>.",
        effect="The host can't read memory statistics. Ballooning itself does not work in any case (PV302).",
        example="<memballoon model='virtio'/>",
    ),
    _Row(
        kind=VSOCK, rule="PV209", effect="The guest has no vsock.",
        example="<vsock model='virtio'>\n  <cid auto='yes'/>\n</vsock>",
    ),
    _Row(
        kind=FILESYSTEM, rule="PV210", effect="The share can't be mounted.",
        example="<filesystem type='mount'>\n  <source dir='/srv/share'/>\n  <target dir='share'/>\n</filesystem>",
    ),
    _Row(
        kind=INPUT, rule="PV211", effect="The input device is missing.",
        example="<input type='keyboard' bus='virtio'/>",
    ),
    _Row(
        kind=VIDEO, rule="PV212", effect="The guest has no display.",
        example="<video>\n  <model type='virtio'/>\n</video>",
        added=_Added(
            rule="PV217", title="an implicit video device",
            why="With <graphics> and no <video>, libvirt adds a virtio video device, without iommu='on'.",
            element="video", example="<graphics type='vnc'/>",
        ),
    ),
    _Row(
        kind=CRYPTO, rule="PV213", effect="The guest has no virtio crypto device.",
        example="<crypto model='virtio' type='qemu'>\n  <backend model='builtin'/>\n</crypto>",
    ),
    _Row(kind=SOUND, rule="PV214", effect="The guest has no sound.", example="<sound model='virtio'/>"),
)  # fmt: skip


def _uncovered(row: _Row) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        for device in ctx.domain.virtio:
            # any other value is an attempt that PV219 explains
            if device.kind is row.kind and device.iommu in ("", "off"):
                state = "has iommu='off'" if device.iommu else "has no iommu='on'"
                message = f"{device} {state}: a protected guest can't use it"
                yield Hit(device.driver or device.element, message, row.repair(ctx.document, device))

    return check


def _added_uncovered(kind: VirtioKind) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        found = [device for device in ctx.domain.implicit if device.kind is kind]
        change = write_out(ctx.document, ctx.domain)[kind] if found else Change()
        for device in found:
            yield Hit(device.cause, f"libvirt will add {device.noun} without iommu='on'; write it out", change)

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
            remedy=f"Write <{_row.added.element}> with <driver iommu='on'/> in it.",
            style=Style.IOMMU, safety=Safety.SAFE, example=_row.added.example,
        )(_added_uncovered(_row.kind))  # fmt: skip


@TABLE.rule(
    "PV216", Severity.ERROR, "virtio memory in the iommu style",
    why="libvirt has no iommu attribute for virtio-mem and virtio-pmem.",
    effect="The guest refuses the device, and QEMU refuses the switch while a device can discard memory.",
    remedy="Remove the memory device; protected guests have no memory hotplug.",
    style=Style.IOMMU,
    example="<memory model='virtio-mem'>\n  <target>\n    <size unit='GiB'>2</size>\n    <block unit='MiB'>2</block>\n"
    "    <requested unit='GiB'>1</requested>\n  </target>\n</memory>",
)  # fmt: skip
def _memory(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.devices.all("memory"):
        if element.get("model") in ("virtio-mem", "virtio-pmem"):
            yield Hit(element, f"{element.get('model')} can't be covered and is unsupported for protected guests")
