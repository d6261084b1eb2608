"""A guest's way to the ultravisor: Linux' driver ``/dev/uv``, or what plays a guest. Needs Python's library only."""

from __future__ import annotations

from zseal.uvdevice.device import Uvdevice, UvdeviceFunction, in_protected_guest
from zseal.uvdevice.interface import AttestationAnswer, GuestUltravisor, UltravisorRefusedError

__all__ = [
    "AttestationAnswer",
    "GuestUltravisor",
    "UltravisorRefusedError",
    "Uvdevice",
    "UvdeviceFunction",
    "in_protected_guest",
]
