"""The absolute storage of a small host: guest RAM at 0, and memory of the hypervisor above it."""

from __future__ import annotations

import mmap

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, Storage
from zseal.coredumps import keep_out_of_core_dumps
from zseal.engine.memory import SharedMemory

DONATION_FLOOR = 2 << 30
"""INIT_UV takes no storage below 2 GiB."""


class HostStorage:
    """Storage (``zseal.arch.storage.Storage``) made of guest RAM and the hypervisor's own memory.

    Guest absolute address and host absolute address are the same. The hypervisor's area of ``own`` bytes begins at
    ``base``, at or above 2 GiB and after guest RAM; storage in between does not exist. The area takes up memory only as
    it is touched, and the guest's CPUs cannot access it.
    """

    def __init__(self, ram: SharedMemory, own: int) -> None:
        self._ram = ram
        self.base = max(DONATION_FLOOR, -(-ram.size // MIB) * MIB)
        self._length = -(-own // MIB) * MIB
        self._map = mmap.mmap(-1, self._length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        keep_out_of_core_dumps(self._map)  # what is donated to the ultravisor lies here
        self._own = memoryview(self._map)

    @property
    def size(self) -> int:
        """The end of the hypervisor's area."""
        return self.base + self._length

    @property
    def ram(self) -> Storage:
        """Guest RAM only."""
        return self._ram

    def view(self, address: int, length: int) -> memoryview:
        """Return a writable view of ``length`` bytes, all in guest RAM or all in the hypervisor's area."""
        if address < self._ram.size:
            return self._ram.view(address, length)
        offset = address - self.base
        if offset < 0 or length < 0 or offset + length > self._length:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return self._own[offset : offset + length]

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes."""
        with self.view(address, length) as view:
            return bytes(view)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``."""
        with self.view(address, len(data)) as view:
            view[:] = data

    def clear(self, address: int, length: int) -> None:
        """Make ``length`` bytes zero and return whole pages to the computer."""
        if address < self._ram.size:
            self._ram.clear(address, length)
            return
        with self.view(address, length) as view:
            offset = address - self.base
            if offset % mmap.PAGESIZE == 0 and length % mmap.PAGESIZE == 0 and length:
                self._map.madvise(mmap.MADV_DONTNEED, offset, length)
            else:
                view[:] = bytes(length)

    def close(self) -> None:
        """Return the hypervisor's area; guest RAM belongs to the engine. A second call has no effect."""
        if not self._map.closed:
            self._own.release()
            self._map.close()
