"""The virtio devices of a domain on s390x, explicit or added by libvirt, and whether they are covered.

A virtio device is covered if its (first) ``<driver>`` child has ``iommu='on'``: QEMU then gives it
``iommu_platform=on``, and a protected guest accepts it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator

from zseal.domain.document import Element

DISKS_PER_SCSI_CONTROLLER = 15
"""The number of disks that libvirt puts on one SCSI controller if it assigns the addresses."""

MAX_CONTROLLER = 255
"""Highest controller number that is considered; a document can name any number."""

_DISK_BUS = {"vd": "virtio", "sd": "scsi", "hd": "ide", "fd": "fdc", "xvd": "xen", "ubd": "uml"}


def disk_bus(disk: Element) -> str:
    """The bus of a disk as stated, or as libvirt derives it from the target's name."""
    target = disk.find("target")
    if target is None:
        return ""
    name = re.match(r"(x?[a-z]d|ubd)", target.get("dev"))
    return target.get("bus") or _DISK_BUS.get(name[1] if name else "", "")


def disk_index(disk: Element) -> int:
    """The number in a disk's target name: ``sda`` is 0, ``sdaa`` 26."""
    target = disk.find("target")
    letters = re.fullmatch(r"(?:[shfv]d|xvd)([a-z]{1,4})\d*", target.get("dev") if target is not None else "")
    index = 0
    for letter in letters[1] if letters else "a":
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def model_of(device: Element) -> str:
    """The device's model, from its ``model`` attribute or its ``<model type=…>`` (or ``<model name=…>``) child."""
    model = device.find("model")
    return device.get("model") or (model.get("type") if model is not None else "")


def virtio_or_default(device: Element) -> bool:
    """Whether the model is a virtio one, or not stated and virtio is libvirt's default on s390x."""
    model = model_of(device)
    return not model or model.startswith("virtio")


