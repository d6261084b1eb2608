"""Rules about devices that a protected guest cannot use or should not have: PV601 to PV615."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import disk_bus
from zseal.domain.document import Element
from zseal.domain.edits import Change, remove_element, remove_elements, set_attributes
from zseal.domain.model import Style
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
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
    for device in _hostdevs(ctx, "mdev", "vfio-ap"):
        yield Hit(device, "AP passthrough needs z16 or newer, a recent host kernel and QEMU")


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
    "PV606", Severity.WARNING, "a device in another host process",
    why="virtiofs and vhost-user devices run in other host processes that map the guest's memory.",
    effect="This is untested with protected guests; such a device may stop the guest or not respond.",
    remedy="Use a device that QEMU itself emulates.",
    example="<filesystem type='mount'>\n  <driver type='virtiofs' iommu='on'/>\n  <source dir='/srv/share'/>\n"
    "  <target dir='share'/>\n</filesystem>",
)  # fmt: skip
def _shared_memory(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        driver = device.find("driver")
        virtiofs = device.tag == "filesystem" and driver is not None and driver.get("type") == "virtiofs"
        if virtiofs or (device.tag in ("interface", "disk") and device.get("type") == "vhostuser"):
            what = "virtiofs" if virtiofs else f"a vhost-user {device.tag}"
            yield Hit(device, f"{what} works through shared memory, which is untested with protected guests")


@TABLE.rule(
    "PV607", Severity.ERROR, "a device that s390x does not have",
    why="s390x does not have USB, SATA, IDE or a TPM, and shared-memory and NVDIMM devices would map guest memory.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Remove the device; use bus='virtio' or 'scsi' for a disk.",
    safety=Safety.ASK, caught_by=CaughtBy.LIBVIRT,
    example="<shmem name='s'>\n  <model type='ivshmem-plain'/>\n</shmem>",
)  # fmt: skip
def _foreign(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.children:
        name = _foreign_name(device)
        if name:
            # a disk is never removed: its bus has to change instead
            change = Change() if device.tag == "disk" else remove_element(device)
            yield Hit(device, f"{name} does not exist on s390x or shares guest memory", change)


def _foreign_name(device: Element) -> str:
    kind, bus = device.get("type"), device.get("bus")
    if device.tag in ("shmem", "tpm", "hub", "smartcard"):
        return {"hub": "a USB hub"}.get(device.tag, device.tag)
    if device.tag == "memory" and device.get("model") in ("nvdimm", "dimm", "sgx-epc"):
        return f"{device.get('model')} memory"
    if device.tag == "controller" and kind in ("usb", "ide", "sata", "fdc", "ccid") and device.get("model") != "none":
        return f"a {kind} controller"
    if device.tag == "hostdev" and kind == "usb":
        return "a USB device"
    if device.tag == "redirdev" and (bus or "usb") == "usb":
        return "USB redirection"
    if device.tag == "input" and bus in ("usb", "ps2"):
        return f"a {bus} input device"
    if device.tag == "disk" and disk_bus(device) in ("usb", "sata", "ide", "fdc") and not _removable(device):
        return f"a {disk_bus(device)} disk"
    return ""


def _removable(device: Element) -> bool:
    return device.get("device") in ("cdrom", "floppy")


@TABLE.rule(
    "PV608", Severity.WARNING, "a CD-ROM or floppy on a bus that s390x does not have",
    why="s390x does not have IDE, SATA, USB or floppy controllers.",
    effect="libvirt refuses the domain.",
    remedy="Use bus='scsi' for a CD-ROM, and remove a floppy.",
    safety=Safety.ASK, caught_by=CaughtBy.LIBVIRT,
    example="<disk type='file' device='cdrom'>\n  <target dev='hdc' bus='ide'/>\n  <readonly/>\n</disk>",
)  # fmt: skip
def _removable_media(ctx: Context) -> Iterator[Hit]:
    names = {target.get("dev") for disk in ctx.domain.disks if (target := disk.find("target")) is not None}
    for disk in ctx.domain.disks:
        target = disk.find("target")
        bus = disk_bus(disk)
        if target is not None and _removable(disk) and bus in ("ide", "sata", "fdc", "usb"):
            if disk.get("device") == "floppy":
                change = remove_element(disk)
            else:
                free = next(f"sd{c}" for c in "abcdefghijklmnopqrstuvwxyz" if f"sd{c}" not in names or c == "z")
                names.add(free)
                addresses = list(disk.all("address"))
                change = Change([*set_attributes(target, dev=free, bus="scsi"), *remove_elements(addresses)])
            yield Hit(target, f"s390x does not have a {bus} bus; use scsi", change)


@TABLE.rule(
    "PV610", Severity.WARNING, "graphics or video",
    why="QEMU draws the screen, so the host can see it.",
    effect="The host sees what the guest shows on its screen, and what a user types there.",
    remedy="Remove <graphics> and <video>; use the console or ssh.",
    safety=Safety.ASK, example="<graphics type='vnc'/>",
)  # fmt: skip
def _graphics(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("graphics", "video"):
        if device.tag == "video" and (model := device.find("model")) is not None and model.get("type") == "none":
            continue
        yield Hit(device, "the host sees what the guest shows on its screen", remove_element(device))


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
