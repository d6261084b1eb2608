"""Rules about devices that the machine of s390x does not have: PV616 to PV628. Their table is zseal.domain.s390x."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import disk_bus
from zseal.domain.document import Element
from zseal.domain.edits import (
    Change,
    remove_attributes,
    remove_element,
    remove_elements,
    replace_element,
    set_attributes,
)
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.s390x import (
    CHANNEL_TARGETS,
    CONSOLE_TARGETS,
    FILESYSTEM_DRIVERS,
    FILESYSTEM_TYPES,
    NETWORK_CARDS,
    NETWORK_CARDS_ON_PCI,
    PANIC_DEVICES,
    PCI_CONTROLLERS,
    PCI_ONLY,
    SCREENS,
    SCSI_CONTROLLERS,
    SERIAL_MODELS,
    SERIAL_TARGETS,
    SOUND_CARDS,
    VIRTIO_ADDRESSES,
    WATCHDOGS,
)
from zseal.messages.qemu import ONE_CONSOLE, PCI_ONLY_MODEL

TABLE = Table(__name__)

REMOVED = "removed"
NO_MODEL = f"libvirt refuses the domain, or QEMU does when it starts: '{PCI_ONLY_MODEL.text}'."


@TABLE.rule(
    "PV616", Severity.ERROR, "a screen of another machine",
    why="The only screen of s390x is the virtio one. VGA and its relatives are PCs' graphics cards.",
    effect="libvirt refuses the domain: 'does not support video model'.",
    remedy="Write type='virtio', or remove <video> and <graphics>: the host sees the screen (PV610).",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<video>\n  <model type='qxl'/>\n</video>",
)  # fmt: skip
def _screen(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("video"):
        model = device.find("model")
        if model is not None and SCREENS.foreign(model.get("type")):
            # memory sizes and heads are settings of the other card
            change = replace_element(ctx.document, model, "<model type='virtio'/>")
            message = f"s390x does not have the screen {model.get('type')}"
            yield Hit(model, message, change, becomes="type='virtio'")


@TABLE.rule(
    "PV617", Severity.ERROR, "a sound card",
    why="s390x does not have sound: PC sound cards do not exist there, and QEMU's virtio sound card exists on PCI "
    "only.",
    effect=NO_MODEL,
    remedy="Remove <sound>.",
    safety=Safety.ASK, ports=True, caught_by=CaughtBy.LIBVIRT, example="<sound model='ich9'/>",
)  # fmt: skip
def _sound(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("sound"):
        on_pci = any(address.get("type") == "pci" for address in device.all("address"))
        if SOUND_CARDS.foreign(device.get("model")) and not (on_pci and device.get("model") == "virtio"):
            message = f"s390x does not have the sound card {device.get('model')}"
            yield Hit(device, message, remove_element(device), becomes=REMOVED)


@TABLE.rule(
    "PV618", Severity.ERROR, "a watchdog of another machine",
    why="The watchdog of s390x is diag288, one for each guest and without an address.",
    effect=NO_MODEL,
    remedy="Write model='diag288', without <address>.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT, example="<watchdog model='i6300esb' action='reset'/>",
)  # fmt: skip
def _watchdog(ctx: Context) -> Iterator[Hit]:
    devices = list(ctx.domain.devices.all("watchdog"))
    for device in devices[1:]:
        yield Hit(device, "a guest has one watchdog at most; keep the one with the action that you want")
    for device in devices:
        addresses = list(device.all("address"))
        if WATCHDOGS.foreign(device.get("model")):
            change = Change([*set_attributes(device, model="diag288"), *remove_elements(addresses)])
            message = f"s390x does not have the watchdog {device.get('model')}"
            yield Hit(device, message, change, becomes="model='diag288'")
        elif addresses:
            yield Hit(addresses[0], "a watchdog does not have an address", remove_elements(addresses), becomes=REMOVED)


@TABLE.rule(
    "PV619", Severity.ERROR, "a SCSI controller of another machine",
    why="The SCSI controller of s390x is virtio-scsi. Those of PCs and of Power do not exist there.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Write model='virtio-scsi'.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<controller type='scsi' index='0' model='lsilogic'/>",
)  # fmt: skip
def _scsi_controller(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("controller"):
        if device.get("type") == "scsi" and SCSI_CONTROLLERS.foreign(device.get("model")):
            change = set_attributes(device, model="virtio-scsi")
            message = f"s390x does not have the SCSI controller {device.get('model')}"
            yield Hit(device, message, change, becomes="model='virtio-scsi'")


@TABLE.rule(
    "PV620", Severity.ERROR, "a PCI Express bus",
    why="PCI on s390x has one root, pci-root, with bridges at most. Ports, switches and expanders of PCI Express do "
    "not exist there, and virtio devices are CCW devices.",
    effect="libvirt refuses the domain.",
    remedy="Remove the PCI controllers and all PCI addresses; libvirt assigns CCW addresses.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<controller type='pci' index='0' model='pcie-root'/>",
)  # fmt: skip
def _pci_express(ctx: Context) -> Iterator[Hit]:
    controllers = [device for device in ctx.domain.devices.all("controller") if device.get("type") == "pci"]
    foreign = [device for device in controllers if PCI_CONTROLLERS.foreign(device.get("model"))]
    if foreign:
        addresses = [a for device in ctx.domain.devices.children for a in device.all("address")]
        on_pci = [a for a in addresses if a.get("type") == "pci" and a.parent not in controllers]
        on_pci += [e for a in on_pci if a.parent is not None for e in a.parent.all(*PCI_ONLY)]
        models = ", ".join(dict.fromkeys(device.get("model") for device in foreign))
        change = remove_elements([*controllers, *on_pci])
        yield Hit(
            foreign[0], f"s390x does not have PCI Express ({models})", change, becomes="removed, with PCI addresses"
        )


@TABLE.rule(
    "PV621", Severity.ERROR, "a network card of another machine",
    why="The network card of s390x is virtio. QEMU 10.0 also has e1000e and igb there, as PCI devices, which a "
    "protected guest does not use.",
    effect=f"{NO_MODEL} With e1000e and igb the guest starts and does not have a network.",
    remedy="Write <model type='virtio'/>.",
    safety=Safety.SAFE, ports=True,
    example="<interface type='network'>\n  <source network='default'/>\n  <model type='e1000'/>\n</interface>",
)  # fmt: skip
def _network_card(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("interface"):
        model = device.find("model")
        if model is None or device.get("type") == "hostdev" or not NETWORK_CARDS.foreign(model.get("type")):
            continue
        name = model.get("type")
        message = f"s390x does not have the network card {name}"
        if name in NETWORK_CARDS_ON_PCI:
            message = f"the network card {name} is a PCI device, which a protected guest does not use"
        yield Hit(model, message, set_attributes(model, type="virtio"), becomes="type='virtio'")


@TABLE.rule(
    "PV622", Severity.ERROR, "a serial port, console or channel of another machine",
    why="The consoles of s390x are SCLP consoles and virtio ones, its channels virtio ones. ISA, PCI, USB and "
    "parallel ports belong to other machines.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Use <target type='sclp-serial'/> for a serial port, <target type='sclp'/> or 'virtio' for a console.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<serial type='pty'>\n  <target type='pci-serial' port='0'/>\n</serial>",
)  # fmt: skip
def _ports(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("serial", "console", "channel"):
        target = device.find("target")
        if target is None:
            continue
        kind, model = target.get("type"), target.find("model")
        if device.tag == "serial":
            wrong = SERIAL_TARGETS.foreign(kind) or (model is not None and SERIAL_MODELS.foreign(model.get("name")))
            text, becomes = f"<target type='sclp-serial' port='{target.get('port', '0')}'/>", "type='sclp-serial'"
        else:
            wrong = (CONSOLE_TARGETS if device.tag == "console" else CHANNEL_TARGETS).foreign(kind)
            text, becomes = f"<target type='sclp' port='{target.get('port', '0')}'/>", "type='sclp'"
        if device.tag == "serial" and kind == "isa-serial" and not wrong:
            message = "libvirt makes an SCLP console of this isa-serial port"
            change = replace_element(ctx.document, target, text)
            yield Hit(target, message, change, Severity.ADVICE, becomes=becomes)
        elif wrong and device.tag == "channel":
            yield Hit(target, f"s390x does not have a channel of type {kind}", remove_element(device), becomes=REMOVED)
        elif wrong:
            name = kind if model is None else f"{kind} ({model.get('name')})"
            change = Change(
                [*replace_element(ctx.document, target, text), *remove_elements(list(device.all("address")))]
            )
            yield Hit(target, f"s390x does not have a {device.tag} of type {name}", change, becomes=becomes)


def _sclp_kind(device: Element) -> str:
    """The SCLP device that a console or serial port becomes: sclpconsole, sclplmconsole, or none."""
    target = device.find("target")
    kind = target.get("type") if target is not None else ""
    model = target.find("model") if target is not None else None
    if kind == "sclplm" or (model is not None and model.get("name") == "sclplmconsole"):
        return "sclplmconsole"
    foreign = CONSOLE_TARGETS.foreign(kind) if device.tag == "console" else SERIAL_TARGETS.foreign(kind)
    return "" if kind == "virtio" or foreign else "sclpconsole"


def _sclp_consoles(ctx: Context) -> Iterator[tuple[str, Element]]:
    """The SCLP devices of the domain. A first console without another type is the first serial port again."""
    serials = list(ctx.domain.devices.all("serial"))
    for serial in serials:
        yield _sclp_kind(serial), serial
    for number, console in enumerate(ctx.domain.devices.all("console")):
        target = console.find("target")
        alias = target is None or target.get("type", "serial") == "serial"
        if not (number == 0 and serials and alias):
            yield _sclp_kind(console), console


@TABLE.rule(
    "PV623", Severity.ERROR, "several operator consoles of one kind",
    why="A guest has one SCLP console (sclp) and one line-mode SCLP console (sclplm). More consoles are virtio ones.",
    effect=f"QEMU ends when it starts: '{ONE_CONSOLE.text}'.",
    remedy="Write <target type='sclplm'/> or <target type='virtio'/> in the second one.",
    safety=Safety.ASK, ports=True,
    example="<domain type='kvm'>\n  <devices>\n    <console type='pty'>\n      <target type='sclp' port='0'/>\n"
    "    </console>\n    <console type='pty'>\n      <target type='sclp' port='1'/>\n    </console>\n  </devices>\n"
    "</domain>",
)  # fmt: skip
def _operator_consoles(ctx: Context) -> Iterator[Hit]:
    seen: set[str] = set()
    for kind, device in _sclp_consoles(ctx):
        if kind in seen:
            what = "SCLP console" if kind == "sclpconsole" else "line-mode SCLP console"
            # a console becomes a virtio one; a second serial port can only go
            target = "<target type='virtio'/>"
            old = device.find("target")
            if device.tag == "serial":
                change, becomes = remove_element(device), REMOVED
            else:
                becomes = "type='virtio'"
                change = replace_element(ctx.document, old, target) if old is not None else ctx.insert(device, target)
            yield Hit(device, f"a guest has one {what}, and this is the second", change, becomes=becomes)
        elif kind:
            seen.add(kind)


@TABLE.rule(
    "PV624", Severity.ERROR, "a CD-ROM, floppy or LUN on the virtio bus",
    why="A virtio disk cannot eject its medium and does not pass SCSI commands through. CD-ROMs and LUNs need the "
    "SCSI bus, and s390x does not have floppies.",
    effect="libvirt refuses the domain: 'does not support ejectable media'.",
    remedy="Use bus='scsi'; or device='disk' for an image that stays.",
    safety=Safety.ASK, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<disk type='file' device='cdrom'>\n  <target dev='vdb' bus='virtio'/>\n  <readonly/>\n</disk>",
)  # fmt: skip
def _virtio_media(ctx: Context) -> Iterator[Hit]:
    names = disk_names(ctx)
    for disk in ctx.domain.disks:
        target, kind = disk.find("target"), disk.get("device", "disk")
        bus = disk_bus(disk)
        if target is not None and kind in _UNFIT.get(bus, ()):
            if kind == "floppy":
                change, becomes = remove_element(disk), REMOVED
            else:
                change, becomes = move_disk(disk, target, "scsi", names), "bus='scsi'"
            yield Hit(target, f"a {kind} cannot be on the {bus} bus", change, becomes=becomes)


_UNFIT = {"virtio": ("cdrom", "floppy", "lun"), "scsi": ("floppy",)}
"""What cannot be on each bus of s390x."""


def disk_names(ctx: Context) -> set[str]:
    """The target names of all disks."""
    return {target.get("dev") for disk in ctx.domain.disks if (target := disk.find("target")) is not None}


def move_disk(disk: Element, target: Element, bus: str, names: set[str]) -> Change:
    """Put the disk on another bus under a name that is not in ``names``, and add that to them."""
    prefix = "vd" if bus == "virtio" else "sd"
    letters = "abcdefghijklmnopqrstuvwxyz"
    candidates = [prefix + a + b for a in ("", *letters) for b in letters]
    current = target.get("dev")
    free = current if current.startswith(prefix) else next((n for n in candidates if n not in names), candidates[-1])
    names.add(free)
    driver = disk.find("driver")
    # a LUN is a device of the host on every architecture, a file is a disk
    kind = set_attributes(disk, device="disk") if disk.get("device") == "lun" and disk.get("type") != "block" else ()
    # a SCSI disk does not have these options
    dropped = remove_attributes(driver, "iommu", "queues", "queue_size") if driver is not None and bus == "scsi" else ()
    return Change(
        [*kind, *set_attributes(target, dev=free, bus=bus), *dropped, *remove_elements(list(disk.all("address")))]
    )


@TABLE.rule(
    "PV625", Severity.ERROR, "a panic device of another machine",
    why="A crashed guest on s390x stops in a disabled wait, which QEMU sees. The panic device s390 stands for that; "
    "it has no address, and there is one.",
    effect="libvirt refuses the domain.",
    remedy="Write <panic model='s390'/>, or remove it: libvirt adds it.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT, example="<panic model='isa'/>",
)  # fmt: skip
def _panic(ctx: Context) -> Iterator[Hit]:
    devices = list(ctx.domain.devices.all("panic"))
    for number, device in enumerate(devices):
        if number:
            yield Hit(device, "a guest has one panic device", remove_element(device), becomes=REMOVED)
        elif PANIC_DEVICES.foreign(device.get("model")) or device.find("address") is not None:
            change = replace_element(ctx.document, device, "<panic model='s390'/>")
            name = device.get("model") or "with an address"
            yield Hit(device, f"s390x does not have the panic device {name}", change, becomes="<panic model='s390'/>")


@TABLE.rule(
    "PV626", Severity.ERROR, "an address of another bus",
    why="Virtio devices on s390x have CCW addresses (or PCI ones), each once. Their channel subsystem is 0x00 to "
    "0xfe, their subchannel set 0x0 to 0x3.",
    effect="libvirt refuses the domain: 'is in use already', 'cannot have an address of type', or QEMU ends when it "
    "starts.",
    remedy="Remove the address; libvirt assigns one.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<domain type='kvm'>\n  <devices>\n    <input type='keyboard' bus='virtio'>\n"
    "      <address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0009'/>\n    </input>\n"
    "    <input type='tablet' bus='virtio'>\n      <address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0009'/>\n"
    "    </input>\n  </devices>\n</domain>",
)  # fmt: skip
def _addresses(ctx: Context) -> Iterator[Hit]:
    seen: set[tuple[int, int, int]] = set()
    virtio = {device.element for device in ctx.domain.virtio}
    for device in ctx.domain.devices.children:
        for address in device.all("address"):
            message = ""
            if device in virtio and VIRTIO_ADDRESSES.foreign(address.get("type")):
                message = f"a virtio device of s390x does not have an address of type {address.get('type')}"
            elif address.get("type") == "ccw" and address.get("devno"):
                place = _ccw_place(address)
                if place is None:
                    message = "the CCW address is not a valid one"
                elif place in seen:
                    message = "the CCW address is in use: {:x}.{:x}.{:04x}".format(*place)
                else:
                    seen.add(place)
            if message:
                yield Hit(address, message, remove_element(address), becomes=REMOVED)


def _ccw_place(address: Element) -> tuple[int, int, int] | None:
    try:
        texts = (address.get("cssid", "0xfe"), address.get("ssid", "0"), address.get("devno"))
        cssid, ssid, devno = (int(text[:12], 0) for text in texts)
    except ValueError:
        return None
    valid = 0 <= cssid <= 0xFE and 0 <= ssid <= 3 and 0 <= devno <= 0xFFFF
    return (cssid, ssid, devno) if valid else None


@TABLE.rule(
    "PV627", Severity.ERROR, "a device setting of another bus",
    why="A PCI device has a ROM and an ACPI index, an IDE disk a translation of its geometry and a wwn. A virtio "
    "device on s390x does not.",
    effect="libvirt refuses the domain.",
    remedy="Remove the setting.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<interface type='network'>\n  <source network='default'/>\n  <rom bar='off'/>\n</interface>",
)  # fmt: skip
def _settings(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.virtio:
        on_pci = any(address.get("type") == "pci" for address in device.element.all("address"))
        wrong = [] if on_pci else list(device.element.all(*PCI_ONLY))
        if device.element.tag == "disk":
            wrong += device.element.all("wwn", "vendor", "product")
            wrong += [e for e in device.element.all("geometry") if e.get("trans")]
        for element in wrong:
            yield Hit(element, f"{device} does not have <{element.name}>", remove_element(element), becomes=REMOVED)


@TABLE.rule(
    "PV628", Severity.ERROR, "a share that QEMU does not have",
    why="libvirt's list of shared directories includes those of containers and of USB.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Use type='mount' with the driver path or virtiofs.",
    caught_by=CaughtBy.LIBVIRT,
    example="<filesystem type='ram'>\n  <source usage='10' units='MiB'/>\n  <target dir='share'/>\n</filesystem>",
)  # fmt: skip
def _share(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("filesystem"):
        driver = device.find("driver")
        if FILESYSTEM_TYPES.foreign(device.get("type")):
            yield Hit(device, f"QEMU does not have shares of type {device.get('type')}")
        elif driver is not None and FILESYSTEM_DRIVERS.foreign(driver.get("type")):
            yield Hit(driver, f"QEMU on s390x does not have the share driver {driver.get('type')}")
