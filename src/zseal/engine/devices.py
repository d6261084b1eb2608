"""The devices of a guest, as its owner describes them.

All of them are virtio-ccw devices with ``iommu_platform``, which a protected guest needs: only then does its kernel
send data through shared pages. ``iommu=False`` makes a device that such a guest refuses, as on hardware.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence

from zseal.errors import UsageError

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PORTS = 65535
_GROUP_ADDRESS = 1  # bit of a MAC address's first byte


@dataclasses.dataclass(frozen=True)
class Disk:
    """A block device of the guest: ``path`` of an image or device file in ``format`` (raw, qcow2, …).

    The firmware boots from the disk with the lowest ``boot_index``, if any has one. The guest sees the serial number
    ``diskN``, from 0 in the order of the disks; its kernel may name any of them vda.
    """

    path: str
    format: str = "raw"
    read_only: bool = False
    iommu: bool = True
    boot_index: int | None = None


@dataclasses.dataclass(frozen=True)
class HostForward:
    """Connections to ``host_port`` of this computer go to ``guest_port``; ``protocol`` is tcp or udp.

    ``host`` is the local address to listen on, ``guest`` the guest's address (empty: the first that QEMU hands out).
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
                raise UsageError(f"{port} is not a port number", hint=f"ports go from 1 to {_PORTS}")
        for address in (self.host, self.guest):
            if address and not _is_ipv4(address):
                raise UsageError(f"{address!r} is not an IPv4 address")

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
    """A network card with QEMU's own address translation, which needs no set-up on this computer.

    The guest gets 10.0.2.15 by DHCP, its gateway 10.0.2.2 is this computer, its name server 10.0.2.3. ``restrict``
    allows only the ``forwards``. ``mac`` None lets QEMU choose the card's address.
    """

    forwards: Sequence[HostForward] = ()
    mac: str | None = None
    restrict: bool = False
    iommu: bool = True

    def __post_init__(self) -> None:
        if self.mac is not None and (not _MAC.fullmatch(self.mac) or int(self.mac[:2], 16) & _GROUP_ADDRESS):
            raise UsageError(
                f"{self.mac!r} is not the address of a network card", hint="use an address such as 52:54:00:12:34:56"
            )


@dataclasses.dataclass(frozen=True)
class RandomSource:
    """A virtio-rng device that gives the guest random bytes of this computer.

    A protected guest should not rely on them, because the host chooses them.
    """

    iommu: bool = True
