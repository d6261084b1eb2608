"""A QEMU command line for a host with KVM."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from zseal.domain.export.devices import ExportedDisk, ExportedInterface, disks, interfaces, others
from zseal.domain.export.interface import Exported, Exporter, Notes, memory_of, vcpus_of
from zseal.domain.model import Domain, Style
from zseal.domain.rules.cpu import custom_model
from zseal.errors import InputError

Arguments = list[str]
# what libvirt's network "default" uses
DEFAULT_BRIDGE = "virbr0"


def _comma(value: str) -> str:
    """A value inside a QEMU option: a comma is written twice."""
    return value.replace(",", ",,")


class QemuExporter(Exporter):
    """One option a line, in the order of the domain."""

    def export(self, domain: Domain) -> Exported:
        """See :meth:`Exporter.export`."""
        notes = Notes()
        options = [
            *self._machine(domain),
            *self._devices(domain, notes),
        ]
        words = [" ".join(shlex.quote(word) for word in option) for option in options]
        text = " \\\n  ".join(["qemu-system-s390x", *words]) + "\n"
        return Exported(text, notes.lines())

    @staticmethod
    def _machine(domain: Domain) -> Iterator[Arguments]:
        machine = domain.root.find("os", "type")
        name = (machine.get("machine") if machine is not None else "") or "s390-ccw-virtio"
        protected = domain.style is Style.LAUNCH_SECURITY
        support = ",confidential-guest-support=pv0" if protected else ",mem-merge=off"
        yield ["-name", f"guest={_comma(domain.name)}"]
        yield ["-machine", f"{name},accel=kvm{support}"]
        if protected:
            yield ["-object", "s390-pv-guest,id=pv0"]
        yield ["-cpu", _cpu(domain)]
        memory = memory_of(domain)
        if memory % (1 << 20):
            raise InputError("QEMU needs whole MiB of memory", where=domain.document.name)
        yield ["-m", str(memory >> 20)]
        yield ["-smp", str(vcpus_of(domain))]
        yield ["-nodefaults"]
        yield ["-no-user-config"]
        yield ["-display", "none"]
        if domain.kernel is not None:
            yield ["-kernel", domain.kernel.value]

    @staticmethod
    def _devices(domain: Domain, notes: Notes) -> Iterator[Arguments]:
        iommu = domain.style is Style.IOMMU
        ordered = any(disk.boot_order for disk in disks(domain)) or domain.kernel is not None
        yield from _controllers(domain, iommu)
        for number, disk in enumerate(disks(domain)):
            yield from _disk(disk, number, 1 if not ordered and number == 0 else disk.boot_order, notes)
        for number, interface in enumerate(interfaces(domain)):
            yield from _interface(interface, number, notes)
        known = frozenset({"console", "serial", "controller", "rng", "vsock", "watchdog"})
        if any(domain.devices.all("console", "serial")):
            yield ["-chardev", "stdio,id=console0,signal=off"]
            yield ["-device", "sclpconsole,chardev=console0"]
        for device in domain.devices.all("rng"):
            yield ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
            yield [
                "-device",
                _with("virtio-rng-ccw,rng=rng0", iommu_platform=iommu and device.find("driver") is not None),
            ]
        for device in domain.devices.all("vsock"):
            cid = device.find("cid")
            address = (cid.get("address") if cid is not None else "") or "3"
            yield ["-device", _with(f"vhost-vsock-ccw,guest-cid={address}", iommu_platform=iommu)]
        for device in domain.devices.all("watchdog"):
            yield ["-device", "diag288"]
            yield ["-watchdog-action", device.get("action", "reset")]
        for device in others(domain, known):
            notes.add(f"the {device.name} device is not exported")


def _with(device: str, **switches: bool) -> str:
    return device + "".join(f",{name}=on" for name, on in switches.items() if on)


def _cpu(domain: Domain) -> str:
    cpu = domain.root.find("cpu")
    model = custom_model(cpu)
    if cpu is None or model is None:
        return "host"
    features = [f"{f.get('name')}=on" for f in cpu.all("feature") if f.get("policy", "require") in ("require", "force")]
    return ",".join([model.value, *features])


def _controllers(domain: Domain, iommu: bool) -> Iterator[Arguments]:
    numbers = {c.get("index", "0") for c in domain.devices.all("controller") if c.get("type") == "scsi"}
    if any(disk.bus == "scsi" for disk in disks(domain)):
        numbers.add("0")
    for number in sorted(numbers):
        yield ["-device", _with(f"virtio-scsi-ccw,id=scsi{number}", iommu_platform=iommu)]


def _disk(disk: ExportedDisk, number: int, order: int, notes: Notes) -> Iterator[Arguments]:
    if not disk.path:
        notes.add(f"the disk {disk.target} has no file or device and is not exported")
        return
    node = f"disk{number}"
    file: dict[str, object] = {"driver": "host_device" if disk.is_block else "file", "filename": disk.path}
    cache = {"direct": True, "no-flush": False} if disk.cache == "none" else None
    if disk.io == "native":
        file["aio"] = "native"
    block: dict[str, object] = {"driver": disk.format, "node-name": node, "read-only": disk.readonly, "file": file}
    if cache:
        block["cache"] = cache
        file["cache"] = cache
    yield ["-blockdev", json.dumps(block)]
    index = f",bootindex={order}" if order else ""
    if disk.bus == "scsi":
        model = "scsi-cd" if disk.kind == "cdrom" else "scsi-hd"
        yield ["-device", f"{model},bus=scsi0.0,drive={node}{index}"]
    else:
        queues = f",num-queues={disk.queues}" if disk.queues else ""
        yield ["-device", _with(f"virtio-blk-ccw,drive={node}{index}{queues}", iommu_platform=disk.covered)]


def _interface(interface: ExportedInterface, number: int, notes: Notes) -> Iterator[Arguments]:
    name = f"net{number}"
    if interface.kind == "user":
        yield ["-netdev", f"user,id={name}"]
    elif interface.kind in ("network", "bridge"):
        bridge = interface.source
        if interface.kind == "network":
            bridge = DEFAULT_BRIDGE
            notes.add(f"libvirt's network {interface.source!r} is assumed to be the bridge {bridge}; check it")
        yield ["-netdev", f"bridge,id={name},br={_comma(bridge)}"]
    else:
        notes.add(f"the interface of type {interface.kind} is not exported")
        return
    mac = f",mac={interface.mac}" if interface.mac else ""
    index = f",bootindex={interface.boot_order}" if interface.boot_order else ""
    yield ["-device", _with(f"virtio-net-ccw,netdev={name}{mac}{index}", iommu_platform=interface.covered)]
