"""The description of a guest's machine, for every engine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from uuid import UUID, uuid4

from zseal.arch.storage import MIB
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.errors import UsageError

CPU_LIMIT = 248  # S390_MAX_CPUS of QEMU
DEFAULT_MACHINE_TYPE = "s390-ccw-virtio"
DEFAULT_NAME = "zseal"
_MACHINE_TYPE = re.compile(r"[\w.-]+")
_INCREMENTS = 1020  # storage increments that SCLP can express (QEMU: MAX_STORAGE_INCREMENTS less the reserved ones)


def fixed_memory_size(size: int) -> int:
    """Return ``size`` bytes, rounded up to whole storage increments as QEMU's s390-ccw machine needs them.

    An increment is the smallest power of two, at least 1 MiB, of which 1020 cover the memory.
    """
    increment = MIB
    while -(-size // increment) > _INCREMENTS:
        increment *= 2
    return -(-size // increment) * increment


@dataclasses.dataclass(frozen=True)
class MachineConfig:
    """A machine for an engine to build.

    ``kernel`` and ``ramdisk`` are descriptors of the files to load at the start (a boot image is a kernel here);
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
    name: str = DEFAULT_NAME
    uuid: UUID = dataclasses.field(default_factory=uuid4)
    """What STSI 3.2.2 reports to the guest, together with ``name``."""
    extra: Sequence[str] = ()
    audited: bool = False
    """Whether zseal checks the notifications of virtio devices.

    The devices then take up requests immediately, while the notifying CPU waits. Otherwise another thread of QEMU does
    so, and takes up requests that the guest adds before that without a notification. The machine also has no PCI, whose
    notifications zseal cannot observe.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= CPU_LIMIT:
            raise UsageError(f"a machine has 1 to {CPU_LIMIT} CPUs, not {self.cpus}")
        if not _MACHINE_TYPE.fullmatch(self.machine_type):
            raise UsageError(
                f"{self.machine_type!r} is not a machine type",
                hint="qemu-system-s390x -machine help lists the machine types",
            )
