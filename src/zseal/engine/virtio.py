"""The virtio devices of an engine's machine, for code that checks their notifications."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from zseal.formats.virtqueue import QueueLayout


@dataclasses.dataclass(frozen=True)
class VirtioDevice:
    """One device: its ``kind`` (virtio-blk), its ``bus_id`` in the guest (0.0.0001) and its ``id`` in QEMU.

    ``bus_id`` is empty for a device that is not a channel device, ``id`` for a device without one.
    """

    path: str
    """QEMU's name of the object, unique."""
    kind: str
    bus_id: str = ""
    id: str = ""

    def __str__(self) -> str:
        name = f"{self.kind} {self.bus_id or self.path}"
        return f"{name} ({self.id})" if self.id else name


@dataclasses.dataclass(frozen=True)
class VirtioQueue:
    """A queue that the guest has set up: its place, and how far the device has come (running 16-bit indexes)."""

    device: VirtioDevice
    number: int
    layout: QueueLayout
    taken: int
    """Chains that the device has taken from the available ring."""
    used: int
    """Chains that the device has given back."""
    packed: bool = False
    """Whether guest and device agreed on packed rings, which ``layout`` does not describe."""
    bounced: bool = True
    """Whether they agreed on VIRTIO_F_ACCESS_PLATFORM: without it a driver gives plain addresses of its memory."""


@dataclasses.dataclass(frozen=True)
class Notification:
    """CPU ``cpu`` is about to notify a device.

    ``setups`` changes whenever a queue may have been set up, moved or given up since the last time.
    """

    cpu: int
    setups: int


FindQueues = Callable[[], Sequence[VirtioQueue]]
"""Asks the machine for its queues; raises EngineError if it does not answer now."""

NotifyHook = Callable[[Notification, FindQueues], bool]
"""Called with each notification while its CPU waits; returns whether it may go on.

It is called in a thread of its own or in the engine's. If it returns False, it has ended the guest.
"""
