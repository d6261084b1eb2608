"""One stopped CPU of QEMU: registers are read on demand and written back when the machine goes on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np

from zseal.arch.dat import PREFIX_AREA_SIZE, real_to_absolute, translate
from zseal.arch.instructions import instruction_length
from zseal.arch.psw import DAT, AddressSpace, Psw
from zseal.engine.errors import EngineError
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.gdbremote import GdbRemote, Register, StopReply

_LOWCORE_SAMPLE = 0x400
_STEP_TRIES = 100
_WRITE_LIMIT = 1024  # bytes of storage in one request: QEMU takes packets of 4 KiB
_EAGER_CONTROL_REGISTERS = (0, 1, 13)  # nearly every trap uses these: they come with the first round trip


class RegisterFile:
    """The numbers of the registers in the stub's requests, from its target description."""

    def __init__(self, registers: Mapping[str, Register]) -> None:
        try:
            self.psw_mask = registers["pswm"].number
            self.psw_address = registers["pswa"].number
            self.gr = [registers[f"r{index}"].number for index in range(16)]
            self.ar = [registers[f"acr{index}"].number for index in range(16)]
            self.cr = [registers[f"cr{index}"].number for index in range(16)]
        except KeyError as error:
            raise EngineError(f"QEMU's gdb stub does not describe the register {error}") from error
        if [self.psw_mask, self.psw_address, *self.gr] != list(range(18)):
            raise EngineError("QEMU's gdb stub does not begin with the PSW and the general registers")


