"""What the rules ask of a domain: its protection style, memory, processors, devices, and the boot it describes."""

from __future__ import annotations

import enum
from functools import cached_property

from zseal.domain.devices import ExplicitDevice, ImplicitDevice, implicit_devices, virtio_devices
from zseal.domain.document import Document, Element

S390_PV = "s390-pv"

_UNITS = {
    "b": 1, "bytes": 1, "": 1 << 10, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30,
    "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip


class Style(enum.Enum):
    """How a domain permits the switch to protected mode."""

    LAUNCH_SECURITY = "launchSecurity"
    IOMMU = "iommu"
    NONE = "none"


def size_in_bytes(element: Element | None) -> int | None:
    """The memory size an element states (libvirt's units, KiB by default), or None if it is not a number."""
    if element is None or not element.value.isascii() or not element.value.isdigit() or len(element.value) > 20:
        return None
    unit = _UNITS.get(element.get("unit").lower())
    return int(element.value) * unit if unit else None


class Domain:
    """A view of a domain document. It reads lazily and changes nothing."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.root = document.root

    @cached_property
    def name(self) -> str:
        """The domain's name, or ``""``."""
        element = self.root.find("name")
        return element.value if element is not None else ""

    @cached_property
    def devices(self) -> Element:
        """The ``<devices>`` element; an empty stand-in if the domain has none."""
        found = self.root.find("devices")
        return found if found is not None else Element(b"", "devices", "devices", {}, None, 0)

    @cached_property
    def launch_security(self) -> list[Element]:
        """The launchSecurity children of the root."""
        return list(self.root.all("launchSecurity"))

    @cached_property
    def style(self) -> Style:
        """How the domain is protected. Failed attempts at the iommu style count as that style."""
        # libvirt reads the first launchSecurity only
        if self.launch_security and self.launch_security[0].get("type") == S390_PV:
            return Style.LAUNCH_SECURITY
        return Style.IOMMU if self.iommu_elements else Style.NONE

    @cached_property
    def iommu_elements(self) -> list[Element]:
        """The elements below ``<devices>`` with an iommu attribute that is not ``off``, wherever it is written."""
        return [e for e in self.devices.walk() if e.get("iommu", "off") != "off"]

    @cached_property
    def virtio(self) -> list[ExplicitDevice]:
        """The virtio devices that the XML contains."""
        return list(virtio_devices(self.devices))

    @cached_property
    def implicit(self) -> list[ImplicitDevice]:
        """The virtio devices that libvirt would add."""
        return list(implicit_devices(self.devices))

    @cached_property
    def memory(self) -> int | None:
        """The guest's memory in bytes, or None if the domain does not state it as a number."""
        return size_in_bytes(self.root.find("memory"))

    @cached_property
    def vcpus(self) -> int | None:
        """The maximum number of virtual processors (1 if not stated), or None if it is not a number."""
        element = self.root.find("vcpu")
        if element is None:
            return 1
        return int(element.value) if element.value.isdecimal() and len(element.value) < 10 else None

    @cached_property
    def os(self) -> Element | None:
        """The ``<os>`` element."""
        return self.root.find("os")

    @cached_property
    def kernel(self) -> Element | None:
        """The ``<kernel>`` element of a direct boot."""
        return self.root.find("os", "kernel")

    @cached_property
    def disks(self) -> list[Element]:
        """All disks, of any bus."""
        return list(self.devices.all("disk"))
