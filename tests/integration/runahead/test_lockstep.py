"""Run-ahead against QEMU itself, instruction for instruction, through a real kernel's boot.

At many points of the boot of a stock Debian kernel the CPU is stopped. Run-ahead executes what comes next on a private
copy of memory; QEMU then single-steps the same stretch. All registers, the condition code and every stored byte must
agree, also where run-ahead stopped early.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from zseal.arch.dat import CpuMemory
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.debian.archive import DebianArchive
from zseal.engine.interface import Trap
from zseal.engine.machine import MachineConfig
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu, RegisterFile
from zseal.engine.qemu.gdbremote import GdbRemote
from zseal.engine.qemu.launch import start_qemu
from zseal.engine.unicorn import runahead
from zseal.engine.unicorn.runahead import End, RunAhead

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

MEMORY = 256 * MIB
CPU_THREAD = 1
ENTRY = 0x10000
INSTRUCTIONS_WANTED = 4000
BOUNDS = (1, 2, 7, 40, 150)
IDLE_STEPS = 20


class PrivateCopy:
    """Storage that shows the machine's memory and keeps stores to itself (copy on write) until they are dropped."""

    def __init__(self, memory: SharedMemory) -> None:
        self._map = mmap.mmap(memory.descriptor, memory.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._view = memoryview(self._map)
        self.size = memory.size

    def view(self, address: int, length: int) -> memoryview:
        if address < 0 or address + length > self.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        return self._view[address : address + length]

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.view(address, length))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.view(address, len(data))[:] = data

    def drop(self, page: int) -> None:
        self._map.madvise(mmap.MADV_DONTNEED, page, PAGE_SIZE)

    def close(self) -> None:
        self._view.release()
        self._map.close()


@dataclasses.dataclass
class Registers:
    """A stopped CPU's registers, to be run ahead from and to compare."""

    psw: Psw
    grs: list[int]
    ars: list[int]
    crs: dict[int, int]
    prefix: int
    number: int = 0

    def gr(self, number: int) -> int:
        return self.grs[number]

    def set_gr(self, number: int, value: int) -> None:
        self.grs[number] = value

    def ar(self, number: int) -> int:
        return self.ars[number]

    def set_ar(self, number: int, value: int) -> None:
        self.ars[number] = value

    def cr(self, number: int) -> int:
        return self.crs[number]

    def set_cr(self, number: int, value: int) -> None:
        raise AssertionError("run-ahead changes no control register")

    def step(self) -> None:
        raise AssertionError("run-ahead does not step")


