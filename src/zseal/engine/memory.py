"""Guest storage that two processes share without a name in any file system."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.coredumps import keep_out_of_core_dumps
from zseal.engine.memoryfile import memory_file
from zseal.errors import InputError


class SharedMemory:
    """Absolute storage (``zseal.arch.storage.Storage``) in an anonymous memory file, taken up as it is touched.

    ``descriptor`` is the file for another process to map the same bytes; it is inheritable only on request. The memory
    is gone when the last process that maps it ends. ``large_pages`` asks for large pages, and then shows whether the
    memory has them: it is then taken up in larger pieces, which is faster.
    """

    def __init__(self, size: int, *, large_pages: bool = False) -> None:
        if size <= 0 or size % MIB:
            raise InputError(f"a memory of {size} bytes is not a number of MiB")
        self._size = size
        self.descriptor, self.large_pages = memory_file(large_pages=large_pages)
        try:
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, OverflowError) as error:
            os.close(self.descriptor)
            raise InputError(f"this computer cannot provide {size // MIB} MiB of guest memory: {error}") from error
        keep_out_of_core_dumps(self._map)
        self._view = memoryview(self._map)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._size

    def _check(self, address: int, length: int) -> None:
        if address < 0 or length < 0 or address + length > self._size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, max(address, 0))

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes."""
        self._check(address, length)
        return bytes(self._view[address : address + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``."""
        self._check(address, len(data))
        self._view[address : address + len(data)] = data

    def view(self, address: int, length: int) -> memoryview:
        """Return a writable view of ``length`` bytes; release it before ``close``."""
        self._check(address, length)
        return self._view[address : address + length]

    def clear(self, address: int, length: int) -> None:
        """Make ``length`` bytes zero and return whole pages to the host."""
        self._check(address, length)
        first = -(-address // PAGE_SIZE) * PAGE_SIZE
        last = (address + length) // PAGE_SIZE * PAGE_SIZE
        if first >= last:
            self._view[address : address + length] = bytes(length)
            return
        self._view[address:first] = bytes(first - address)
        self._view[last : address + length] = bytes(address + length - last)
        self._map.madvise(mmap.MADV_REMOVE, first, last - first)

    def used(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the (address, length) runs from ``start`` on that were ever written; the rest is zeros.

        Large pages count as a whole.
        """
        at = start
        while at < self._size:
            try:
                begin = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError:
                return  # ENXIO: only a hole follows
            at = os.lseek(self.descriptor, begin, os.SEEK_HOLE)
            yield begin, at - begin

    def close(self) -> None:
        """Unmap the memory; a second call has no effect. Raises BufferError while a view of it exists."""
        if self._map.closed:
            return
        self._view.release()
        self._map.close()
        os.close(self.descriptor)