class QemuCpu:
    """A ``zseal.engine.interface.Cpu`` while its machine is stopped; a new one at each stop."""

    def __init__(self, gdb: GdbRemote, registers: RegisterFile, memory: SharedMemory, thread: int, prefix: int) -> None:
        self._gdb = gdb
        self._registers = registers
        self._memory = memory
        self._thread = thread
        self._values: dict[int, int] = {}
        self._dirty: dict[int, int] = {}
        self._changed: list[tuple[int, int]] = []
        self._prefix_guess = prefix
        self._prefix: int | None = None
        self.last_stop: StopReply | None = None

    @property
    def number(self) -> int:
        """The CPU address: QEMU counts its threads from 1."""
        return self._thread - 1

    @property
    def thread(self) -> int:
        """The number of this CPU in the gdb stub."""
        return self._thread

    # --- registers ---

    def _load(self) -> None:
        eager = [self._registers.cr[index] for index in _EAGER_CONTROL_REGISTERS]
        selection = self._gdb.select(self._thread)
        replies = self._gdb.requests([*selection, b"g", *(b"p%x" % number for number in eager)])[len(selection) :]
        data = self._bytes(replies[0])
        if len(data) < 18 * 8:
            raise EngineError("QEMU's gdb stub sent too few registers")
        for number in range(18):
            self._values.setdefault(number, int.from_bytes(data[number * 8 : number * 8 + 8], "big"))
        for number, reply in zip(eager, replies[1:], strict=True):
            self._values.setdefault(number, int.from_bytes(self._bytes(reply), "big"))

    @staticmethod
    def _bytes(reply: bytes) -> bytes:
        try:
            return bytes.fromhex(reply.decode("ascii"))
        except ValueError as error:
            raise EngineError(f"QEMU's gdb stub cannot read a register: {reply!r}") from error

    def _get(self, number: int) -> int:
        if not self._values:
            self._load()
        value = self._values.get(number)
        if value is None:
            selection = self._gdb.select(self._thread)
            reply = self._gdb.requests([*selection, b"p%x" % number])[-1]
            value = self._values[number] = int.from_bytes(self._bytes(reply), "big")
        return value

    def _set(self, number: int, value: int) -> None:
        if not self._values:
            self._load()
        if self._values.get(number) != value:
            self._values[number] = self._dirty[number] = value

    def pending(self) -> list[bytes]:
        """Return the requests that write changed registers and storage to QEMU; they count as sent from now on."""
        commands = self._storage_requests()
        if self._dirty:
            commands += self._gdb.select(self._thread)
        narrow = set(self._registers.ar)
        for number, value in self._dirty.items():
            commands.append(b"P%x=%0*x" % (number, 8 if number in narrow else 16, value))
        self._dirty.clear()
        return commands

    def storage_changed(self, absolute: int, length: int) -> None:
        """Take note that ``length`` bytes from ``absolute`` on have changed; QEMU may have translated them as code."""
        self._changed.append((absolute, length))

    def _storage_requests(self) -> list[bytes]:
        """Return the requests that store changed storage once more, so that QEMU sees the change."""
        pieces = [
            (start, min(_WRITE_LIMIT, absolute + length - start))
            for absolute, length in self._changed
            for start in range(absolute, absolute + length, _WRITE_LIMIT)
        ]
        self._changed.clear()
        if not pieces:
            return []
        stores = [b"M%x,%x:%b" % (at, size, self._memory.read(at, size).hex().encode()) for at, size in pieces]
        return [b"Qqemu.PhyMemMode:1", *stores, b"Qqemu.PhyMemMode:0"]

    @property
    def psw(self) -> Psw:
        """The PSW."""
        return Psw(self._get(self._registers.psw_mask), self._get(self._registers.psw_address))

    @psw.setter
    def psw(self, value: Psw) -> None:
        # In this order: QEMU looks at the whole PSW when it is given a mask that has the CPU wait.
        self._set(self._registers.psw_address, value.address)
        self._set(self._registers.psw_mask, value.mask)

    def gr(self, number: int) -> int:
        """Return general register ``number``."""
        return self._get(self._registers.gr[number])

    def set_gr(self, number: int, value: int) -> None:
        """Set general register ``number``."""
        self._set(self._registers.gr[number], value)

    def cr(self, number: int) -> int:
        """Return control register ``number``."""
        return self._get(self._registers.cr[number])

    def set_cr(self, number: int, value: int) -> None:
        """Set control register ``number``."""
        self._set(self._registers.cr[number], value)

    def ar(self, number: int) -> int:
        """Return access register ``number``."""
        return self._get(self._registers.ar[number])

    def set_ar(self, number: int, value: int) -> None:
        """Set access register ``number``."""
        self._set(self._registers.ar[number], value)

    def step(self) -> None:
        """Execute one instruction on this CPU alone; ``last_stop`` is the stub's stop reply."""
        before = self.psw
        for _ in range(_STEP_TRIES):
            self.last_stop = self._gdb.step(self._thread, *self.pending())
            self._values.clear()
            self._prefix = None
            if self.last_stop.signal != StopReply.TRAP or self.psw != before:
                break
            # QEMU stopped before it executed anything, because its CPU thread was interrupted.

    # --- storage as this CPU sees it ---

    def instruction(self) -> bytes:
        """Return the instruction at the PSW (2, 4 or 6 bytes); raises ProgramInterruption if there is none."""
        first = self._fetch(0, 2)
        length = instruction_length(first[0])
        return first if length == 2 else first + self._fetch(2, length - 2)

    def _fetch(self, offset: int, length: int) -> bytes:
        psw = self.psw
        address = psw.address + offset
        if psw.dat:
            asce = self.cr(13 if psw.address_space is AddressSpace.HOME else 1)
            # Code in a lowcore would need the prefix, but no trapping instruction is there.
            return self._memory.read(translate(self._memory, asce, address), length)
        return self._memory.read(real_to_absolute(address, self.prefix), length)

    @property
    def prefix(self) -> int:
        """The prefix register. The stub does not show it, so it is derived from where real storage 0 is."""
        if self._prefix is None:
            self._prefix = self._find_prefix()
        return self._prefix

    @property
    def known_prefix(self) -> int:
        """The prefix that was last found, to try first at the next stop."""
        return self._prefix_guess if self._prefix is None else self._prefix

    def _real_low_storage(self, length: int) -> bytes:
        """Read real storage from 0 on through the stub, with DAT switched off meanwhile."""
        psw = self.psw
        commands = self._gdb.select(self._thread)
        now = self._registers.psw_mask
        # The stub's PSW mask, not ours: a changed mask has not been written back yet.
        commands += [b"p%x" % now]
        mask = int.from_bytes(self._bytes(self._gdb.requests(commands)[-1]), "big") if self._dirty else psw.mask
        replies = self._gdb.requests([b"P%x=%016x" % (now, mask & ~DAT), b"m0,%x" % length, b"P%x=%016x" % (now, mask)])
        if replies[0] != b"OK" or replies[2] != b"OK":
            raise EngineError("QEMU's gdb stub refused to switch address translation off")
        return self._bytes(replies[1])

    def _is_prefix(self, candidate: int) -> bool:
        """Whether real 0 is absolute ``candidate``: briefly changes eight bytes there to find out."""
        view = self._memory.view(candidate, 8)
        kept = bytes(view)
        probe = secrets.token_bytes(8)
        view[:] = probe
        try:
            return self._real_low_storage(8) == probe
        finally:
            view[:] = kept
            view.release()

    def _find_prefix(self) -> int:
        if self._is_prefix(self._prefix_guess):
            return self._prefix_guess
        sample = self._real_low_storage(_LOWCORE_SAMPLE)
        for candidate in self._alike(sample):
            if self._is_prefix(candidate):
                return candidate
        raise EngineError(f"the prefix register of CPU {self.number} cannot be found")

    def _alike(self, sample: bytes) -> list[int]:
        """Return the places of 8 KiB that begin with ``sample``, in all storage that was ever written."""
        found = [] if self._memory.read(0, len(sample)) != sample else [0]
        words = np.frombuffer(sample, np.uint64)
        for start, length in self._memory.used():
            start = -(-start // PREFIX_AREA_SIZE) * PREFIX_AREA_SIZE
            count = (min(start + length, self._memory.size) - start) // PREFIX_AREA_SIZE
            if count <= 0:
                continue
            view = self._memory.view(start, count * PREFIX_AREA_SIZE)
            areas = np.frombuffer(view, np.uint64).reshape(count, PREFIX_AREA_SIZE // 8)
            hits = np.arange(count)
            for word in np.argsort(words == 0, kind="stable")[:8].tolist():  # the most distinctive words first
                hits = hits[areas[hits, word] == words[word]]
            found += [
                start + int(hit) * PREFIX_AREA_SIZE
                for hit in hits
                if bool((areas[hit, : len(words)] == words).all()) and start + int(hit)
            ]
            del areas
            view.release()
        return found
