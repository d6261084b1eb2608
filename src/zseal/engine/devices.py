"""The devices of a guest, and how QEMU is told of them.

All of them are virtio-ccw devices with ``iommu_platform``: what a protected guest needs, because only then does its
kernel send data through pages it has shared. ``iommu=False`` makes a device that such a guest refuses, as it does on
hardware.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Protocol

from zseal.errors import UsageError

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PORTS = 65535
_GROUP_ADDRESS = 1  # bit of a MAC address's first byte


class Device(Protocol):
    """Something that can be plugged into a machine."""

    def arguments(self, index: int) -> list[str]:
        """Return the QEMU arguments of this device, the ``index``-th of its kind, from 0."""


def _virtio(driver: str, name: str, *, iommu: bool, **properties: str | int) -> list[str]:
    device: dict[str, str | int | bool] = {"driver": driver, "id": name, **properties, "iommu_platform": iommu}
    return ["-device", json.dumps(device)]


@dataclasses.dataclass(frozen=True)
class Disk:
    """A block device of the guest: ``path`` of an image or device file in ``format`` (raw, qcow2, …).

    The firmware boots from the disk with the lowest ``boot_index``, if any has one. The guest sees the serial number
    ``diskN``, from 0 in the order of the disks: which of them its kernel names vda is not determined.
    """

    path: str
    format: str = "raw"
    read_only: bool = False
    iommu: bool = True
    boot_index: int | None = None

    def arguments(self, index: int) -> list[str]:
        """Return a block node and a virtio-blk device."""
        node = {
            "driver": self.format,
            "node-name": f"disk{index}",
            "read-only": self.read_only,
            "file": {"driver": "file", "filename": self.path},
        }
        properties: dict[str, str | int] = {"drive": f"disk{index}", "serial": f"disk{index}"}
        if self.boot_index is not None:
            properties["bootindex"] = self.boot_index
        device = _virtio("virtio-blk-ccw", f"disk{index}-device", iommu=self.iommu, **properties)
        return ["-blockdev", json.dumps(node), *device]


@dataclasses.dataclass(frozen=True)
class HostForward:
    """Connections to ``host_port`` of this computer go to ``guest_port``; ``protocol`` is tcp or udp.

    ``host`` is the local address that is listened on, ``guest`` the guest's (empty: the first that QEMU hands out).
    """

    host_port: int
    guest_port: int
    protocol: str = "tcp"
    host: str = "127.0.0.1"
    guest: str = ""

    def __post_init__(self) -> None:
        if self.protocol not in ("tcp", "udp"):
            raise UsageError(f"only tcp and udp can be forwarded, not {self.protocol!r}")
        for port in (self.host_port, self.guest_port):
            if not 0 < port <= _PORTS:
                raise UsageError(f"{port} is no port number", hint=f"ports go from 1 to {_PORTS}")
        for address in (self.host, self.guest):
            if address and not _is_ipv4(address):
                raise UsageError(f"{address!r} is no IPv4 address")

    def __str__(self) -> str:
        return f"{self.protocol}:{self.host}:{self.host_port}-{self.guest}:{self.guest_port}"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class UserNetwork:
    """A network card behind QEMU's own address translation: nothing on this computer has to be set up for it.

    The guest gets 10.0.2.15 by DHCP, its gateway 10.0.2.2 is this computer, its name server 10.0.2.3. ``restrict``
    leaves only the ``forwards``. ``mac`` None lets QEMU choose the card's address.
    """

    forwards: Sequence[HostForward] = ()
    mac: str | None = None
    restrict: bool = False
    iommu: bool = True

    def __post_init__(self) -> None:
        if self.mac is not None and (not _MAC.fullmatch(self.mac) or int(self.mac[:2], 16) & _GROUP_ADDRESS):
            raise UsageError(f"{self.mac!r} is no address of a network card", hint="write it like 52:54:00:12:34:56")

    def arguments(self, index: int) -> list[str]:
        """Return a user-mode back end and a virtio-net device."""
        options = ["user", f"id=net{index}", *(["restrict=on"] if self.restrict else [])]
        options += [f"hostfwd={forward}" for forward in self.forwards]
        card = {} if self.mac is None else {"mac": self.mac}
        device = _virtio("virtio-net-ccw", f"net{index}-device", iommu=self.iommu, netdev=f"net{index}", **card)
        return ["-netdev", ",".join(options), *device]


@dataclasses.dataclass(frozen=True)
class RandomSource:
    """A virtio-rng device that gives the guest random bytes of this computer.

    A protected guest should not rely on it: they are the host's choice.
    """

    iommu: bool = True

    def arguments(self, index: int) -> list[str]:
        """Return a back end and a virtio-rng device."""
        backend = {"qom-type": "rng-builtin", "id": f"rng{index}"}
        device = _virtio("virtio-rng-ccw", f"rng{index}-device", iommu=self.iommu, rng=f"rng{index}")
        return ["-object", json.dumps(backend), *device]
