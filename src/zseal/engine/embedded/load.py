"""Loads what QEMU's ``-kernel`` would load, to the same places (hw/s390x/ipl.c)."""

from __future__ import annotations

import dataclasses
import os

from zseal.arch.psw import Psw
from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.engine.memory import SharedMemory
from zseal.linux import kernel_file

_RAMDISK_FLOOR = 32 * MIB
_PIECE = 4 * MIB


@dataclasses.dataclass(frozen=True)
class Program:
    """The program to load at each reset: ``kernel`` and ``ramdisk`` are descriptors of files."""

    kernel: int
    ramdisk: int | None = None
    cmdline: str | None = None

    def load(self, memory: SharedMemory) -> int:
        """Load it into cleared ``memory`` and return the address of its first instruction."""
        end = _copy(self.kernel, memory, 0, "kernel")
        if end <= kernel_file.COMMAND_LINE_OFFSET or not kernel_file.is_kernel(memory.read):
            return Psw.from_short(int.from_bytes(memory.read(0, 8), "big")).address or kernel_file.ENTRY
        if self.cmdline is not None:
            self._put_cmdline(memory, self.cmdline.encode() + b"\0")
        if self.ramdisk is not None:
            address = max(-(-end // MIB) * MIB, _RAMDISK_FLOOR if memory.size > 2 * _RAMDISK_FLOOR else 0)
            size = _copy(self.ramdisk, memory, address, "ramdisk") - address
            memory.write(kernel_file.RAMDISK_ADDRESS_OFFSET, address.to_bytes(8, "big"))
            memory.write(kernel_file.RAMDISK_SIZE_OFFSET, size.to_bytes(8, "big"))
        return kernel_file.ENTRY

    @staticmethod
    def _put_cmdline(memory: SharedMemory, text: bytes) -> None:
        capacity = kernel_file.max_command_line(memory.read(0, kernel_file.MIN_SIZE))
        if len(text) > capacity:
            raise EngineError(f"the kernel takes {capacity - 1} characters of command line, not {len(text) - 1}")
        memory.write(kernel_file.COMMAND_LINE_OFFSET, text)


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
