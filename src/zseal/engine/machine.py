"""What a guest's machine has, whichever engine builds it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from zseal.arch.storage import MIB
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.errors import UsageError

CPU_LIMIT = 248  # S390_MAX_CPUS of QEMU
DEFAULT_MACHINE_TYPE = "s390-ccw-virtio"
_MACHINE_TYPE = re.compile(r"[\w.-]+")
_INCREMENTS = 1020  # storage increments that SCLP can name (MAX_STORAGE_INCREMENTS less the reserved ones, QEMU)


def fixed_memory_size(size: int) -> int:
    """Return ``size`` bytes as QEMU's s390-ccw machine can have it: rounded up to whole storage increments.

    An increment is the smallest power of two from 1 MiB on of which 1020 cover the memory.
    """
    increment = MIB
    while -(-size // increment) > _INCREMENTS:
        increment *= 2
    return -(-size // increment) * increment


@dataclasses.dataclass(frozen=True)
class MachineConfig:
    """A machine for an engine to build.

    ``kernel`` and ``ramdisk`` are descriptors of the files that are loaded at start (a boot image is a kernel here);
    without a kernel the firmware boots from the disks. ``memory`` is in bytes; ``extra`` are arguments that QEMU gets
    unchanged.
    """

    kernel: int | None
    memory: int
    cpus: int = 1
    ramdisk: int | None = None
    cmdline: str | None = None
    disks: Sequence[Disk] = ()
    networks: Sequence[UserNetwork] = ()
    random_sources: Sequence[RandomSource] = ()
    line_mode_console: bool = False
    machine_type: str = DEFAULT_MACHINE_TYPE
    name: str = "zseal"
    extra: Sequence[str] = ()
    audited: bool = False
    """Whether somebody looks at what virtio devices are told.

    They take up requests at once then, while the CPU waits that notifies them: else another thread of QEMU does, and
    what the guest adds before that is taken up without a notification. And there is no PCI, where nobody could look.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= CPU_LIMIT:
            raise UsageError(f"a machine has 1 to {CPU_LIMIT} CPUs, not {self.cpus}")
        if not _MACHINE_TYPE.fullmatch(self.machine_type):
            raise UsageError(
                f"{self.machine_type!r} is no machine type", hint="qemu-system-s390x -machine help lists them"
            )
