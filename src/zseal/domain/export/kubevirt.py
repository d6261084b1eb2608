"""A KubeVirt VirtualMachine."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from zseal.domain.export.devices import disks, interfaces, others
from zseal.domain.export.interface import Exported, Exporter, Notes, memory_of, vcpus_of
from zseal.domain.export.shape import misfits
from zseal.domain.model import Domain
from zseal.errors import ZsealError
from zseal.yamltext import to_yaml

API_VERSION = "kubevirt.io/v1"
_BUSES = ("virtio", "scsi", "sata", "usb")

# The part of KubeVirt's API (kubevirt.io/v1) that is written here.
SCHEMA = {
    "apiVersion": (API_VERSION,),
    "kind": ("VirtualMachine",),
    "metadata": {"name": str},
    "spec": {
        "runStrategy": ("Always", "Halted", "Manual", "RerunOnFailure", "Once"),
        "template": {
            "spec": {
                "architecture": ("s390x",),
                "domain": {
                    "cpu": {"cores": int, "model": str},
                    "memory": {"guest": str},
                    "firmware": {"kernelBoot": {"container": {"image": str, "kernelPath": str}}},
                    "launchSecurity": {},
                    "devices": {
                        "autoattachMemBalloon": bool,
                        "autoattachGraphicsDevice": bool,
                        "autoattachPodInterface": bool,
                        "autoattachSerialConsole": bool,
                        "networkInterfaceMultiqueue": bool,
                        "disks": [{"name": str, "disk": {"bus": _BUSES}, "bootOrder": int}],
                        "interfaces": [{"name": str, "masquerade": {}, "model": ("virtio",), "macAddress": str}],
                    },
                },
                "networks": [{"name": str, "pod": {}}],
                "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
            }
        },
    },
}


def _label(text: str, fallback: str) -> str:
    """A name as Kubernetes allows it (RFC 1123 label)."""
    name = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63].strip("-")
    return name or fallback


def _quantity(size: int) -> str:
    for shift, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


class KubeVirtExporter(Exporter):
    """Writes launchSecurity, which KubeVirt turns into the iommu style."""

    def export(self, domain: Domain) -> Exported:
        """See :meth:`Exporter.export`."""
        notes = Notes()
        notes.add("KubeVirt 1.6 or newer with the feature gate SecureExecution (1.9: without), nodes on s390x only")
        document = self._document(domain, notes)
        wrong = misfits(document, SCHEMA)
        if wrong:  # only a mistake of zseal's own gets here
            raise ZsealError(f"the exported VirtualMachine does not fit KubeVirt's API: {wrong[0]}")
        return Exported(to_yaml(document), notes.lines())

    def _document(self, domain: Domain, notes: Notes) -> dict[str, object]:
        name = _label(domain.name, "guest")
        disk_list, volumes = self._disks(domain, name, notes)
        networks = self._networks(domain, notes)
        devices: dict[str, object] = {
            "autoattachMemBalloon": False,
            "autoattachGraphicsDevice": False,
            "disks": disk_list,
        }
        if networks:
            devices["interfaces"] = networks
        else:
            devices["autoattachPodInterface"] = False
        if not any(domain.devices.all("console", "serial")):
            devices["autoattachSerialConsole"] = False
        body: dict[str, object] = {
            "cpu": {"cores": vcpus_of(domain), "model": "host-model"},
            "memory": {"guest": _quantity(memory_of(domain))},
            "launchSecurity": {},
        }
        if domain.kernel is not None:
            path = PurePosixPath(domain.kernel.value)
            image = f"{name}-kernel:latest"
            body["firmware"] = {"kernelBoot": {"container": {"image": image, "kernelPath": f"/boot/{path.name}"}}}
            notes.add(f"put {path} into a container image as /boot/{path.name}, and use its name instead of {image}")
        body["devices"] = devices
        known = frozenset({"console", "serial", "controller"})
        for device in others(domain, known):
            notes.add(f"the {device.name} device is not exported")
        spec: dict[str, object] = {"architecture": "s390x", "domain": body}
        if networks:
            spec["networks"] = [{"name": network["name"], "pod": {}} for network in networks]
        if volumes:
            spec["volumes"] = volumes
        return {
            "apiVersion": API_VERSION,
            "kind": "VirtualMachine",
            "metadata": {"name": name},
            "spec": {"runStrategy": "Always", "template": {"spec": spec}},
        }

    @staticmethod
    def _disks(domain: Domain, name: str, notes: Notes) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        listed: list[dict[str, object]] = []
        volumes: list[dict[str, object]] = []
        for disk in disks(domain):
            if not disk.path or disk.kind != "disk":
                notes.add(f"the {disk.kind} {disk.target} is not exported")
                continue
            label = _label(disk.target, f"disk{len(listed)}")
            claim = f"{name}-{label}"
            entry: dict[str, object] = {"name": label, "disk": {"bus": disk.bus}}
            if disk.boot_order:
                entry["bootOrder"] = disk.boot_order
            listed.append(entry)
            volumes.append({"name": label, "persistentVolumeClaim": {"claimName": claim}})
            notes.add(f"upload {disk.path} to the claim {claim} (virtctl image-upload)")
        return listed, volumes

    @staticmethod
    def _networks(domain: Domain, notes: Notes) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for interface in interfaces(domain):
            if found:
                notes.add("KubeVirt has one pod network: further interfaces need a Multus network each")
                break
            entry: dict[str, object] = {"name": "default", "masquerade": {}, "model": "virtio"}
            if interface.mac:
                entry["macAddress"] = interface.mac
            notes.add(f"the interface of type {interface.kind} becomes the pod network with NAT")
            found.append(entry)
        return found
