"""Loading what QEMU's ``-kernel`` would load, at the same places (hw/s390x/ipl.c)."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable

from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.engine.errors import EngineError
from zseal.engine.memory import SharedMemory

KERNEL_ENTRY = 0x10000
_MAGIC_AT, _MAGIC = 0x10008, b"S390EP"
_RAMDISK_ADDRESS, _RAMDISK_SIZE = 0x10408, 0x10410
_VERSION_AT, _CAPACITY_AT, _CMDLINE = 0x10428, 0x10430, 0x10480
_LEGACY_CAPACITY = 896
_ENTRY_MASK = 0x7FFFFFFF
_RAMDISK_FLOOR = 32 * MIB
_PIECE = 4 * MIB
_LINUX_RELEASE = re.compile(rb"\d{1,2}\.\d{1,3}[ -~]{0,100}")


@dataclasses.dataclass(frozen=True)
class Program:
    """What is loaded at each reset: ``kernel`` and ``ramdisk`` are descriptors of files."""

    kernel: int
    ramdisk: int | None = None
    cmdline: str | None = None

    def load(self, memory: SharedMemory) -> int:
        """Load it into cleared ``memory`` and return the address of its first instruction."""
        end = _copy(self.kernel, memory, 0, "kernel")
        if end <= _CMDLINE or memory.read(_MAGIC_AT, len(_MAGIC)) != _MAGIC:
            return int.from_bytes(memory.read(4, 4), "big") & _ENTRY_MASK or KERNEL_ENTRY
        if self.cmdline is not None:
            self._put_cmdline(memory, self.cmdline.encode() + b"\0")
        if self.ramdisk is not None:
            address = max(-(-end // MIB) * MIB, _RAMDISK_FLOOR if memory.size > 2 * _RAMDISK_FLOOR else 0)
            size = _copy(self.ramdisk, memory, address, "ramdisk") - address
            memory.write(_RAMDISK_ADDRESS, address.to_bytes(8, "big"))
            memory.write(_RAMDISK_SIZE, size.to_bytes(8, "big"))
        return KERNEL_ENTRY

    @staticmethod
    def _put_cmdline(memory: SharedMemory, text: bytes) -> None:
        capacity = int.from_bytes(memory.read(_CAPACITY_AT, 8), "big") or _LEGACY_CAPACITY
        if len(text) > capacity:
            raise EngineError(f"the kernel takes {capacity - 1} characters of command line, not {len(text) - 1}")
        memory.write(_CMDLINE, text)


def _copy(descriptor: int, memory: SharedMemory, address: int, what: str) -> int:
    size = os.fstat(descriptor).st_size
    if address + size > memory.size:
        raise EngineError(f"the {what} of {size} bytes does not fit into {memory.size // MIB} MiB of memory")
    done = 0
    while done < size:
        data = os.pread(descriptor, min(_PIECE, size - done), done)
        if not data:
            raise EngineError(f"the {what} became shorter while it was read")
        memory.write(address + done, data)
        done += len(data)
    return address + size


def linux_release(read: Callable[[int, int], bytes]) -> str | None:
    """Return the release of the Linux kernel whose decompressor lies at 0x10000, None where there is none.

    Linux names its version at the address that the doubleword at 0x10428 holds (arch/s390/boot/head.S), from 5.2 on.
    """
    if read(_MAGIC_AT, len(_MAGIC)) != _MAGIC:
        return None
    offset = int.from_bytes(read(_VERSION_AT, 8), "big")
    if not PAGE_SIZE <= offset < 64 * MIB:
        return None
    match = _LINUX_RELEASE.match(read(offset, 128))
    return match[0].decode("ascii").split(" ")[0] if match else None
