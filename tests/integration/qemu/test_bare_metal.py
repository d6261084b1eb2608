"""Guests that are not Linux, on several CPUs: orders between CPUs, the end of one of them, and address spaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.qemu.programs import bare_metal_program
from zseal.engine.qemu.traps import LOADS_LIMIT
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = pytest.mark.qemu

GOOD = 0x600D
LOADS = 20_000
Run = Callable[..., Guest]

_BEGIN = """
        .org    0x10000
        .globl  _start
_start: lghi    %r0,0
        lghi    %r1,1
        sigp    %r1,%r0,0x12            # 64-bit mode
        sam64
        lghi    %r2,1                   # the other CPU's address
        larl    %r3,restart_psw
        mvc     0x1a0(16,%r0),0(%r3)    # restart new PSW
        larl    %r3,program_psw
        mvc     0x1d0(16,%r0),0(%r3)    # program new PSW
"""
_END = """
        larl    %r3,done_psw
        lpswe   0(%r3)
        .align  8
done_psw:    .quad 0x0002000180000000, 0x600d
program_psw: .quad 0x0002000180000000, 0xbad1
"""
# Each round: start the worker, stop it as soon as it says that it runs, start it again, and stop it. Who works is the
# other CPU, or the one that the program began on.
ORDERS = f"""{_BEGIN}
        lghi    %r7,WORKER
        cghi    %r7,1
        je      orders
        larl    %r3,orders_psw
        mvc     0x1a0(16,%r0),0(%r3)
1:      sigp    %r0,%r2,0x6             # RESTART: the other CPU gives the orders
        brc     2,1b
        j       .
orders: lghi    %r2,WORKER
        larl    %r3,restart_psw
        mvc     0x1a0(16,%r0),0(%r3)
        lghi    %r8,20
round:  brasl   %r14,stop
        larl    %r3,flag1
        mvghi   0(%r3),0
        larl    %r4,flag2
        mvghi   0(%r4),0
1:      sigp    %r0,%r2,0x6             # RESTART
        brc     2,1b
2:      lt      %r5,4(%r3)
        jz      2b
        brasl   %r14,stop
3:      sigp    %r0,%r2,0x4             # START
        brc     2,3b
4:      lt      %r5,4(%r4)
        jz      4b
        brctg   %r8,round
        brasl   %r14,stop
{_END}
stop:   sigp    %r0,%r2,0x5             # STOP
        brc     2,stop
5:      lghi    %r0,0
        sigp    %r0,%r2,0x1             # SENSE, until it says stopped
        brc     8,5b
        tmll    %r0,0x40
        jz      5b
        br      %r14
work:   larl    %r3,flag1
        mvghi   0(%r3),1
        LAST
body:   larl    %r4,flag2
        mvghi   0(%r4),1
        j       .
        .align  8
restart_psw: .quad 0x0000000180000000, work
orders_psw:  .quad 0x0000000180000000, orders
body_psw:    .quad 0x0000000180000000, body
uvcb:   .quad 0x00200ff, 0, 0, 0        # a call that does not exist
flag1:  .quad 0
flag2:  .quad 0
        .org    0x12000
"""
# The other CPU ends while this one goes on.
ENDS = f"""{_BEGIN}
1:      sigp    %r0,%r2,0x6             # RESTART
        brc     2,1b
        larl    %r3,flag
2:      lt      %r4,4(%r3)
        jz      2b
        llilf   %r8,200000000
        brctg   %r8,.
{_END}
other:  larl    %r3,flag
        mvghi   0(%r3),1
        LAST
        .align  8
restart_psw: .quad 0x0000000180000000, other
bad_psw:     .quad 0x0002000180000000, 0xbad
flag:   .quad 0
        .org    0x12000
"""
LOADING = f"""{_BEGIN}
        llilf   %r8,{LOADS}
        larl    %r3,next_psw
1:      lpswe   0(%r3)
next:   brctg   %r8,1b
{_END}
restart_psw:
next_psw:    .quad 0x0000000180000000, next
        .org    0x12000
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are compiled: the compiler keeps there what it needs again."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def run(tmp_path: Path, machine: Machine, workshop: Path) -> Run:
    """Run a program to its end, and return its guest, which has ended."""

    def to_the_end(source: str) -> Guest:
        image = tmp_path / "image"
        kernel = bare_metal_program(workshop, source)
        build_image(image, kernel=kernel, host_keys=[machine.keys.host.public_key()], check_components=False)
        with Guest(image, machine=machine, memory=64 << 20, cpus=2, timeout=60.0) as guest:
            guest.wait()
        return guest

    return to_the_end


def assert_it_ended_well(guest: Guest, cpu: int = 0) -> None:
    assert guest.result is not None
    assert guest.result.outcome is Outcome.PANIC, guest.result.message
    assert guest.result.psw is not None
    assert (guest.result.cpu, hex(guest.result.psw.address)) == (cpu, hex(GOOD))
    assert list(guest.diagnoses) == [], "what is known of kernels of Linux does not hold for other guests"


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize(
    "last",
    ["larl %r3,body_psw; lpswe 0(%r3)", "larl %r3,uvcb; .insn rre,0xb9a40000,%r0,%r3"],
    ids=["LPSWE", "UVC"],
)
def test_a_stop_that_reaches_a_cpu_while_zseal_holds_it_is_carried_out(run: Run, last: str, worker: int) -> None:
    guest = run(ORDERS.replace("LAST", last).replace("WORKER", str(worker)))
    assert_it_ended_well(guest, cpu=1 - worker)


@pytest.mark.parametrize(
    "last",
    ["larl %r3,bad_psw; lpswe 0(%r3)", ".short 0", "lghi %r3,1; .insn rre,0xb9a40000,%r1,%r3"],
    ids=["LPSWE", "operation exception", "UVC"],
)
def test_the_end_of_one_cpu_is_not_that_of_the_others(run: Run, plugin: bool, last: str) -> None:
    assert_it_ended_well(run(ENDS.replace("LAST", last)))


def test_it_is_not_stopped_at_every_psw_that_it_loads(run: Run, plugin: bool) -> None:
    guest = run(LOADING)
    assert_it_ended_well(guest)
    assert isinstance(guest.report["engine"], dict)
    stops = guest.report["engine"]["stops"]
    assert isinstance(stops, int)
    assert stops < LOADS_LIMIT + 50 < LOADS