def _named(device: Element, child: str, *attributes: str) -> str:
    element = device.find(child)
    return next((element.get(name) for name in attributes if element is not None and element.get(name)), "?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VirtioKind:
    """A kind of virtio device: how to recognise and name one; its lint rules are in rules/coverage.py."""

    tag: str
    noun: str
    is_virtio: Callable[[Element], bool] = virtio_or_default
    name: Callable[[Element], str] = lambda _: ""
    driver_first: bool = False
    """Whether libvirt writes ``<driver>`` as the first child."""
    iommu_since: tuple[int, ...] = (3, 5, 0)
    """The libvirt release that has the iommu attribute on this kind."""

    def describe(self, device: Element) -> str:
        """A name for messages, such as ``disk vda``."""
        return f"{self.noun} {self.name(device)}".strip()


def _filesystem(device: Element) -> bool:
    return device.get("type", "mount") in ("mount", "template", "file", "block", "ram", "bind", "volume")


def _input(device: Element) -> bool:
    return device.get("bus", "virtio") == "virtio" and device.get("type") != "evdev"


def _interface_name(device: Element) -> str:
    if device.find("mac"):
        return _named(device, "mac", "address")
    return _named(device, "source", "network", "bridge", "dev")


def _index(device: Element) -> str:
    return device.get("index", "0")


DISK = VirtioKind(
    tag="disk", noun="disk", driver_first=True,
    is_virtio=lambda d: disk_bus(d) == "virtio", name=lambda d: _named(d, "target", "dev"),
)  # fmt: skip
INTERFACE = VirtioKind(
    tag="interface", noun="interface",
    is_virtio=lambda d: d.get("type") != "hostdev" and virtio_or_default(d), name=_interface_name,
)  # fmt: skip
SCSI_CONTROLLER = VirtioKind(
    tag="controller", noun="SCSI controller",
    is_virtio=lambda d: d.get("type") == "scsi" and virtio_or_default(d), name=_index,
)  # fmt: skip
SERIAL_CONTROLLER = VirtioKind(
    tag="controller", noun="virtio-serial controller",
    is_virtio=lambda d: d.get("type") == "virtio-serial", name=_index,
)  # fmt: skip
RNG = VirtioKind(tag="rng", noun="random number generator")
BALLOON = VirtioKind(tag="memballoon", noun="memory balloon")
VSOCK = VirtioKind(tag="vsock", noun="vsock", iommu_since=(7, 1, 0))
FILESYSTEM = VirtioKind(
    tag="filesystem", noun="filesystem", driver_first=True,
    is_virtio=_filesystem, name=lambda d: _named(d, "target", "dir"),
)  # fmt: skip
INPUT = VirtioKind(tag="input", noun="input device", is_virtio=_input, name=lambda d: d.get("type"))
VIDEO = VirtioKind(tag="video", noun="video device", driver_first=True)
CRYPTO = VirtioKind(tag="crypto", noun="crypto device", iommu_since=(9, 0, 1))
SOUND = VirtioKind(
    tag="sound", noun="sound device", is_virtio=lambda d: d.get("model") == "virtio", iommu_since=(9, 0, 1)
)
KINDS = (
    DISK, INTERFACE, SCSI_CONTROLLER, SERIAL_CONTROLLER, RNG, BALLOON, VSOCK, FILESYSTEM, INPUT, VIDEO, CRYPTO, SOUND,
)  # fmt: skip
"""Every kind of device that the iommu attribute can cover."""


@dataclasses.dataclass(frozen=True)
class ExplicitDevice:
    """A virtio device that the XML contains."""

    kind: VirtioKind
    element: Element

    @property
    def driver(self) -> Element | None:
        """The only driver element that libvirt reads."""
        return self.element.find("driver")

    @property
    def iommu(self) -> str:
        """The value of the iommu attribute that libvirt reads, or ``""``."""
        return self.driver.get("iommu") if self.driver is not None else ""

    @property
    def covered(self) -> bool:
        """Whether the device has ``iommu='on'``."""
        return self.iommu == "on"

    def __str__(self) -> str:
        return self.kind.describe(self.element)


@dataclasses.dataclass(frozen=True)
class ImplicitDevice:
    """A virtio device that libvirt adds because of ``cause``; ``fragment`` is the XML of that device, covered."""

    kind: VirtioKind
    noun: str
    cause: Element
    fragment: str


def virtio_devices(devices: Element) -> Iterator[ExplicitDevice]:
    """Yield the virtio devices below ``<devices>``, in document order."""
    for element in devices.children:
        for kind in KINDS:
            if element.tag == kind.tag and kind.is_virtio(element):
                yield ExplicitDevice(kind, element)
                break


def controller_fragment(kind: str, index: int, *, covered: bool = True) -> str:
    """The XML of a controller of ``kind`` (scsi or virtio-serial)."""
    model = " model='virtio-scsi'" if kind == "scsi" else ""
    start = f"<controller type='{kind}' index='{index}'{model}"
    return f"{start}>\n  <driver iommu='on'/>\n</controller>" if covered else f"{start}/>"


VIDEO_FRAGMENT = "<video>\n  <driver iommu='on'/>\n  <model type='virtio'/>\n</video>"


def _number(text: str, default: int = 0) -> int:
    try:
        return int(text, 0) if len(text) < 12 else default
    except ValueError:
        return default


def _address(device: Element, kind: str) -> Element | None:
    return next((a for a in device.all("address") if a.get("type") == kind), None)


def _scsi_users(devices: Element) -> Iterator[tuple[int, Element]]:
    for device in devices.children:
        if device.tag == "disk" and disk_bus(device) == "scsi":
            address = _address(device, "drive")
            default = disk_index(device) // DISKS_PER_SCSI_CONTROLLER
            yield (_number(address.get("controller")) if address is not None else default), device
        elif device.tag == "hostdev" and device.get("type") == "scsi":
            address = _address(device, "drive")
            yield (_number(address.get("controller")) if address is not None else 0), device


def _serial_users(devices: Element) -> Iterator[tuple[int, Element]]:
    for device in devices.all("channel", "console", "serial"):
        target = device.find("target")
        if target is not None and target.get("type") == "virtio":
            address = _address(device, "virtio-serial")
            yield (_number(address.get("controller")) if address is not None else 0), device


def _missing_controllers(devices: Element) -> Iterator[tuple[str, int, Element]]:
    """The controllers that libvirt adds: type, index, and the device each is added for."""
    explicit: dict[str, set[int]] = {"scsi": set(), "virtio-serial": set()}
    for controller in devices.all("controller"):
        if controller.get("type") in explicit:
            explicit[controller.get("type")].add(_number(controller.get("index", "0")))
    last, cause = max(_scsi_users(devices), key=lambda user: user[0], default=(-1, devices))
    for index in range(min(last, MAX_CONTROLLER) + 1):  # libvirt fills the gaps below the highest one too
        if index not in explicit["scsi"]:
            yield "scsi", index, cause
    for index, device in _serial_users(devices):
        if index not in explicit["virtio-serial"]:
            explicit["virtio-serial"].add(index)
            yield "virtio-serial", index, device


def implicit_devices(devices: Element) -> Iterator[ImplicitDevice]:
    """Yield the uncovered virtio devices that libvirt adds, except the balloon (PV301)."""
    for kind, index, cause in _missing_controllers(devices):
        virtio_kind = SCSI_CONTROLLER if kind == "scsi" else SERIAL_CONTROLLER
        yield ImplicitDevice(virtio_kind, f"{virtio_kind.noun} {index}", cause, controller_fragment(kind, index))
    graphics = next(devices.all("graphics"), None)
    if graphics is not None and devices.find("video") is None:
        yield ImplicitDevice(VIDEO, VIDEO.noun, graphics, VIDEO_FRAGMENT)
