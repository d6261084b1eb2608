"""Rules about devices that a protected guest cannot use or should not have: PV601 to PV615."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import disk_bus
from zseal.domain.document import Element
from zseal.domain.edits import Change, remove_element, remove_elements, set_attributes
from zseal.domain.model import Style
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.rules.platform import disk_names, move_disk
from zseal.domain.s390x import (
    ABSENT,
    CONTROLLERS,
    DISK_BUSES,
    HOST_INPUTS,
    INPUT_BUSES,
    MEMORY_DEVICES,
    USB_CONTROLLERS,
    WITHOUT_XHCI,
    XHCI,
)
from zseal.messages import guest_kernel

TABLE = Table(__name__)


def _hostdevs(ctx: Context, kind: str, model: str = "") -> Iterator[Element]:
    for device in ctx.domain.devices.all("hostdev"):
        if device.get("type") == kind and (not model or device.get("model") == model):
            yield device


@TABLE.rule(
    "PV601", Severity.ERROR, "PCI passthrough",
    why="A PCI function accesses guest memory directly, which the ultravisor does not allow.",
    effect="The device does not work in the guest, or the guest does not start.",
    remedy="Use a virtio device instead.",
    example="<hostdev mode='subsystem' type='pci' managed='yes'>\n  <source>\n"
    "    <address domain='0x0001' bus='0x00' slot='0x00' function='0x0'/>\n  </source>\n</hostdev>",
)  # fmt: skip
def _pci(ctx: Context) -> Iterator[Hit]:
    for device in (*_hostdevs(ctx, "pci"), *_hostdevs(ctx, "mdev", "vfio-pci")):
        yield Hit(device, "protected guests do not support PCI passthrough")


@TABLE.rule(
    "PV602", Severity.ERROR, "CCW passthrough",
    why="The host cannot read the channel programs of passed-through devices, because they are in guest memory.",
    effect="The device does not work in the guest, or the guest does not start.",
    remedy="Attach the DASD to the guest as a virtio disk.",
    example="<hostdev mode='subsystem' type='mdev' model='vfio-ccw'>\n  <source>\n"
    "    <address uuid='5c0e63e2-5b86-4f3e-9a5a-0f9d1f6a7a11'/>\n  </source>\n</hostdev>",
)  # fmt: skip
def _ccw(ctx: Context) -> Iterator[Hit]:
    for device in _hostdevs(ctx, "mdev", "vfio-ccw"):
        yield Hit(device, "protected guests do not support CCW passthrough")


@TABLE.rule(
    "PV603", Severity.ADVICE, "AP (crypto adapter) passthrough",
    why="Protected guests can use crypto adapters on z16, LinuxONE 4 or newer, if the host's kernel and QEMU support "
    "it.",
    effect="On an older machine or host the guest does not see any AP device.",
    remedy="Check the machine; in the guest, bind the queues (pvapconfig) with an association secret.",
    example="<hostdev mode='subsystem' type='mdev' model='vfio-ap'>\n  <source>\n"
    "    <address uuid='5c0e63e2-5b86-4f3e-9a5a-0f9d1f6a7a11'/>\n  </source>\n</hostdev>",
)  # fmt: skip
def _ap(ctx: Context) -> Iterator[Hit]:
    for number, device in enumerate(_hostdevs(ctx, "mdev", "vfio-ap")):
        yield Hit(device, "AP passthrough needs z16 or newer, a recent host kernel and QEMU")
        if number:
            message = "a guest has one AP device: assign all queues to one mediated device"
            yield Hit(device, message, severity=Severity.ERROR)


@TABLE.rule(
    "PV604", Severity.ERROR, "NIC passthrough",
    why="An interface of type hostdev is a PCI function that accesses guest memory directly, which the ultravisor "
    "does not allow.",
    effect="The network device does not work in the guest, or the guest does not start.",
    remedy="Use type='network', 'bridge' or 'direct' with the virtio model.",
    example="<interface type='hostdev' managed='yes'>\n  <source>\n"
    "    <address type='pci' domain='0x0002' bus='0x00' slot='0x00' function='0x0'/>\n  </source>\n</interface>",
)  # fmt: skip
def _nic(ctx: Context) -> Iterator[Hit]:
    passthrough = ctx.host.passthrough_networks if ctx.host is not None else frozenset()
    for device in ctx.domain.devices.all("interface"):
        source = device.find("source")
        network = source.get("network") if source is not None and device.get("type") == "network" else ""
        if device.get("type") == "hostdev":
            yield Hit(device, "protected guests do not support NIC passthrough")
        elif network in passthrough:
            yield Hit(device, f"the network {network} passes NICs through, which protected guests do not support")


@TABLE.rule(
    "PV605", Severity.ERROR, "vhost-scsi in the iommu style",
    why="libvirt does not have an iommu attribute for scsi_host devices.",
    effect=f"The guest refuses the device: '{guest_kernel.NO_ACCESS_PLATFORM.text}'.",
    remedy="Run zseal domain convert --style launch-security.",
    style=Style.IOMMU, safety=Safety.ASK, command="",
    example="<hostdev mode='subsystem' type='scsi_host'>\n  <source protocol='vhost' wwpn='naa.5001405a1b2c3d4e'/>\n"
    "</hostdev>",
)  # fmt: skip
def _vhost_scsi(ctx: Context) -> Iterator[Hit]:
    for device in _hostdevs(ctx, "scsi_host"):
        yield Hit(device, "vhost-scsi cannot be covered by iommu='on'; use launchSecurity")


@TABLE.rule(
    "PV606", Severity.WARNING, "a device outside QEMU",
    why="virtiofs and vhost-user devices run in other host processes that map the guest's memory, vDPA devices in "
    "hardware.",
    effect="This is untested with protected guests; such a device may stop the guest or not respond.",
    remedy="Use a device that QEMU itself emulates.",
    example="<filesystem type='mount'>\n  <driver type='virtiofs' iommu='on'/>\n  <source dir='/srv/share'/>\n"
    "  <target dir='share'/>\n</filesystem>",
)  # fmt: skip
def _shared_memory(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        driver = device.find("driver")
        virtiofs = device.tag == "filesystem" and driver is not None and driver.get("type") == "virtiofs"
        kind = device.get("type") if device.tag in ("interface", "disk") else ""
        if virtiofs or kind in ("vhostuser", "vdpa", "vhostvdpa"):
            what = "virtiofs" if virtiofs else f"a {'vhost-user' if kind == 'vhostuser' else 'vDPA'} {device.tag}"
            yield Hit(device, f"{what} works through shared memory, which is untested with protected guests")


@TABLE.rule(
    "PV607", Severity.ERROR, "a device or bus that s390x does not have",
    why="s390x does not have USB, SATA, IDE or a TPM, and shared-memory and NVDIMM devices would map guest memory. A "
    "USB controller on PCI (qemu-xhci) exists in newer releases of QEMU, but a protected guest does not use PCI "
    "devices.",
    effect="libvirt refuses the domain, or QEMU does when it starts; with qemu-xhci the guest does not see the device.",
    remedy="Remove the device, or use the virtio bus for disks, keyboards, mice and tablets.",
    safety=Safety.ASK, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<shmem name='s'>\n  <model type='ivshmem-plain'/>\n</shmem>",
)  # fmt: skip
def _foreign(ctx: Context) -> Iterator[Hit]:
    names = disk_names(ctx)
    for device in ctx.domain.devices.children:
        name = _foreign_name(device)
        target = device.find("target")
        if not name:
            continue
        message = f"s390x does not have {name}"
        if device.tag == "disk" and target is not None:
            # a disk is never removed: its bus changes
            bus = "scsi" if device.get("device") == "lun" else "virtio"
            yield Hit(device, message, move_disk(device, target, bus, names), becomes=f"bus='{bus}'")
        elif device.tag == "input" and device.get("type") in ("keyboard", "mouse", "tablet"):
            change = Change([*set_attributes(device, bus="virtio"), *remove_elements(list(device.all("address")))])
            yield Hit(device, message, change, becomes="bus='virtio'")
        else:
            xhci = device.tag == "controller" and device.get("model") == XHCI
            starts = xhci and not (ctx.target.qemu is not None and ctx.target.qemu <= WITHOUT_XHCI)
            severity = Severity.WARNING if starts else None
            # without a controller libvirt refuses what is left on the bus, so that goes first
            keep = device.get("type") == "usb" and device.tag == "controller" and _usb_devices(ctx)
            yield Hit(device, message, Change() if keep else remove_element(device), severity, becomes="removed")


def _usb_devices(ctx: Context) -> bool:
    """Whether the domain has a device on a USB bus."""
    for device in ctx.domain.devices.children:
        parts = [device, *(child for child in device.children if child.tag in ("target", "model", "driver"))]
        values = {part.get(name) for part in parts for name in ("bus", "type", "model")}
        usb = {"usb", "mtp"} & values or any(value.startswith("usb-") for value in values)
        if device.tag in ("hub", "redirdev", "smartcard") or (device.tag != "controller" and usb):
            return True
    return False


def _foreign_name(device: Element) -> str:
    kind, bus = device.get("type"), device.get("bus")
    if device.tag in ABSENT:
        return ABSENT[device.tag]
    if device.tag == "memory" and MEMORY_DEVICES.foreign(device.get("model")):
        return f"{device.get('model')} memory"
    if device.tag == "controller" and CONTROLLERS.foreign(kind):
        return f"a {kind} controller"
    if device.tag == "controller" and kind == "usb":
        model = device.get("model")
        return f"a USB controller {model}" if USB_CONTROLLERS.foreign(model) or model == XHCI else ""
    if device.tag == "hostdev" and kind == "usb":
        return "a USB device"
    if device.tag == "input" and INPUT_BUSES.foreign(bus):
        return f"a {bus} input device"
    if device.tag == "input" and kind in HOST_INPUTS and not any(device.all("address")):
        return f"an input device of the host (type {kind})"
    if device.tag == "disk" and DISK_BUSES.foreign(disk_bus(device)) and not _removable(device):
        return f"a {disk_bus(device)} disk"
    return ""


def _removable(device: Element) -> bool:
    return device.get("device") in ("cdrom", "floppy")


@TABLE.rule(
    "PV608", Severity.ERROR, "a CD-ROM or floppy on a bus that s390x does not have",
    why="s390x does not have IDE, SATA, USB or floppy controllers.",
    effect="libvirt refuses the domain.",
    remedy="Use bus='scsi' for a CD-ROM, and remove a floppy.",
    safety=Safety.ASK, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<disk type='file' device='cdrom'>\n  <target dev='hdc' bus='ide'/>\n  <readonly/>\n</disk>",
)  # fmt: skip
def _removable_media(ctx: Context) -> Iterator[Hit]:
    names = disk_names(ctx)
    for disk in ctx.domain.disks:
        target = disk.find("target")
        bus = disk_bus(disk)
        if target is not None and _removable(disk) and DISK_BUSES.foreign(bus):
            if disk.get("device") == "floppy":
                change, becomes = remove_element(disk), "removed"
            else:
                change, becomes = move_disk(disk, target, "scsi", names), "bus='scsi'"
            yield Hit(target, f"s390x does not have a {bus} bus; use scsi", change, becomes=becomes)


@TABLE.rule(
    "PV610", Severity.WARNING, "graphics or video",
    why="QEMU draws the screen, so the host can see it.",
    effect="The host sees what the guest shows on its screen, and what a user types there.",
    remedy="Remove <graphics> and <video>, with what only a SPICE client uses; use the console or ssh.",
    safety=Safety.ASK, ports=True, example="<graphics type='vnc'/>",
)  # fmt: skip
def _graphics(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("graphics", "video"):
        if device.tag == "video" and (model := device.find("model")) is not None and model.get("type") == "none":
            continue
        change = remove_element(device)
        if device.get("type") == "spice":
            change = remove_elements([device, *_spice_devices(ctx)])
        yield Hit(device, "the host sees what the guest shows on its screen", change, becomes="removed")


def _spice_devices(ctx: Context) -> list[Element]:
    """The devices that libvirt refuses without SPICE graphics."""
    devices = ctx.domain.devices.children
    return [d for d in devices if d.get("type") == "spicevmc" or (d.tag == "audio" and d.get("type") == "spice")]


@TABLE.rule(
    "PV611", Severity.WARNING, "a guest agent channel",
    why="The agent runs commands and reads and writes files for the other end of the channel, which is the host.",
    effect="The host can control the guest as soon as the guest starts the agent.",
    remedy="Remove the channel, and remove the agent from the image.",
    safety=Safety.ASK,
    example="<channel type='unix'>\n  <target type='virtio' name='org.qemu.guest_agent.0'/>\n</channel>",
)  # fmt: skip
def _agent(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("channel"):
        target = device.find("target")
        if target is not None and target.get("name").startswith("org.qemu.guest_agent"):
            message = "the guest agent lets the host run commands in the guest, which defeats the protection"
            yield Hit(device, message, remove_element(device))


@TABLE.rule(
    "PV612", Severity.ADVICE, "a console that the host reads",
    why="The console is a device of the host.",
    effect="Users of the host see its output and can type into it.",
    remedy="Disable logins and emergency shells on the console in the image.",
    example="<console type='pty'>\n  <target type='sclp'/>\n</console>",
)  # fmt: skip
def _console(ctx: Context) -> Iterator[Hit]:
    device = next(ctx.domain.devices.all("console", "serial"), None)
    if device is not None:
        yield Hit(device, "the host can see and use consoles; disable logins on them")


@TABLE.rule(
    "PV613", Severity.ADVICE, "entropy from the host",
    why="The guest has its own instruction for true random numbers.",
    effect="The host chooses what the guest's /dev/hwrng returns.",
    remedy="Remove <rng>.",
    safety=Safety.ASK, example="<rng model='virtio'>\n  <backend model='random'>/dev/urandom</backend>\n"
    "  <driver iommu='on'/>\n</rng>",
)  # fmt: skip
def _rng(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("rng"):
        message = "the host supplies this entropy; remove it, the guest has its own generator"
        yield Hit(device, message, remove_element(device))


@TABLE.rule(
    "PV614", Severity.ADVICE, "a shared directory",
    why="The directory belongs to the host, which can read and change everything in it.",
    effect="Data in the share is not protected.",
    remedy="Keep secrets and programs off the share, or encrypt and sign them.",
    example="<filesystem type='mount'>\n  <driver type='path' iommu='on'/>\n  <source dir='/srv/share'/>\n"
    "  <target dir='share'/>\n</filesystem>",
)  # fmt: skip
def _share(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("filesystem"):
        yield Hit(device, "the host can read and change the content of a shared directory")


@TABLE.rule(
    "PV615", Severity.ADVICE, "disks are not encrypted by Secure Execution",
    why="Secure Execution encrypts the boot image and the guest's memory, not its disks. The host does the "
    "<encryption> in the domain and has its key.",
    effect="Without encryption inside the guest the host can read and change everything on the disk.",
    remedy="Use LUKS inside the guest, with a key in the image or in a secret.",
    example="<disk type='file' device='disk'>\n  <source file='/images/a.qcow2'>\n    <encryption format='luks'/>\n"
    "  </source>\n  <target dev='vda' bus='virtio'/>\n</disk>",
)  # fmt: skip
def _encryption(ctx: Context) -> Iterator[Hit]:
    disks = [disk for disk in ctx.domain.disks if not _removable(disk)]
    host_side = [e for disk in disks for e in disk.walk() if e.tag == "encryption"]
    if host_side:
        yield Hit(host_side[0], "the host does this encryption and has its key; use LUKS inside the guest")
    elif disks:
        yield Hit(disks[0], "the host can read this disk unless the guest encrypts it (LUKS), which XML does not show")
