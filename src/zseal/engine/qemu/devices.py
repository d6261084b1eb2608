"""Turns the description of devices into QEMU's arguments.

All of them are virtio-ccw devices with ``iommu_platform``, which a protected guest needs: only then does its kernel
send data through shared pages.
"""

from __future__ import annotations

import json

from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.engine.machine import MachineConfig


def device_arguments(config: MachineConfig) -> list[str]:
    """Return QEMU's arguments for all devices of a machine; those of a kind are numbered from 0."""
    out: list[str] = []
    for index, disk in enumerate(config.disks):
        out += _disk(disk, index)
    for index, network in enumerate(config.networks):
        out += _network(network, index)
    for index, source in enumerate(config.random_sources):
        out += _random_source(source, index)
    return out


def _virtio(driver: str, name: str, *, iommu: bool, **properties: str | int) -> list[str]:
    device: dict[str, str | int | bool] = {"driver": driver, "id": name, **properties, "iommu_platform": iommu}
    return ["-device", json.dumps(device)]


def _disk(disk: Disk, index: int) -> list[str]:
    """Return a block node and a virtio-blk device."""
    node = {
        "driver": disk.format,
        "node-name": f"disk{index}",
        "read-only": disk.read_only,
        "file": {"driver": "file", "filename": disk.path},
    }
    properties: dict[str, str | int] = {"drive": f"disk{index}", "serial": f"disk{index}"}
    if disk.boot_index is not None:
        properties["bootindex"] = disk.boot_index
    device = _virtio("virtio-blk-ccw", f"disk{index}-device", iommu=disk.iommu, **properties)
    return ["-blockdev", json.dumps(node), *device]


def _network(network: UserNetwork, index: int) -> list[str]:
    """Return a user-mode back end and a virtio-net device."""
    options = ["user", f"id=net{index}", *(["restrict=on"] if network.restrict else [])]
    options += [f"hostfwd={forward}" for forward in network.forwards]
    card = {} if network.mac is None else {"mac": network.mac}
    device = _virtio("virtio-net-ccw", f"net{index}-device", iommu=network.iommu, netdev=f"net{index}", **card)
    return ["-netdev", ",".join(options), *device]


def _random_source(source: RandomSource, index: int) -> list[str]:
    """Return a back end and a virtio-rng device."""
    backend = {"qom-type": "rng-builtin", "id": f"rng{index}"}
    device = _virtio("virtio-rng-ccw", f"rng{index}-device", iommu=source.iommu, rng=f"rng{index}")
    return ["-object", json.dumps(backend), *device]
