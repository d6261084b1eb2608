"""What the ultravisor's side needs to know of an engine: a stopped CPU, and the traps it stopped for.

An engine executes guest instructions. It never decides policy: it reports a trap and applies the answer.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

from zseal.arch.psw import Psw


class Cpu(Protocol):
    """The registers of one CPU while it is stopped at a trap. All values are unsigned 64-bit numbers."""

    @property
    def number(self) -> int:
        """The CPU address, from 0."""

    @property
    def psw(self) -> Psw:
        """The PSW: it points at the trapped instruction until the answer advances it."""

    @psw.setter
    def psw(self, value: Psw) -> None: ...

    @property
    def prefix(self) -> int:
        """The prefix register: the absolute address of the 8 KiB that real addresses 0 to 0x1fff name."""

    def gr(self, number: int) -> int:
        """Return general register ``number`` (0 to 15)."""

    def set_gr(self, number: int, value: int) -> None:
        """Set general register ``number``."""

    def cr(self, number: int) -> int:
        """Return control register ``number`` (0 to 15)."""

    def ar(self, number: int) -> int:
        """Return access register ``number`` (0 to 15; 32 bits)."""


class TrapKind(enum.Enum):
    """The instructions that firmware, not the CPU, completes."""

    STFLE = "stfle"
    DIAG_308 = "diag308"
    DIAG_500 = "diag500"
    UVC = "uvc"
    LPSWE = "lpswe"
    IMAGE_ENTRY = "image-entry"


@dataclasses.dataclass(frozen=True)
class Trap:
    """A CPU that stopped in front of an instruction; ``instruction`` is its 2, 4 or 6 bytes."""

    kind: TrapKind
    cpu: Cpu
    instruction: bytes

    @property
    def r1(self) -> int:
        """The first register field: bits 8-11 of a DIAGNOSE, bits 24-27 of a UVC."""
        byte = self.instruction[3] if self.kind is TrapKind.UVC else self.instruction[1]
        return byte >> 4

    @property
    def r2(self) -> int:
        """The second register field: R3 of a DIAGNOSE (bits 12-15), R2 of a UVC (bits 28-31)."""
        byte = self.instruction[3] if self.kind is TrapKind.UVC else self.instruction[1]
        return byte & 15
