"""Rules about what prepares a domain for protected mode: PV101 to PV112."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.document import Element
from zseal.domain.edits import (
    Change,
    remove_attributes,
    remove_element,
    remove_elements,
    replace_element,
    set_attributes,
    unwrap_to_start,
)
from zseal.domain.model import S390_PV, Style
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.versions import LAUNCH_SECURITY_LIBVIRT
from zseal.messages import guest_kernel

TABLE = Table(__name__)

LAUNCH_SECURITY = f"<launchSecurity type='{S390_PV}'/>"
OTHER_PLATFORMS = {"sev": "AMD", "sev-snp": "AMD", "tdx": "Intel"}


def add_launch_security(ctx: Context) -> Change:
    """Append the element as last child of the domain, before any qemu: elements."""
    plain = [child for child in ctx.root.children if ":" not in child.name]
    return ctx.insert(ctx.root, LAUNCH_SECURITY, after=plain[-1] if plain else None, first=not plain)


def drop_iommu(driver: Element, name: str = "iommu") -> Change:
    """Remove the iommu attribute from a driver, and the driver if nothing else is left of it."""
    if set(driver.attributes) == {name} and not driver.children:
        return remove_element(driver)
    return remove_attributes(driver, name)


@TABLE.rule(
    "PV101", Severity.ERROR, "nothing prepares the domain for protected mode",
    why="A guest can switch to protected mode only if the domain prepares QEMU for it: with launchSecurity, or with "
    "iommu='on' on every virtio device.",
    effect=f"The guest switches and then refuses its devices ('{guest_kernel.NO_ACCESS_PLATFORM.text}'), so it has "
    "no root disk and no network. An image that is not encrypted runs unprotected.",
    remedy=f"Add {LAUNCH_SECURITY} to the domain (libvirt 7.6.0 or newer).",
    safety=Safety.SAFE, example="<domain type='kvm'>\n  <name>guest</name>\n</domain>",
)  # fmt: skip
def _unprotected(ctx: Context) -> Iterator[Hit]:
    if not ctx.domain.launch_security and ctx.domain.style is Style.NONE:
        misplaced = any(element.tag == "launchSecurity" for element in ctx.root.walk())
        change = Change() if misplaced else add_launch_security(ctx)  # then PV111 moves it instead
        yield Hit(ctx.root, "nothing in this domain prepares it for protected mode", change)


@TABLE.rule(
    "PV102", Severity.ERROR, "launch security of another platform",
    why="sev and sev-snp belong to AMD, tdx to Intel. On s390x the type is s390-pv, and it has no settings.",
    effect="libvirt refuses the domain: the emulator does not support it.",
    remedy=f"Write {LAUNCH_SECURITY}.",
    safety=Safety.SAFE, caught_by=CaughtBy.LIBVIRT,
    example="<launchSecurity type='sev'>\n  <policy>0x3</policy>\n</launchSecurity>",
)  # fmt: skip
def _other_platform(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.launch_security:
        kind = element.get("type")
        if kind in OTHER_PLATFORMS:
            message = f"launch security type {kind} belongs to another platform ({OTHER_PLATFORMS[kind]})"
            yield Hit(element, message, replace_element(ctx.document, element, LAUNCH_SECURITY))


@TABLE.rule(
    "PV103", Severity.ERROR, "unknown launch security type",
    why="libvirt's name for the type is s390-pv, with a hyphen.",
    effect="libvirt refuses the domain: invalid value for attribute type.",
    remedy="Write type='s390-pv'.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT, example="<launchSecurity type='s390_pv'/>",
)  # fmt: skip
def _unknown_type(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.launch_security:
        kind = element.get("type")
        if kind and kind != S390_PV and kind not in OTHER_PLATFORMS:
            change = set_attributes(element, type=S390_PV)
            yield Hit(element, f"unknown launch security type {kind!r}, did you mean {S390_PV}?", change)


@TABLE.rule(
    "PV104", Severity.ERROR, "launchSecurity without a type",
    why="The element has no meaning without its type.",
    effect="libvirt refuses the domain: missing required attribute type.",
    remedy="Write type='s390-pv'.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT, example="<launchSecurity/>",
)  # fmt: skip
def _no_type(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.launch_security:
        if not element.get("type"):
            yield Hit(element, f"launchSecurity needs type='{S390_PV}'", set_attributes(element, type=S390_PV))


@TABLE.rule(
    "PV105", Severity.WARNING, "ignored content in launchSecurity",
    why="s390-pv has no settings: no policy, no certificates. The encrypted image contains all settings.",
    effect="libvirt ignores the content and drops it from the domain.",
    remedy="Remove everything except the type.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA,
    example="<launchSecurity type='s390-pv'>\n  <policy>0x1</policy>\n</launchSecurity>",
)  # fmt: skip
def _content(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.launch_security:
        extra = [name for name in element.attributes if name != "type"]
        if element.get("type") == S390_PV and (element.children or extra):
            names = ", ".join([*(child.name for child in element.children), *extra])
            change = Change([*remove_attributes(element, *extra), *unwrap_to_start(element)])
            yield Hit(element, f"launchSecurity {S390_PV} has no settings; libvirt ignores {names}", change)


@TABLE.rule(
    "PV106", Severity.ERROR, "more than one launchSecurity",
    why="A domain has one kind of launch security.",
    effect="libvirt uses the first and drops the others.",
    remedy=f"Keep one {LAUNCH_SECURITY}.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA,
    example="<domain type='kvm'>\n  <launchSecurity type='s390-pv'/>\n  <launchSecurity type='s390-pv'/>\n</domain>",
)  # fmt: skip
def _several(ctx: Context) -> Iterator[Hit]:
    elements = ctx.domain.launch_security
    if len(elements) > 1:
        kept = next((e for e in elements if e.get("type") == S390_PV), elements[0])
        change = remove_elements([element for element in elements if element is not kept])
        yield Hit(elements[1], f"{len(elements)} launchSecurity elements; only the first is used", change)


@TABLE.rule(
    "PV107", Severity.ADVICE, "iommu attributes in addition to launchSecurity",
    why="With launchSecurity QEMU turns iommu_platform on for every virtio device.",
    effect="None; but a reader of the domain may think that devices without the attribute do not work.",
    remedy="Remove iommu='on'.",
    style=Style.LAUNCH_SECURITY, safety=Safety.SAFE,
    example="<disk type='file'>\n  <driver name='qemu' iommu='on'/>\n  <source file='/images/b.qcow2'/>\n  <target "
    "dev='vdb'/>\n</disk>",
)  # fmt: skip
def _redundant(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.virtio:
        if device.covered and device.driver is not None:
            change = drop_iommu(device.driver)
            yield Hit(device.driver, f"launchSecurity makes iommu='on' on {device} redundant", change)


@TABLE.rule(
    "PV108", Severity.ERROR, "iommu='off' in addition to launchSecurity",
    why="launchSecurity only changes QEMU's default, and an explicit off overrides it.",
    effect=f"The guest refuses the device: '{guest_kernel.NO_ACCESS_PLATFORM.text}'.",
    remedy="Remove iommu='off'.",
    style=Style.LAUNCH_SECURITY, safety=Safety.SAFE,
    example="<disk type='file'>\n  <driver name='qemu' iommu='off'/>\n  <source file='/images/b.qcow2'/>\n  <target "
    "dev='vdb'/>\n</disk>",
)  # fmt: skip
def _off(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.virtio:
        if device.iommu == "off" and device.driver is not None:
            message = f"iommu='off' overrides the default that {device} needs; the guest refuses it"
            yield Hit(device.driver, message, drop_iommu(device.driver))


@TABLE.rule(
    "PV109", Severity.ADVICE, "the older iommu style",
    why="Since libvirt 7.6.0 launchSecurity covers all virtio devices, including hot-plugged ones and those that "
    "libvirt adds, and libvirt and QEMU check the host before the start.",
    effect="None now; but the next device that is added without iommu='on' does not work.",
    remedy="Run zseal domain convert --style launch-security.",
    style=Style.IOMMU, safety=Safety.ASK, command="",
    example="<disk type='file'>\n  <driver name='qemu' iommu='on'/>\n  <source file='/images/b.qcow2'/>\n  <target "
    "dev='vdb'/>\n</disk>",
)  # fmt: skip
def _older_style(ctx: Context) -> Iterator[Hit]:
    if ctx.target.libvirt_has(LAUNCH_SECURITY_LIBVIRT):
        first = ctx.domain.iommu_elements[0]
        yield Hit(first, "launchSecurity would cover all devices, including those that libvirt adds")


@TABLE.rule(
    "PV110", Severity.ERROR, "a virtual IOMMU device",
    why="An <iommu> device emulates an IOMMU for the guest. It is unrelated to iommu='on' and does not exist on s390x.",
    effect="libvirt refuses the domain.",
    remedy="Remove the <iommu> device.",
    safety=Safety.SAFE, caught_by=CaughtBy.LIBVIRT, example="<iommu model='virtio'/>",
)  # fmt: skip
def _iommu_device(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.devices.all("iommu"):
        message = "a virtual IOMMU device is unrelated to iommu='on' and does not exist on s390x"
        yield Hit(element, message, remove_element(element))


@TABLE.rule(
    "PV111", Severity.ERROR, "launchSecurity in the wrong place",
    why="libvirt reads launchSecurity only as a child of <domain>.",
    effect="libvirt defines the domain and drops the element, and QEMU starts without it.",
    remedy="Move the element to the end of the domain.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA,
    example="<domain type='kvm'>\n  <devices>\n    <launchSecurity type='s390-pv'/>\n  </devices>\n</domain>",
)  # fmt: skip
def _misplaced(ctx: Context) -> Iterator[Hit]:
    for element in ctx.root.walk():
        if element.tag == "launchSecurity" and element.parent is not ctx.root and element is not ctx.root:
            change = [*remove_element(element)]
            if not ctx.domain.launch_security:
                change += add_launch_security(ctx)
            where = element.parent.name if element.parent else "?"
            effect = "libvirt drops it silently, and the guest cannot switch to protected mode"
            message = f"launchSecurity inside {where}: {effect}"
            yield Hit(element, message, Change(change))


@TABLE.rule(
    "PV112", Severity.WARNING, "only some virtio devices are covered",
    why="In the iommu style each virtio device needs the attribute, including those that libvirt adds.",
    effect="The covered devices work, and the guest does not see the others.",
    remedy="Add iommu='on' to every virtio device (the other findings name them), or convert to launchSecurity.",
    style=Style.IOMMU, safety=Safety.SAFE,
    example="<interface type='network'>\n  <source network='default'/>\n  <model type='virtio'/>\n</interface>",
)  # fmt: skip
def _mixed(ctx: Context) -> Iterator[Hit]:
    devices = ctx.domain.virtio
    covered = sum(device.covered for device in devices)
    total = len(devices) + len(ctx.domain.implicit)
    if 0 < covered < total:
        # the rule of each device repairs it
        yield Hit(ctx.root.find("devices"), f"{covered} of {total} virtio devices are covered by iommu='on'")
