"""A stopped CPU with a few MiB of storage, and a loop of ultravisor calls as Linux has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from tests.unit.native.building import NATIVE, build, is_sanitized
from zseal.arch.dat import CpuMemory
from zseal.arch.psw import Psw
from zseal.arch.storage import MIB
from zseal.engine.interface import Trap, TrapKind
from zseal.engine.memory import SharedMemory
from zseal.engine.unicorn import runahead
from zseal.engine.unicorn.runahead import End, RunAhead, Stretch

CODE = 0x100000
CALLER = 0x110000
STACK = 0x30F000
PREFIX = 0x8000
BAD_PAGE = 0x3F0000  # not mapped
READ_ONLY = 0x3F1000
HOME = 0x0400C00180000000
PRIMARY = 0x0400000180000000
REAL = 0x0000000180000000

# A loop as Linux's set_memory_decrypted() is one: r2 = first address, r3 = number of pages, a stack protector whose
# canary lies at offset 40 behind a0:a1, and a subroutine that builds the control block on the stack.
LOOP = bytes.fromhex(
    "eb6ff0300024"  # stmg  %r6,%r15,48(%r15)
    "b9040082"  # lgr   %r8,%r2
    "b9040093"  # lgr   %r9,%r3
    "a7fbff38"  # aghi  %r15,-200
    "e548f0a00000"  # mvghi 160(%r15),0              <- 0x12
    "b24f0010"  # ear   %r1,%a0
    "eb110020000d"  # sllg  %r1,%r1,32
    "b24f0011"  # ear   %r1,%a1
    "d207f0c01028"  # mvc   192(8,%r15),40(%r1)
    "b9040028"  # lgr   %r2,%r8
    "c0e500000015"  # brasl %r14,share
    "d207f0b0f0c0"  # mvc   176(8,%r15),192(%r15)
    "d507f0c0f0b0"  # clc   192(8,%r15),176(%r15)
    "a774000a"  # jne   .
    "a78b1000"  # aghi  %r8,4096
    "a797ffe4"  # brctg %r9,0x12
    "eb6ff0f80004"  # lmg   %r6,%r15,248(%r15)
    "07fe"  # br    %r14
    "a7f40000"  # j     .
    # share:
    "ebeff0700024"  # stmg  %r14,%r15,112(%r15)
    "a7fbffc0"  # aghi  %r15,-64
    "d71ff000f000"  # xc    0(32,%r15),0(%r15)
    "a7191000"  # lghi  %r1,4096
    "4010f002"  # sth   %r1,2(%r15)
    "a7190020"  # lghi  %r1,32
    "4010f000"  # sth   %r1,0(%r15)
    "e320f0180024"  # stg   %r2,24(%r15)
    "4140f000"  # la    %r4,0(%r15)
    "a7390000"  # lghi  %r3,0
    "b9a40034"  # uvc   %r3,%r4                      <- 0x88
    "b2220050"  # ipm   %r5
    "8850001c"  # srl   %r5,28
    "a75e0001"  # chi   %r5,1
    "a724fff8"  # jh    0x88
    "a7280000"  # lhi   %r2,0
    "a7840006"  # je    .+12
    "ebeff0b00004"  # lmg   %r14,%r15,176(%r15)
    "07fe"  # br    %r14
    "a728fffb"  # lhi   %r2,-5
    "a7f4fffa"  # j     .-12
)
UVC_AT = CODE + 0x88
STOP = bytes.fromhex("ac03f000")  # STNSM: privileged


@dataclasses.dataclass
class Machine:
    """A stopped CPU with 4 MiB of storage, virtual = real, prefixed."""

    memory: SharedMemory
    number: int = 0
    prefix: int = PREFIX
    psw: Psw = dataclasses.field(default_factory=lambda: Psw(HOME, CODE))
    grs: list[int] = dataclasses.field(default_factory=lambda: [0x1000 + n for n in range(16)])
    ars: list[int] = dataclasses.field(default_factory=lambda: [0x2000 + n for n in range(16)])
    crs: list[int] = dataclasses.field(default_factory=lambda: [0] * 16)

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
        self.crs[number] = value

    def step(self) -> None:
        raise AssertionError("run-ahead must not step the CPU it copies")

    def put(self, address: int, code: str) -> None:
        self.memory.write(address, bytes.fromhex(code))

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "big")


@pytest.fixture(scope="session", autouse=True)
def sanitized_hook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a hook with sanitizers in a process that has their runtimes."""
    if not is_sanitized():
        yield
        return
    path = build(tmp_path_factory.mktemp("hook"), "series", [NATIVE / "unicorn_hook" / "series.c"])
    with mock.patch("zseal.engine.unicorn.emulator.hook_path", return_value=path):
        yield


@pytest.fixture
def machine() -> Iterator[Machine]:
    memory = SharedMemory(4 * MIB)

    def put(address: int, value: int) -> None:
        memory.write(address, value.to_bytes(8, "big"))

    region, segments, pages = 0x200000, 0x204000, 0x208000
    for index in range(2048):
        put(region + index * 8, 0x20)
        put(segments + index * 8, 0x20)
    put(region, segments | 4 | 3)
    for segment in range(4):
        put(segments + segment * 8, pages + segment * 0x800)
        for index in range(256):
            put(pages + segment * 0x800 + index * 8, segment << 20 | index << 12)
    put(pages + (BAD_PAGE >> 12) * 8, 0x400)
    put(pages + (READ_ONLY >> 12) * 8, READ_ONLY | 0x200)
    guest = Machine(memory)
    guest.crs[1] = guest.crs[13] = region | 4 | 3
    memory.write(CODE, LOOP)
    memory.write(CALLER, STOP)
    yield guest
    memory.close()


@pytest.fixture
def ahead(machine: Machine) -> Iterator[RunAhead]:
    runner = RunAhead(machine.memory)
    yield runner
    runner.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this computer is: only what a test is about ends its stretches."""
    monkeypatch.setattr(runahead, "STRETCH_SECONDS", 60.0)


class Calls:
    """Answers every call with one condition code and keeps what was asked for."""

    def __init__(self, memory: SharedMemory, cc: int = 0) -> None:
        self.memory = memory
        self.cc = cc
        self.pages: list[int] = []

    def __call__(self, trap: Trap) -> bool:
        assert trap.kind is TrapKind.UVC
        cpu = trap.cpu
        block = CpuMemory(cpu, self.memory).read(cpu.gr(trap.r2), 32)
        assert block[:4] == bytes.fromhex("00201000")
        self.pages.append(int.from_bytes(block[24:], "big"))
        cpu.psw = cpu.psw.advanced(4).with_condition_code(self.cc)
        return True


def never(trap: Trap) -> bool:
    raise AssertionError(f"no call was expected at {trap.cpu.psw.address:#x}")


def begin(machine: Machine, pages: int, *, mask: int = HOME) -> None:
    machine.psw = Psw(mask, CODE)
    machine.grs[2], machine.grs[3], machine.grs[14], machine.grs[15] = 0x300000, pages, CALLER, STACK
    machine.ars[0], machine.ars[1] = 0, 0x100  # the canary is in the lowcore, which the prefix moves


def run_all(ahead: RunAhead, machine: Machine, handle: Callable[[Trap], bool]) -> tuple[int, Stretch]:
    total = 0
    while True:
        stretch = ahead.run(machine, handle)
        total += stretch.calls
        if stretch.end is not End.TIME:
            return total, stretch