class Lockstep:
    """A booting kernel in QEMU, and the copy that runs ahead of it."""

    def __init__(self, kernel: int, memory: SharedMemory) -> None:
        self.memory = memory
        config = MachineConfig(kernel=kernel, memory=MEMORY, cmdline="console=ttysclp0 nokaslr")
        self.machine = start_qemu(config, memory, traps=True)
        assert self.machine.gdb is not None
        self.gdb: GdbRemote = self.machine.gdb
        self.registers = RegisterFile(self.gdb.registers())
        self.copy = PrivateCopy(memory)
        self.ahead = RunAhead(self.copy)
        self.prefix = 0
        self.stepped = 0
        self.compared = 0
        self.ends: dict[End, int] = dict.fromkeys(End, 0)

    def close(self) -> None:
        self.ahead.close()
        self.copy.close()
        self.machine.close()

    def boot_to(self, address: int) -> None:
        self.gdb.command(b"Z0,%x,2" % address)
        self.gdb.resume()
        self.gdb.wait()
        self.gdb.command(b"z0,%x,2" % address)
        assert self.cpu().psw.address == address

    def run_for(self, seconds: float) -> None:
        self.gdb.resume()
        time.sleep(seconds)
        self.gdb.interrupt()
        self.gdb.wait()

    def cpu(self) -> QemuCpu:
        return QemuCpu(self.gdb, self.registers, self.memory, CPU_THREAD, self.prefix)

    def snapshot(self) -> Registers:
        cpu = self.cpu()
        numbers = [*self.registers.ar, *(self.registers.cr[number] for number in (0, 1, 7, 13))]
        replies = self.gdb.requests([*self.gdb.select(CPU_THREAD), *(b"p%x" % number for number in numbers)])[-20:]
        values = [int(reply, 16) for reply in replies]
        self.prefix = cpu.prefix
        return Registers(
            cpu.psw,
            [cpu.gr(number) for number in range(16)],
            values[:16],
            dict(zip((0, 1, 7, 13), values[16:], strict=True)),
            self.prefix,
        )

    def step(self) -> None:
        self.gdb.step(CPU_THREAD)
        self.stepped += 1

    def stretch(self, bound: int) -> End:
        """Run ahead for ``bound`` instructions at most, let QEMU do the same, and compare."""
        runahead.CHUNK_INSTRUCTIONS = bound
        before = self.snapshot()
        after = dataclasses.replace(before, grs=list(before.grs), ars=list(before.ars))
        stretch = self.ahead.run(after, _no_call)
        self.ends[stretch.end] += 1
        steps = self._follow(before, after, bound)
        self._compare_storage(before, stretch.written, same=steps > 0)
        return stretch.end

    def _follow(self, before: Registers, after: Registers, bound: int) -> int:
        """Single-step QEMU until it is where run-ahead ended; returns the number of steps."""
        now = before
        steps = 0
        for _ in range(2 * bound + IDLE_STEPS):
            if now.psw.address == after.psw.address:
                now = self.snapshot()
                if (now.psw, now.grs, now.ars) == (after.psw, after.grs, after.ars):
                    self.compared += steps
                    return steps
            if steps == bound:
                break
            self.step()
            at, now = now.psw.address, dataclasses.replace(now, psw=self.cpu().psw)
            # A step of QEMU may execute nothing, where its CPU thread was called away, or half an EXECUTE.
            steps += now.psw.address != at
        differences = [
            f"r{n}: {a:#x} run ahead, {b:#x} in QEMU"
            for n, (a, b) in enumerate(zip(after.grs, self.snapshot().grs, strict=True))
            if a != b
        ]
        code = CpuMemory(before, self.memory, space=None).read(before.psw.address, 64).hex()
        pytest.fail(
            f"from {before.psw.address:#x} run-ahead came to {after.psw.address:#x} with mask {after.psw.mask:#x}, "
            f"QEMU never did in {bound} steps (now {now.psw.address:#x}, {now.psw.mask:#x}); {differences}; code {code}"
        )

    def _compare_storage(self, cpu: Registers, written: tuple[int, ...], *, same: bool) -> None:
        """Compare the pages that were stored to, unless the CPU has still to do what was given up half-way."""
        view = CpuMemory(cpu, self.copy, space=None)
        for page in written:
            absolute = view.absolute(page)
            ours, theirs = self.copy.read(absolute, PAGE_SIZE), self.memory.read(absolute, PAGE_SIZE)
            self.copy.drop(absolute)
            assert not same or ours == theirs, f"page {page:#x} differs at offset {_first_difference(ours, theirs):#x}"

    def whole_storage_agrees(self) -> bool:
        ours = np.frombuffer(self.copy.view(0, MEMORY), np.uint64)
        theirs = np.frombuffer(self.memory.view(0, MEMORY), np.uint64)
        return bool(np.array_equal(ours, theirs))


def _no_call(trap: Trap) -> bool:
    raise AssertionError("an unprotected kernel makes no ultravisor calls")


def _first_difference(one: bytes, other: bytes) -> int:
    return next(at for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])


@pytest.fixture(params=["trixie", "sid"])
def lockstep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lockstep]:
    monkeypatch.setattr(runahead, "CHUNK_INSTRUCTIONS", 0)  # put back at the end
    monkeypatch.setattr(runahead, "PATIENCE_LIMIT", 0)
    kernel = os.open(DebianArchive(request.param).kernel().kernel, os.O_RDONLY)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, kernel)
        memory = SharedMemory(MEMORY)
        stack.callback(memory.close)
        subject = Lockstep(kernel, memory)
        stack.callback(subject.close)
        yield subject


def test_run_ahead_does_what_qemu_does_all_through_a_kernels_boot(lockstep: Lockstep) -> None:
    lockstep.boot_to(ENTRY)
    number = 0
    for _ in range(30):  # the decompressor, with DAT off
        number += 1
        if lockstep.stretch(BOUNDS[number % len(BOUNDS)]) is not End.TIME:
            lockstep.step()
    assert lockstep.whole_storage_agrees()
    assert lockstep.compared > 20
    while not lockstep.cpu().psw.dat:
        lockstep.run_for(0.05)
    lockstep.compared = 0
    places = set()
    for _ in range(100):
        if lockstep.compared >= INSTRUCTIONS_WANTED:
            break
        lockstep.run_for(0.02)
        for _ in range(12):
            number += 1
            places.add(lockstep.cpu().psw.address)
            end = lockstep.stretch(BOUNDS[number % len(BOUNDS)])
            if end is End.NOT_TRIED:
                break  # a user program, or an idle CPU
            if end is not End.TIME:
                lockstep.step()  # over what run-ahead leaves to the CPU
    assert lockstep.whole_storage_agrees()
    print(f"{lockstep.compared} instructions compared from {len(places)} places, {lockstep.ends}")
    assert lockstep.compared >= INSTRUCTIONS_WANTED / 2
    assert len(places) > 100
    assert lockstep.ends[End.TIME] > 50
    assert lockstep.ends[End.CODE] > 50
