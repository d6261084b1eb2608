"""z/Architecture facts: PSW, address translation, facilities, instruction fields, EBCDIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.arch.facilities import Facility
    from zseal.arch.interruption import ProgramCode, ProgramInterruption
    from zseal.arch.psw import Psw
    from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE, OperandMemory, Storage

__all__ = [
    "MIB",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "Facility",
    "OperandMemory",
    "ProgramCode",
    "ProgramInterruption",
    "Psw",
    "Storage",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        facilities=("Facility",),
        interruption=("ProgramCode", "ProgramInterruption"),
        psw=("Psw",),
        storage=("MIB", "OperandMemory", "PAGE_SHIFT", "PAGE_SIZE", "Storage"),
    )
