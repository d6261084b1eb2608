"""Rules about driver options and models that do not do what they seem to: PV218 to PV224, in both styles."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import ExplicitDevice
from zseal.domain.document import Element
from zseal.domain.edits import Change, Edit, remove_attributes, remove_element, remove_elements, set_attributes
from zseal.domain.model import Style
from zseal.domain.rules.coverage import cover
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.rules.protection import drop_iommu
from zseal.domain.s390x import PCI_ONLY
from zseal.messages import libvirt, qemu

TABLE = Table(__name__)

PCI_OPTIONS = ("ats", "page_per_vq")
PCI_MODELS = ("virtio-transitional", "virtio-non-transitional")


def _device_of(element: Element) -> Element:
    """The device (the child of ``<devices>``) that the element is or belongs to."""
    while element.parent is not None and element.parent.tag != "devices":
        element = element.parent
    return element


def _drivers(ctx: Context) -> Iterator[tuple[Element, Element]]:
    for device in ctx.domain.devices.children:
        for driver in device.all("driver"):
            yield device, driver


@TABLE.rule(
    "PV218", Severity.ERROR, "iommu on a device that is not virtio",
    why="Only virtio devices have this option. A SCSI disk is attached to a controller, and the controller is the "
    "virtio device.",
    effect=f"libvirt refuses the domain: '{libvirt.IOMMU_NOT_VIRTIO.text}'.",
    remedy="Remove the attribute, and add <driver iommu='on'/> to the controller.",
    safety=Safety.SAFE, caught_by=CaughtBy.LIBVIRT,
    example="<disk type='file' device='disk'>\n  <driver name='qemu' iommu='on'/>\n  <source file='/images/b.qcow2'/>\n"
    "  <target dev='sda' bus='scsi'/>\n</disk>",
)  # fmt: skip
def _not_virtio(ctx: Context) -> Iterator[Hit]:
    virtio = {device.element for device in ctx.domain.virtio}
    for device, driver in _drivers(ctx):
        none = device.get("model") == "none"  # libvirt accepts it there and ignores it
        if driver.get("iommu") and device not in virtio and not none:
            message = f"iommu is not allowed on this {device.tag}: it is not a virtio device"
            yield Hit(driver, message, drop_iommu(driver))


@TABLE.rule(
    "PV219", Severity.ERROR, "an iommu value that is neither on nor off",
    why="The attribute can be on or off.",
    effect="libvirt refuses the domain: invalid value for attribute iommu.",
    remedy="Write iommu='on'.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT,
    example="<interface type='network'>\n  <source network='default'/>\n  <driver iommu='yes'/>\n</interface>",
)  # fmt: skip
def _value(ctx: Context) -> Iterator[Hit]:
    for _, driver in _drivers(ctx):
        if "iommu" in driver.attributes and driver.get("iommu") not in ("on", "off"):
            message = f"iommu={driver.get('iommu')!r} is not a valid value, use 'on'"
            yield Hit(driver, message, set_attributes(driver, iommu="on"))


@TABLE.rule(
    "PV220", Severity.ERROR, "iommu on an element other than driver",
    why="libvirt reads the attribute only from the device's <driver> element.",
    effect="libvirt defines the domain and ignores the attribute, so the device is not covered.",
    remedy="Move it to the <driver> element.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA,
    example="<disk type='file' device='disk' iommu='on'>\n  <source file='/images/b.qcow2'/>\n"
    "  <target dev='vdb' bus='virtio'/>\n</disk>",
)  # fmt: skip
def _wrong_element(ctx: Context) -> Iterator[Hit]:
    virtio = {device.element: device for device in ctx.domain.virtio}
    for element in ctx.domain.devices.walk():
        direct_driver = element.tag == "driver" and element.parent is _device_of(element)
        if "iommu" in element.attributes and not direct_driver:
            change = [*remove_attributes(element, "iommu")]
            device = virtio.get(_device_of(element))
            wanted = element.get("iommu") == "on" and ctx.domain.style is Style.IOMMU
            if wanted and device is not None and not device.iommu:
                change += _cover_beside(ctx, device, element)
            yield Hit(element, f"iommu is ignored on {element.name}; it belongs on driver", Change(change))


def _cover_beside(ctx: Context, device: ExplicitDevice, element: Element) -> Change:
    """Cover the device in the same change as ``element``'s tag, unless both edit the same text."""
    if device.driver is None and device.element.empty_tag and device.element is element:
        return Change()  # the device's own rule adds the driver in the next round
    return cover(ctx.document, device)


