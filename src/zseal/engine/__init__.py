"""Executes guest instructions and hands traps to the ultravisor; describes machines and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.engine.devices import Disk, HostForward, RandomSource, UserNetwork
    from zseal.engine.errors import EngineError, EngineLostError, EngineSilentError
    from zseal.engine.interface import (
        Action,
        Console,
        Cpu,
        Engine,
        EngineListener,
        Interrupted,
        Milestone,
        Stop,
        StopKind,
        Trap,
        TrapKind,
    )
    from zseal.engine.memory import SharedMemory

__all__ = [
    "Action",
    "Console",
    "Cpu",
    "Disk",
    "Engine",
    "EngineError",
    "EngineListener",
    "EngineLostError",
    "EngineSilentError",
    "HostForward",
    "Interrupted",
    "Milestone",
    "RandomSource",
    "SharedMemory",
    "Stop",
    "StopKind",
    "Trap",
    "TrapKind",
    "UserNetwork",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        devices=("Disk", "HostForward", "RandomSource", "UserNetwork"),
        errors=("EngineError", "EngineLostError", "EngineSilentError"),
        interface=(
            "Action",
            "Console",
            "Cpu",
            "Engine",
            "EngineListener",
            "Interrupted",
            "Milestone",
            "Stop",
            "StopKind",
            "Trap",
            "TrapKind",
        ),
        memory=("SharedMemory",),
    )
