"""Rules about uncovered virtio devices in the iommu style: PV201 to PV217. One row a kind of device."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import KINDS, VirtioDevice
from zseal.domain.document import Document
from zseal.domain.edits import Change, Edit, insert_child, replace_element, set_attributes
from zseal.domain.model import Domain, Style
from zseal.domain.rules.interface import Check, Context, Hit, Safety, Severity, Table

TABLE = Table()

DRIVER = "<driver iommu='on'/>"

_WHY = (
    "A protected guest shares only its bounce buffers with the host, so it accepts a virtio device only if QEMU offers "
    "VIRTIO_F_ACCESS_PLATFORM, which iommu='on' asks for."
)
_EFFECT = "The guest's kernel refuses the device: 'device must provide VIRTIO_F_ACCESS_PLATFORM'. {}"
_REMEDY = "Add <driver iommu='on'/> to the {}, or iommu='on' to the driver element it has."

_ROWS = {
    "PV201": ("The disk is missing; without its root disk the guest stops in its ramdisk.",
              "<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'/>\n"
              "  <source file='/images/b.qcow2'/>\n  <target dev='vdb' bus='virtio'/>\n</disk>"),
    "PV202": ("The guest has no network.", "<interface type='network'>\n  <source network='default'/>\n</interface>"),
    "PV203": ("All disks on the controller are missing.", "<controller type='scsi' index='0' model='virtio-scsi'/>"),
    "PV205": ("All channels and consoles on the controller are missing.",
              "<controller type='virtio-serial' index='0'/>"),
    "PV207": ("The guest has no /dev/hwrng.", "<rng model='virtio'>\n  <backend model='random'>/dev/urandom</backend>\n"
              "</rng>"),
    "PV208": ("The host can't read memory statistics. Ballooning itself does not work in any case (PV302).",
              "<memballoon model='virtio'/>"),
    "PV209": ("The guest has no vsock.", "<vsock model='virtio'>\n  <cid auto='yes'/>\n</vsock>"),
    "PV210": ("The share can't be mounted.", "<filesystem type='mount'>\n  <source dir='/srv/share'/>\n"
              "  <target dir='share'/>\n</filesystem>"),
    "PV211": ("The input device is missing.", "<input type='keyboard' bus='virtio'/>"),
    "PV212": ("The guest has no display.", "<video>\n  <model type='virtio'/>\n</video>"),
    "PV213": ("The guest has no virtio crypto device.", "<crypto model='virtio' type='qemu'>\n"
              "  <backend model='builtin'/>\n</crypto>"),
    "PV214": ("The guest has no sound.", "<sound model='virtio'/>"),
}  # fmt: skip


def cover(document: Document, device: VirtioDevice) -> Change:
    """The change that gives a device ``iommu='on'``, on its driver element or on a new one."""
    if device.driver is not None:
        return set_attributes(device.driver, iommu="on")
    # it stands best first in disks and the like, else behind what describes the device
    describing = list(device.element.all("mac", "source", "model", "backend", "cid"))
    first = device.kind.driver_first
    return insert_child(document, device.element, DRIVER, first=first, after=describing[-1] if describing else None)


def write_out(document: Document, domain: Domain) -> dict[str, Change]:
    """The changes that write out, covered, what libvirt would add; all devices of one rule in one change."""
    edits: dict[str, list[Edit]] = {}
    for device in domain.implicit:
        last = list(domain.devices.all("controller", device.cause.tag))[-1]
        edits.setdefault(device.rule, []).extend(insert_child(document, domain.devices, device.fragment, after=last))
    return {rule_id: Change(together) for rule_id, together in edits.items()}


def _check(rule_id: str) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        if ctx.domain.style is not Style.IOMMU:
            return
        for device in ctx.domain.virtio:
            # any other value is an attempt that PV219 explains
            if device.kind.rule == rule_id and device.iommu in ("", "off"):
                message = f"{device} has no iommu='on': a protected guest can't use it"
                if device.iommu == "off":
                    message = f"{device} has iommu='off': a protected guest can't use it"
                if rule_id == "PV208":
                    change = replace_element(ctx.document, device.element, "<memballoon model='none'/>")
                else:
                    change = cover(ctx.document, device)
                yield Hit(device.driver or device.element, message, change)

    return check


for _kind in KINDS:
    _effect, _example = _ROWS[_kind.rule]
    TABLE.rule(
        _kind.rule, Severity.ERROR, f"a virtio {_kind.noun} without iommu='on'", why=_WHY,
        effect=_EFFECT.format(_effect),
        remedy="Write <memballoon model='none'/>." if _kind.rule == "PV208" else _REMEDY.format(_kind.tag),
        safety=Safety.SAFE, example=_example,
    )(_check(_kind.rule))  # fmt: skip


def _implicit(rule_id: str) -> Check:
    def check(ctx: Context) -> Iterator[Hit]:
        if ctx.domain.style is not Style.IOMMU:
            return
        found = [device for device in ctx.domain.implicit if device.rule == rule_id]
        change = write_out(ctx.document, ctx.domain)[rule_id] if found else Change()
        for device in found:
            yield Hit(device.cause, f"libvirt will add {device.noun} without iommu='on'; write it out", change)

    return check


_IMPLICIT = (
    ("PV204", "an implicit SCSI controller",
     "A disk on the scsi bus, or a passed-through SCSI device, hangs on a virtio-scsi controller. Where the domain "
     "doesn't write that controller, libvirt adds one, without iommu='on'.",
     "All disks on the controller are missing.", "controller type='scsi' index='N' model='virtio-scsi'",
     "<disk type='file' device='disk'>\n  <source file='/images/b.qcow2'/>\n  <target dev='sda' bus='scsi'/>\n</disk>"),
    ("PV206", "an implicit virtio-serial controller",
     "Channels and consoles with a virtio target hang on a virtio-serial controller. Where the domain doesn't write "
     "it, libvirt adds one, without iommu='on'.",
     "The channels and consoles are missing.", "controller type='virtio-serial' index='0'",
     "<channel type='unix'>\n  <target type='virtio' name='org.example.0'/>\n</channel>"),
    ("PV217", "an implicit video device",
     "With <graphics> and no <video>, libvirt adds a virtio video device, without iommu='on'.",
     "The guest has no display.", "video", "<graphics type='vnc'/>"),
)  # fmt: skip

for _id, _title, _why, _effect, _element, _example in _IMPLICIT:
    TABLE.rule(
        _id, Severity.ERROR, _title, why=_why, effect=_EFFECT.format(_effect),
        remedy=f"Write <{_element}> with <driver iommu='on'/> in it.", safety=Safety.SAFE, example=_example,
    )(_implicit(_id))  # fmt: skip


@TABLE.rule(
    "PV216", Severity.ERROR, "virtio memory in the iommu style",
    why="libvirt has no iommu attribute for virtio-mem and virtio-pmem.",
    effect="The guest refuses the device, and QEMU refuses the switch while a device can discard memory.",
    remedy="Remove the memory device; protected guests have no memory hotplug.",
    example="<memory model='virtio-mem'>\n  <target>\n    <size unit='GiB'>2</size>\n    <block unit='MiB'>2</block>\n"
    "    <requested unit='GiB'>1</requested>\n  </target>\n</memory>",
)  # fmt: skip
def _memory(ctx: Context) -> Iterator[Hit]:
    if ctx.domain.style is Style.IOMMU:
        for element in ctx.domain.devices.all("memory"):
            if element.get("model") in ("virtio-mem", "virtio-pmem"):
                yield Hit(element, f"{element.get('model')} can't be covered and is unsupported for protected guests")
