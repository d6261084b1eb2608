"""The devices of a domain as exporters need them: plain values instead of XML."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from zseal.domain.devices import disk_bus
from zseal.domain.document import Element
from zseal.domain.model import Domain


@dataclasses.dataclass(frozen=True)
class ExportedDisk:
    """A disk: its host file or device ("" for an empty drive or another source), format, bus and place in the boot."""

    path: str
    format: str
    bus: str
    target: str
    kind: str
    is_block: bool
    readonly: bool
    boot_order: int
    covered: bool
    queues: str
    cache: str
    io: str


@dataclasses.dataclass(frozen=True)
class ExportedInterface:
    """A network interface: the source type with its name, and the address."""

    kind: str
    source: str
    mac: str
    boot_order: int
    covered: bool
    queues: str


def _get(device: Element, tag: str, *attributes: str) -> str:
    element = device.find(tag)
    return next((element.get(name) for name in attributes if element is not None and element.get(name)), "")


def _order(device: Element) -> int:
    order = _get(device, "boot", "order")
    return int(order) if order.isdecimal() and len(order) < 6 else 0


def disks(domain: Domain) -> Iterator[ExportedDisk]:
    """Yield the disks."""
    for device in domain.disks:
        yield ExportedDisk(
            path=_get(device, "source", "file", "dev"),
            format=_get(device, "driver", "type") or "raw",
            bus=disk_bus(device),
            target=_get(device, "target", "dev"),
            kind=device.get("device", "disk"),
            is_block=device.get("type") == "block",
            readonly=device.find("readonly") is not None,
            boot_order=_order(device),
            covered=_get(device, "driver", "iommu") == "on",
            queues=_get(device, "driver", "queues"),
            cache=_get(device, "driver", "cache"),
            io=_get(device, "driver", "io"),
        )


def interfaces(domain: Domain) -> Iterator[ExportedInterface]:
    """Yield the network interfaces."""
    for device in domain.devices.all("interface"):
        yield ExportedInterface(
            kind=device.get("type"),
            source=_get(device, "source", "network", "bridge", "dev"),
            mac=_get(device, "mac", "address"),
            boot_order=_order(device),
            covered=_get(device, "driver", "iommu") == "on",
            queues=_get(device, "driver", "queues"),
        )


# elements below <devices> that other programs do not need
SILENT = frozenset({"emulator", "memballoon", "panic", "audio"})


def others(domain: Domain, known: frozenset[str]) -> Iterator[Element]:
    """Yield the devices of kinds other than ``known``, which the exporter reports in a note."""
    for device in domain.devices.children:
        if device.tag not in known | SILENT | {"disk", "interface"}:
            yield device