@TABLE.rule(
    "PV221", Severity.ERROR, "two driver elements in one device",
    why="libvirt reads only the first <driver> of each device.",
    effect="libvirt defines the domain and ignores the second one, so iommu='on' there does not cover the device.",
    remedy="Merge them into one element.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA,
    example="<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'/>\n  <driver iommu='on'/>\n"
    "  <source file='/images/b.qcow2'/>\n  <target dev='vdb' bus='virtio'/>\n</disk>",
)  # fmt: skip
def _two_drivers(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        drivers = list(device.all("driver"))
        if len(drivers) > 1:
            yield Hit(drivers[1], "libvirt reads only the first driver element; merge them", _merge(ctx, drivers))


def _merge(ctx: Context, drivers: list[Element]) -> Change:
    """Move what the first driver lacks from later ones into it; nothing if both have children."""
    first, *others = drivers
    attributes: dict[str, str] = {}
    donors = [driver for driver in others if driver.children]
    if donors and (first.children or len(donors) > 1):
        return Change()
    for driver in others:
        attributes |= {k: v for k, v in driver.attributes.items() if k not in first.attributes and k not in attributes}
    edits = [*set_attributes(first, **attributes)]
    if donors and first.empty_tag:
        content = ctx.document.data[donors[0].open_end : donors[0].close]
        tail = content + f"</{first.name}>".encode()
        edits.append(Edit(first.open_end - 2, first.open_end, b">" + tail))
    elif donors:
        return Change()
    for driver in others:
        edits += remove_element(driver, collapse=False)
    return Change(edits)


@TABLE.rule(
    "PV222", Severity.ERROR, "a PCI-only driver option",
    why="ats, page_per_vq and vectors are options of PCI devices, but virtio devices on s390x are CCW devices.",
    effect="libvirt accepts it, and QEMU ends when it starts: \"Property 'virtio-…-ccw.ats' not found\".",
    remedy="Remove the attribute.",
    safety=Safety.SAFE, ports=True,
    example="<interface type='network'>\n  <source network='default'/>\n  <driver iommu='on' ats='on'/>\n</interface>",
)  # fmt: skip
def _pci_option(ctx: Context) -> Iterator[Hit]:
    for device, driver in _drivers(ctx):
        options = [name for name in PCI_OPTIONS if name in driver.attributes]
        if options and not _on_pci(device):
            message = f"{' and '.join(options)} is for PCI devices only; QEMU does not start"
            whole = set(driver.attributes) == set(options) and not driver.children
            yield Hit(driver, message, remove_element(driver) if whole else remove_attributes(driver, *options))
    for device in ctx.domain.devices.all("controller"):
        if device.get("type") == "virtio-serial" and device.get("vectors") and not _on_pci(device):
            message = "vectors is for PCI devices only; QEMU does not start"
            yield Hit(device, message, remove_attributes(device, "vectors"))


def _on_pci(device: Element) -> bool:
    return any(address.get("type") == "pci" for address in device.all("address"))


@TABLE.rule(
    "PV223", Severity.ERROR, "a transitional or non-transitional virtio model",
    why="Only PCI has transitional devices; virtio-ccw has one model.",
    effect=f"libvirt accepts it, and QEMU ends when it starts: 'virtio-…-transitional' {qemu.PCI_ONLY_MODEL.text}.",
    remedy="Write model='virtio' (virtio-scsi for a SCSI controller).",
    safety=Safety.SAFE, ports=True,
    example="<interface type='network'>\n  <source network='default'/>\n  <model type='virtio-transitional'/>\n"
    "</interface>",
)  # fmt: skip
def _transitional(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        model = device.find("model")
        plain = "virtio-scsi" if device.tag == "controller" and device.get("type") == "scsi" else "virtio"
        for element, name in ((device, "model"), (model, "type")):
            if element is not None and element.get(name) in PCI_MODELS:
                message = f"the model {element.get(name)} is for PCI devices only; QEMU does not start"
                if device.tag == "controller" and plain == "virtio":
                    change = remove_attributes(device, "model")
                else:
                    change = set_attributes(element, **{name: plain})
                yield Hit(element, message, change)


@TABLE.rule(
    "PV224", Severity.WARNING, "a PCI address on a virtio device",
    why="With it libvirt creates a zPCI device, but protected guests are tested with virtio-ccw devices.",
    effect="The device appears on the guest's PCI bus, if the guest's kernel supports PCI.",
    remedy="Remove the address; libvirt assigns a CCW address.",
    safety=Safety.ASK, ports=True,
    example="<rng model='virtio'>\n  <backend model='random'>/dev/urandom</backend>\n  <address type='pci'/>\n</rng>",
)  # fmt: skip
def _pci_address(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.virtio:
        for address in device.element.all("address"):
            if address.get("type") == "pci":
                change = remove_elements([address, *device.element.all(*PCI_ONLY)])
                yield Hit(address, f"use CCW addresses on s390x for {device}", change, becomes="removed")
