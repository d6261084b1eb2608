"""A virt-install command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from zseal.domain.export.devices import disks, interfaces, others
from zseal.domain.export.interface import Exported, Exporter, Notes, memory_of, vcpus_of
from zseal.domain.model import Domain, Style
from zseal.domain.rules.cpu import custom_model
from zseal.errors import InputError

Arguments = list[str]
# the devices whose driver options virt-install can set
_COVERABLE = {"rng": "--rng", "vsock": "--vsock", "input": "--input", "video": "--video", "filesystem": "--filesystem"}


class VirtInstallExporter(Exporter):
    """Imports existing disks or boots the image directly, and turns off what virt-install adds on its own."""

    def export(self, domain: Domain) -> Exported:
        """See :meth:`Exporter.export`."""
        notes = Notes()
        options = [*self._machine(domain), *self._devices(domain, notes)]
        words = [" ".join(shlex.quote(word) for word in option) for option in options]
        return Exported(" \\\n  ".join(["virt-install", *words]) + "\n", notes.lines())

    @staticmethod
    def _machine(domain: Domain) -> Iterator[Arguments]:
        memory = memory_of(domain)
        if memory % (1 << 20):
            raise InputError("virt-install needs whole MiB of memory", where=domain.document.name)
        yield ["--name", domain.name or "guest"]
        yield ["--arch", "s390x"]
        yield ["--memory", str(memory >> 20)]
        yield ["--vcpus", str(vcpus_of(domain))]
        yield ["--cpu", _cpu(domain)]
        if domain.style is Style.LAUNCH_SECURITY:
            yield ["--launchSecurity", "type=s390-pv"]
        else:
            yield ["--memorybacking", "nosharepages=yes"]
        if domain.kernel is not None:
            yield ["--boot", f"kernel={_comma(domain.kernel.value)}"]
        else:
            yield ["--import"]

    @staticmethod
    def _devices(domain: Domain, notes: Notes) -> Iterator[Arguments]:
        iommu = domain.style is Style.IOMMU
        found = False
        for disk in disks(domain):
            if not disk.path:
                notes.add(f"the disk {disk.target} has no file or device and is not exported")
                continue
            found = True
            parts = [f"path={_comma(disk.path)}", f"bus={disk.bus}", f"driver.type={disk.format}"]
            parts += [f"device={disk.kind}"] if disk.kind != "disk" else []
            parts += [f"cache={disk.cache}"] if disk.cache else []
            parts += [f"driver.io={disk.io}"] if disk.io else []
            parts += [f"driver.queues={disk.queues}"] if disk.queues else []
            parts += [f"boot.order={disk.boot_order}"] if disk.boot_order else []
            parts += ["driver.iommu=on"] if disk.covered else []
            yield ["--disk", ",".join(parts)]
        if not found:
            yield ["--disk", "none"]
        yield from _networks(domain, notes)
        yield from _controllers(domain, iommu)
        if any(domain.devices.all("console", "serial")):
            yield ["--console", "pty,target.type=sclp"]
        for device in others(domain, frozenset({"console", "serial", "controller", "watchdog", *_COVERABLE})):
            notes.add(f"the {device.name} device is not exported")
        yield from _covered_devices(domain, iommu, notes)
        for device in domain.devices.all("watchdog"):
            yield ["--watchdog", f"diag288,action={device.get('action', 'reset')}"]
        # without these options virt-install adds an agent channel, a random number generator and a balloon
        yield ["--channel", "none"]
        if domain.devices.find("rng") is None:
            yield ["--rng", "none"]
        yield ["--graphics", "none"]
        yield ["--memballoon", "none"]
        yield ["--osinfo", "detect=on,require=off"]


def _comma(value: str) -> str:
    """A value inside an option: a comma is written twice."""
    return value.replace(",", ",,")


def _cpu(domain: Domain) -> str:
    cpu = domain.root.find("cpu")
    model = custom_model(cpu)
    if cpu is None or model is None:
        mode = cpu.get("mode") if cpu is not None else ""
        return mode if mode in ("host-passthrough", "maximum") else "host-model"
    return ",".join([model.value, *(f"require={f.get('name')}" for f in cpu.all("feature"))])


def _networks(domain: Domain, notes: Notes) -> Iterator[Arguments]:
    found = False
    for interface in interfaces(domain):
        if interface.kind not in ("network", "bridge", "user"):
            notes.add(f"the interface of type {interface.kind} is not exported")
            continue
        found = True
        parts = [f"{interface.kind}={interface.source}" if interface.source else interface.kind, "model=virtio"]
        parts += [f"mac={interface.mac}"] if interface.mac else []
        parts += [f"driver.queues={interface.queues}"] if interface.queues else []
        parts += ["driver.iommu=on"] if interface.covered else []
        yield ["--network", ",".join(parts)]
    if not found:
        yield ["--network", "none"]


def _controllers(domain: Domain, iommu: bool) -> Iterator[Arguments]:
    for controller in domain.devices.all("controller"):
        if controller.get("type") in ("scsi", "virtio-serial"):
            parts = [f"type={controller.get('type')}", f"index={controller.get('index', '0')}"]
            parts += ["model=virtio-scsi"] if controller.get("type") == "scsi" else []
            parts += ["driver.iommu=on"] if iommu else []
            yield ["--controller", ",".join(parts)]


def _covered_devices(domain: Domain, iommu: bool, notes: Notes) -> Iterator[Arguments]:
    suffix = ",driver.iommu=on" if iommu else ""
    for device in domain.devices.children:
        if device.tag == "rng":
            yield ["--rng", f"/dev/urandom{suffix}"]
        elif device.tag == "vsock":
            cid = device.find("cid")
            address = cid.get("address") if cid is not None else ""
            yield ["--vsock", (f"cid={address}" if address else "auto_cid=yes") + suffix]
        elif device.tag in _COVERABLE:
            notes.add(f"the {device.name} device is not exported")
