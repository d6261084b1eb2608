"""Rules about what the guest boots: PV501 to PV510."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zseal.domain.document import Element
from zseal.domain.edits import Change, remove_attributes, remove_element, remove_elements
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Input, Safety, Severity, Table
from zseal.domain.s390x import LOADER

TABLE = Table(__name__)

BOOT_TAGS = ("disk", "interface", "hostdev", "redirdev")
_OS_DEVICES = {"hd": "disk", "cdrom": "cdrom", "network": "interface", "fd": "floppy"}


def _kind(device: Element) -> str:
    """What a bootable device is: disk, cdrom, floppy, interface, hostdev, …"""
    if device.tag != "disk":
        return device.tag
    kind = device.get("device", "disk")
    return "disk" if kind == "lun" else kind


def ordered_devices(ctx: Context) -> list[Element]:
    """The devices with a boot order of their own, first to last."""
    orders = []
    for device in ctx.domain.devices.all(*BOOT_TAGS):
        boot = device.find("boot")
        order = boot.get("order") if boot is not None else ""
        if order.isdecimal() and len(order) < 10:
            orders.append((int(order), device))
    return [device for _, device in sorted(orders, key=lambda pair: pair[0])]


def _os_boot(ctx: Context) -> list[Element]:
    return list(ctx.domain.os.all("boot")) if ctx.domain.os is not None else []


def boot_kinds(ctx: Context) -> list[str]:
    """The kinds of device the guest tries to boot from, in order, as libvirt understands the domain."""
    ordered = ordered_devices(ctx)
    if ordered:
        return [_kind(device) for device in ordered]
    kinds = [_OS_DEVICES.get(boot.get("dev"), "") for boot in _os_boot(ctx)] or ["disk"]  # libvirt's default is hd
    there = {_kind(device) for device in ctx.domain.devices.all(*BOOT_TAGS)}
    return [kind for kind in kinds if kind in there]


def _with_kernel(tag: str, ctx: Context) -> Element | None:
    element = ctx.root.find("os", tag)
    return element if ctx.domain.kernel is not None and element is not None and element.value else None


@TABLE.rule(
    "PV501", Severity.WARNING, "an initrd in addition to the image",
    why="A Secure Execution image contains its ramdisk, encrypted, and the kernel uses that one.",
    effect="QEMU loads the initrd into memory and the guest ignores it.",
    remedy="Remove <initrd>; build the ramdisk into the image (zseal image create --ramdisk).",
    safety=Safety.SAFE,
    example="<os>\n  <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>\n  <kernel>/images/se.img</kernel>\n"
    "  <initrd>/images/initrd</initrd>\n</os>",
)  # fmt: skip
def _initrd(ctx: Context) -> Iterator[Hit]:
    element = _with_kernel("initrd", ctx)
    if element is not None:
        yield Hit(element, "the initrd is ignored; it must be inside the image", remove_element(element))


@TABLE.rule(
    "PV502", Severity.WARNING, "kernel parameters in addition to the image",
    why="A Secure Execution image contains its kernel parameters, encrypted; the host cannot add any.",
    effect="The guest runs without these parameters (often swiotlb= or root=), and no message says so.",
    remedy="Remove <cmdline>; put the parameters into the image (zseal image create --parmfile).",
    safety=Safety.SAFE,
    example="<os>\n  <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>\n  <kernel>/images/se.img</kernel>\n"
    "  <cmdline>swiotlb=262144</cmdline>\n</os>",
)  # fmt: skip
def _command_line(ctx: Context) -> Iterator[Hit]:
    element = _with_kernel("cmdline", ctx)
    if element is not None:
        yield Hit(
            element, "these kernel parameters are ignored; the guest uses those in the image", remove_element(element)
        )


@TABLE.rule(
    "PV503", Severity.ERROR, "UEFI firmware",
    why="s390x does not have UEFI: QEMU's s390-ccw firmware starts the guest.",
    effect="libvirt finds no firmware for s390x and does not start the guest.",
    remedy="Remove firmware=, <loader>, <nvram> and <firmware>.",
    safety=Safety.SAFE, ports=True,
    example="<os firmware='efi'>\n  <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>\n</os>",
)  # fmt: skip
def _firmware(ctx: Context) -> Iterator[Hit]:
    os = ctx.domain.os
    if os is not None:
        elements = [e for e in os.all("loader", "nvram", "firmware") if not _own_firmware(e)]
        attributes = remove_attributes(os, "firmware")
        if elements or attributes:
            place = os if attributes else elements[0]
            yield Hit(place, "s390x does not have UEFI", Change([*attributes, *remove_elements(elements)]))


def _own_firmware(element: Element) -> bool:
    """Whether the element names the firmware of s390x, which QEMU takes as it takes its own choice."""
    if element.tag != "loader" or element.get("type", "rom") != "rom" or element.get("secure") == "yes":
        return False
    return LOADER.fullmatch(element.value) is not None


@TABLE.rule(
    "PV504", Severity.ADVICE, "a boot order of device classes",
    why="<boot dev=…> in the os element names a class of devices; a boot order on a device names that device.",
    effect="With several disks the guest may boot from the wrong one, perhaps one that is not encrypted.",
    remedy="Remove <boot dev=…> and add <boot order='1'/> to the device.",
    safety=Safety.ASK,
    example="<os>\n  <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>\n  <boot dev='hd'/>\n</os>",
)  # fmt: skip
def _os_order(ctx: Context) -> Iterator[Hit]:
    boots = _os_boot(ctx)
    if boots:
        change = [*remove_elements(boots)]
        wanted = {_OS_DEVICES.get(boot.get("dev"), ""): order for order, boot in enumerate(boots, 1)}
        taken = {device for device in ctx.domain.devices.children if device.find("boot") is not None}
        for device in ctx.domain.devices.all(*BOOT_TAGS):
            order = wanted.pop(_kind(device), None)
            if order is not None and not taken and device.children:
                change += ctx.insert(device, f"<boot order='{order}'/>", after=device.children[-1])
        yield Hit(boots[0], "use a boot order on the device instead", Change(change))


@TABLE.rule(
    "PV505", Severity.WARNING, "nothing to boot",
    why="The domain has neither a kernel nor a device to boot from.",
    effect="The guest's firmware finds nothing to boot and stops.",
    remedy="Add a disk, or name the image in <kernel>.",
    example="<domain type='kvm'>\n  <os>\n    <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>\n  </os>\n"
    "  <devices>\n    <memballoon model='none'/>\n  </devices>\n</domain>",
)  # fmt: skip
def _nothing(ctx: Context) -> Iterator[Hit]:
    if ctx.domain.kernel is None and not boot_kinds(ctx):
        yield Hit(
            ctx.root.find("devices") or ctx.root,
            "nothing to boot: the domain has no kernel, and no disk in the boot order",
        )


@TABLE.rule(
    "PV506", Severity.ADVICE, "a loadparm selects the boot entry",
    why="A disk can have several boot entries, and some may be plain kernels.",
    effect="The guest may boot the wrong entry, unprotected, and no message says so.",
    remedy="Make sure that it selects the encrypted entry, and remove plain entries from the disk's boot menu.",
    example="<disk type='file' device='disk'>\n  <source file='/images/a.qcow2'/>\n"
    "  <target dev='vda' bus='virtio'/>\n  <boot order='1' loadparm='2'/>\n</disk>",
)  # fmt: skip
def _loadparm(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all(*BOOT_TAGS):
        boot = device.find("boot")
        if boot is not None and boot.get("loadparm").strip():
            message = f"loadparm {boot.get('loadparm')!r} selects a boot entry; make sure it is the encrypted one"
            yield Hit(boot, message)


@TABLE.rule(
    "PV507", Severity.WARNING, "the kernel is not a Secure Execution image",
    why="Only an image built for Secure Execution can switch to protected mode; a plain kernel runs without "
    "protection.",
    effect="The guest works, but unprotected: /sys/firmware/uv/prot_virt_guest is 0.",
    remedy="Build an image with zseal image create and name it in <kernel>.",
    needs=[Input.NAMED_KERNEL], caught_by=CaughtBy.NOBODY,
)  # fmt: skip
def _plain_kernel(ctx: Context) -> Iterator[Hit]:
    from zseal.domain.guest import local_image_state

    if ctx.guest is not None and ctx.guest.image is not None:
        if not ctx.guest.image.sealed:
            yield Hit(ctx.domain.kernel, f"{ctx.guest.image.name} is not a Secure Execution image")
    elif ctx.local_files and ctx.domain.kernel is not None and local_image_state(ctx.domain.kernel.value) is False:
        yield Hit(ctx.domain.kernel, f"{ctx.domain.kernel.value} is not a Secure Execution image")


@TABLE.rule(
    "PV508", Severity.WARNING, "a CD-ROM or the network boots first",
    why="Installation media and network images are not encrypted for this guest.",
    effect="The guest boots them, unprotected, whenever they are available.",
    remedy="Put the encrypted disk first, or remove the boot order from the other device.",
    safety=Safety.ASK,
    example="<disk type='file' device='cdrom'>\n  <source file='/images/a.iso'/>\n  <target dev='sdb' bus='scsi'/>\n"
    "  <boot order='1'/>\n</disk>",
)  # fmt: skip
def _unencrypted_first(ctx: Context) -> Iterator[Hit]:
    if ctx.domain.kernel is not None or boot_kinds(ctx)[:1] not in (["cdrom"], ["interface"], ["floppy"]):
        return
    ordered = ordered_devices(ctx)
    if ordered:
        boot = ordered[0].find("boot")
        others = [device for device in ordered[1:] if _kind(device) == "disk"]
        change = remove_element(boot) if boot is not None and others else Change()
        yield Hit(boot, f"the {_kind(ordered[0])} boots first, and its content is not encrypted", change)
    else:
        yield Hit(_os_boot(ctx)[0], f"the {boot_kinds(ctx)[0]} boots first, and its content is not encrypted")


@TABLE.rule(
    "PV509", Severity.ERROR, "a loadparm that is not one",
    why="A loadparm has one to eight characters out of letters, digits, the dot and the blank.",
    effect="libvirt refuses the domain: 'invalid loadparm value'.",
    remedy="Write the number of the boot entry, or PROMPT; or remove the attribute.",
    safety=Safety.ASK, caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT,
    example="<interface type='network'>\n  <source network='default'/>\n  <boot order='2' loadparm='entry-2'/>\n"
    "</interface>",
)  # fmt: skip
def _bad_loadparm(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        for boot in device.all("boot"):
            value = boot.attributes.get("loadparm")
            if value is not None and re.fullmatch(r"[A-Za-z0-9. ]{1,8}", value) is None:
                yield Hit(boot, f"{value!r} is not a loadparm", remove_attributes(boot, "loadparm"))


@TABLE.rule(
    "PV510", Severity.ERROR, "a boot order on a device that cannot boot",
    why="The firmware of s390x boots from disks, networks and passed-through DASDs. AP devices have nothing to boot, "
    "and libvirt supports booting from virtiofs only on PCI.",
    effect="libvirt refuses the domain.",
    remedy="Remove <boot> from the device.",
    safety=Safety.SAFE, caught_by=CaughtBy.LIBVIRT,
    example="<hostdev mode='subsystem' type='mdev' model='vfio-ap'>\n  <source>\n"
    "    <address uuid='5c0e63e2-5b86-4f3e-9a5a-0f9d1f6a7a11'/>\n  </source>\n  <boot order='2'/>\n</hostdev>",
)  # fmt: skip
def _cannot_boot(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("hostdev", "filesystem"):
        boot = device.find("boot")
        adapter = device.tag == "hostdev" and device.get("model") == "vfio-ap"
        driver = device.find("driver")
        virtiofs = driver is not None and driver.get("type") == "virtiofs"
        if boot is not None and (adapter or virtiofs):
            name = "an AP device" if adapter else "a shared directory"
            yield Hit(boot, f"the guest cannot boot from {name}", remove_element(boot), becomes="removed")
