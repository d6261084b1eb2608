"""The teaching host: a small hypervisor with guests, frames, paging and devices that needs no engine.

docs/ultravisor.md uses it to show, step by step, how protected virtualization works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.model.devices import BlockDevice, BlockDriver, BouncePool, DeviceError, DeviceMemory
    from zseal.model.frames import FrameAllocator, OutOfFramesError
    from zseal.model.guest import ModelGuest
    from zseal.model.host import HostError, ModelConfiguration, ModelCpu, ModelHost
    from zseal.model.image import ModelComponent, ModelImage, seal_image
    from zseal.model.machine import ModelMachine
    from zseal.model.pager import GuestKilledError, Pager
    from zseal.model.played_guest import PlayedGuest

__all__ = [
    "BlockDevice",
    "BlockDriver",
    "BouncePool",
    "DeviceError",
    "DeviceMemory",
    "FrameAllocator",
    "GuestKilledError",
    "HostError",
    "ModelComponent",
    "ModelConfiguration",
    "ModelCpu",
    "ModelGuest",
    "ModelHost",
    "ModelImage",
    "ModelMachine",
    "OutOfFramesError",
    "Pager",
    "PlayedGuest",
    "seal_image",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        devices=("BlockDevice", "BlockDriver", "BouncePool", "DeviceError", "DeviceMemory"),
        frames=("FrameAllocator", "OutOfFramesError"),
        guest=("ModelGuest",),
        host=("HostError", "ModelConfiguration", "ModelCpu", "ModelHost"),
        image=("ModelComponent", "ModelImage", "seal_image"),
        machine=("ModelMachine",),
        pager=("GuestKilledError", "Pager"),
        played_guest=("PlayedGuest",),
    )
