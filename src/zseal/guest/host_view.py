"""The host view of a guest's memory: what the host gets when it reads that memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import MIB, Storage
from zseal.engine.errors import EngineError
from zseal.errors import InputError
from zseal.files import atomic_output
from zseal.hypervisor.host_side import HostSide

_PIECE = 4 * MIB


class HostView:
    """Memory in the role of the host: shared pages as they are, and private pages encrypted, as after an export.

    Reading does not take pages from the guest; private pages are encrypted again for every read. Before the guest is
    protected, and for a guest that never is, memory is plain. The raw memory is not available here. Once ``closed``
    returns that the guest released its memory, reading raises EngineError.
    """

    def __init__(self, memory: Storage | HostSide, *, closed: Callable[[], bool] = lambda: False) -> None:
        """``memory`` is the host side of a guest that may be protected, or all the memory of one that never is."""
        self._memory = memory
        self._closed = closed

    @property
    def memory_size(self) -> int:
        """Bytes of guest memory."""
        return self._memory.memory_size if isinstance(self._memory, HostSide) else self._memory.size

    def read_memory(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes at guest absolute ``address``; raises InputError outside guest memory."""
        self.check(address, length)
        return b"".join(self._pieces(address, length))

    def check(self, address: int, length: int) -> None:
        """Raise InputError unless all ``length`` bytes at ``address`` are guest memory."""
        if address < 0 or length < 0 or address + length > self.memory_size:
            raise InputError(
                f"{length} bytes at {address:#x} are not in the guest's memory of {self.memory_size // MIB} MiB"
            )

    def _pieces(self, address: int, length: int) -> Iterator[bytes]:
        if self._closed():
            raise EngineError("the guest was closed: its memory is gone")
        if not isinstance(self._memory, HostSide):
            yield self._memory.read(address, length)
            return
        try:
            yield from self._memory.uv.view_pieces(address, length, live=True)
        except ProgramInterruption as error:
            raise InputError(f"guest memory cannot be read: {error}") from error

    def dump(self, path: Path, *, overwrite: bool = False) -> int:
        """Write the host view of all memory to the new file ``path`` and return the number of bytes.

        Raises OutputError if the file cannot be written or exists.
        """
        with atomic_output(path, overwrite=overwrite) as stream:
            for address in range(0, self.memory_size, _PIECE):
                length = min(_PIECE, self.memory_size - address)
                for piece in self._pieces(address, length):
                    stream.write(piece)
        return self.memory_size

    def find(self, pattern: bytes) -> int | None:
        """Return the address of the first place where the host view contains ``pattern``; None if there is none.

        ``pattern`` has 1 to 4096 bytes; raises InputError for other sizes.
        """
        if not 1 <= len(pattern) <= 4096:
            raise InputError("a pattern has 1 to 4096 bytes")
        overlap = len(pattern) - 1
        for address in range(0, self.memory_size, _PIECE):
            length = min(_PIECE + overlap, self.memory_size - address)
            at = b"".join(self._pieces(address, length)).find(pattern)
            if at >= 0:
                return address + at
        return None
