"""Run-ahead leaves a CPU exactly where it would be, and stops in front of what it cannot do."""

from __future__ import annotations

import pytest

from tests.unit.engine.unicorn.conftest import (
    BAD_PAGE,
    CALLER,
    CODE,
    HOME,
    PREFIX,
    PRIMARY,
    READ_ONLY,
    REAL,
    STACK,
    STOP,
    UVC_AT,
    Calls,
    Machine,
    begin,
    never,
    run_all,
)
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.engine.interface import Trap
from zseal.engine.unicorn import runahead
from zseal.engine.unicorn.runahead import End, RunAhead, Stretch


@pytest.mark.parametrize("mask", [HOME, PRIMARY, REAL])
def test_a_sharing_loop_runs_to_its_end_and_leaves_every_register_as_the_loop_does(
    machine: Machine, ahead: RunAhead, mask: int
) -> None:
    machine.memory.write(PREFIX + 0x100 + 40, b"canary!!")
    begin(machine, 500, mask=mask)
    before, access = list(machine.grs), list(machine.ars)
    calls = Calls(machine.memory)
    total, stretch = run_all(ahead, machine, calls)
    assert (total, stretch.end) == (500, End.CODE)
    assert calls.pages == [0x300000 + 4096 * number for number in range(500)]
    expected = list(before)
    # What the loop leaves behind: r1, r2, r4, r5 are scratch; r14 and the callee-saved registers were restored.
    expected[1], expected[2], expected[3], expected[4], expected[5] = 0x20, 0, 0, STACK - 264, 0
    assert machine.grs == expected
    assert machine.ars == access
    assert machine.psw == Psw(mask, CALLER).with_condition_code(2)  # of the last AGHI
    assert machine.memory.read(STACK - 200 + 192, 8) == b"canary!!"
    assert all(page >> 12 in (STACK >> 12, STACK - 4096 >> 12) for page in stretch.written)


def test_what_a_stretch_changed_in_storage_is_told(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 3)
    before = machine.memory.read(0, machine.memory.size)
    _, stretch = run_all(ahead, machine, Calls(machine.memory))
    after = bytearray(machine.memory.read(0, machine.memory.size))
    assert bytes(after) != before
    for start, length in stretch.changed:
        assert start >> 12 == start + length - 1 >> 12
        assert after[start] != before[start]
        assert after[start + length - 1] != before[start + length - 1]
        after[start : start + length] = before[start : start + length]
    assert bytes(after) == before


def test_the_condition_code_of_a_call_decides_what_the_guest_does(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 1)
    run_all(ahead, machine, Calls(machine.memory, cc=1))
    assert machine.grs[2] == 0xFFFFFFFB  # -EIO in 32 bits; the upper half stayed zero
    begin(machine, 1)
    answers = iter([2, 3, 2, 0])
    calls = Calls(machine.memory)

    def busy_at_first(trap: Trap) -> bool:
        calls.cc = next(answers)
        return calls(trap)

    assert run_all(ahead, machine, busy_at_first)[0] == 4
    assert calls.pages == [0x300000] * 4
    assert machine.grs[2] == 0


def test_a_handler_may_change_general_and_access_registers(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "b9a40002" + "b9040056" + "b24f0074" + STOP.hex())  # uvc; lgr %r5,%r6; ear %r7,%a4; stnsm
    machine.psw = Psw(HOME, CODE)

    def handle(trap: Trap) -> bool:
        trap.cpu.set_gr(6, 0xFEDCBA9876543210)
        trap.cpu.set_ar(4, 0xABCD1234)
        assert trap.cpu.ar(3) == 0x2003
        trap.cpu.psw = trap.cpu.psw.advanced(4)
        return True

    assert ahead.run(machine, handle).calls == 1
    assert machine.grs[5] == machine.grs[6] == 0xFEDCBA9876543210
    assert machine.ars[4] == 0xABCD1234
    assert machine.grs[7] == 0x1007 & ~0xFFFFFFFF | 0xABCD1234


def test_access_registers_that_the_guest_sets_reach_the_cpu(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "b24e0056" + "b9a40002" + STOP.hex())  # sar %a5,%r6; uvc
    machine.grs[6] = 0x1122334455667788
    machine.psw = Psw(HOME, CODE)

    def handle(trap: Trap) -> bool:
        trap.cpu.psw = trap.cpu.psw.advanced(4)
        return True

    assert ahead.run(machine, handle).calls == 1
    assert machine.ars == [0x2000 + n if n != 5 else 0x55667788 for n in range(16)]


@pytest.mark.parametrize("code", ["ac03f000", "0a05", "b205f000", "b2b2f000", "83240500", "b3c10001", "0000"])
def test_it_stops_in_front_of_a_block_with_what_it_does_not_do(machine: Machine, ahead: RunAhead, code: str) -> None:
    # A block that is fine (it ends in a branch), then one with two fine instructions and the forbidden one.
    machine.put(CODE, "a73b0001" + "a7f40004" + "0000" * 2 + "a73b0100" + "a73b0100" + code)
    machine.grs[3] = 0
    machine.psw = Psw(HOME, CODE)
    before = machine.memory.read(0, machine.memory.size)
    stretch = ahead.run(machine, never)
    assert stretch == Stretch(0, End.CODE, ())
    if machine.psw.address == CODE + 20:  # the emulator itself finds that it cannot: all before it is done
        assert machine.grs[3] == 0x201
    else:
        assert machine.psw.address == CODE + 12
        assert machine.grs[3] == 1
    assert machine.memory.read(0, machine.memory.size) == before


@pytest.mark.parametrize("code", ["b2051000", "b27c1000"])  # STCK and STCKF, which would store at 0x1000
def test_a_block_that_was_refused_is_refused_again(machine: Machine, ahead: RunAhead, code: str) -> None:
    machine.put(CODE, "a73b0001" + "a7f40004" + "0000" * 2 + "a73b0100" + code)
    machine.grs[1], machine.grs[3] = 0x1000, 0
    tried = 0
    for _ in range(20):
        machine.psw = Psw(HOME, CODE)
        tried += ahead.run(machine, never).end is End.CODE
    assert tried == 4
    assert machine.grs[3] == tried
    assert machine.memory.read(0x9000, 16) == bytes(16)


def test_it_does_not_begin_with_what_it_does_not_do(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "a73b0001" + STOP.hex())
    machine.psw = Psw(HOME, CODE)
    before = list(machine.grs)
    assert ahead.run(machine, never).end is End.CODE
    assert (machine.grs, machine.psw.address) == (before, CODE)


@pytest.mark.parametrize(
    ("code", "address", "length"),
    [
        ("e31020000004", BAD_PAGE, 6),  # lg
        ("e31020000024", READ_ONLY, 6),  # stg
        ("eb4720000004", BAD_PAGE - 16, 6),  # lmg %r4,%r7: the second half lies in a page that is not there
        ("eb4720000024", READ_ONLY - 16, 6),
        ("d20f20003000", READ_ONLY - 8, 6),  # mvc
        ("e31020000004", 1 << 40, 6),  # outside the tables
    ],
)
def test_an_access_that_fails_leaves_the_instruction_to_the_cpu(
    machine: Machine, ahead: RunAhead, code: str, address: int, length: int
) -> None:
    machine.put(CODE, "a78bffff" + code + "a7f40000")  # aghi %r8,-1 sets the condition code
    machine.grs[2], machine.grs[3], machine.grs[8] = address, CALLER, 0
    machine.psw = Psw(HOME, CODE)
    before = list(machine.grs)
    assert ahead.run(machine, never).end is End.ACCESS
    before[8] = (1 << 64) - 1
    assert machine.grs == before
    assert machine.psw == Psw(HOME, CODE + 4).with_condition_code(1)
    assert machine.memory.read(READ_ONLY, 64) == bytes(64)


@pytest.mark.parametrize(
    "code",
    [
        "d10f20003000",  # mvn
        "d30f20003000",  # mvz
        "d40f20003000",  # nc
        "d60f20003000",  # oc
        "d70f20003000",  # xc
        "dc0f20003000",  # tr
        "eb012004007a",  # agsi 4(%r2),1
    ],
)
def test_what_may_store_into_one_page_only_is_not_half_done(
    machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(runahead, "WRITTEN_LIMIT", 1)
    machine.put(CODE, code + "b9a40002" + STOP.hex())
    machine.grs[2], machine.grs[3] = STACK + 0xFF8, CALLER
    machine.memory.write(STACK + 0xFF0, bytes(range(1, 33)))
    machine.memory.write(CALLER, bytes(range(255, -1, -1)))
    machine.psw = Psw(HOME, CODE)
    assert ahead.run(machine, never).end in (End.ACCESS, End.CODE)
    assert machine.psw.address == CODE
    assert machine.memory.read(STACK + 0xFF0, 32) == bytes(range(1, 33))


def test_a_lowcore_with_low_address_protection_is_not_written(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "e31003000024" + "b9a40002" + STOP.hex())  # stg %r1,0x300
    machine.psw = Psw(HOME, CODE)
    machine.crs[0] = 0x10000000
    assert ahead.run(machine, never).end is End.ACCESS
    assert machine.psw.address == CODE
    machine.crs[0] = 0
    assert ahead.run(machine, lambda trap: False).end is End.NOT_TRIED  # nothing was gained here the last time
    stretch = ahead.run(machine, lambda trap: False)
    assert stretch.end is End.CALL
    assert stretch.written == (0,)
    assert machine.word(PREFIX + 0x300) == 0x1001


def test_a_program_interruption_of_a_call_is_left_to_the_cpu(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 10)
    count = 0

    def handle(trap: Trap) -> bool:
        nonlocal count
        count += 1
        if count == 4:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        trap.cpu.psw = trap.cpu.psw.advanced(4).with_condition_code(0)
        return True

    stretch = ahead.run(machine, handle)
    assert (stretch.calls, stretch.end) == (3, End.CALL)
    assert machine.psw.address == UVC_AT
    assert machine.word(machine.grs[4] + 24) == 0x300000 + 3 * 4096


def test_any_other_exception_comes_out_with_the_registers_in_front_of_the_call(
    machine: Machine, ahead: RunAhead
) -> None:
    begin(machine, 10)

    def handle(trap: Trap) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ahead.run(machine, handle)
    assert machine.psw.address == UVC_AT
    assert machine.grs[15] == STACK - 264


def test_a_handler_can_end_the_stretch_behind_its_call(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 10)
    calls = Calls(machine.memory, cc=0)

    def twice(trap: Trap) -> bool:
        calls(trap)
        return len(calls.pages) < 2

    stretch = ahead.run(machine, twice)
    assert (stretch.calls, stretch.end) == (2, End.CALL)
    assert machine.psw == Psw(HOME, UVC_AT + 4).with_condition_code(0)


def test_code_that_never_calls_is_left_after_a_bound(
    machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runahead, "CHUNK_INSTRUCTIONS", 1000)
    machine.put(CODE, "a73b0001" + "a7f4fffe")  # aghi %r3,1; j back
    machine.psw = Psw(HOME, CODE)
    machine.grs[3] = 0
    assert ahead.run(machine, never).end is End.TIME
    assert machine.grs[3] in (500, 501)
    assert machine.psw.address == CODE + (4 if machine.grs[3] == 501 else 0)


def test_a_loop_of_calls_is_not_cut_by_the_bound_for_other_code(
    machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runahead, "CHUNK_INSTRUCTIONS", 100)
    begin(machine, 60)
    calls = Calls(machine.memory)
    assert ahead.run(machine, calls).calls == 60
    assert calls.pages == [0x300000 + 4096 * number for number in range(60)]
    assert (machine.grs[2], machine.psw.address) == (0, CALLER)


def test_a_bound_never_falls_between_an_execute_and_its_target(
    machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runahead, "PATIENCE_LIMIT", 0)
    # exrl (mvc 0(1,%r4),0(%r5) with the length from r6); lgr %r5,%r6; brctg back; uvc
    machine.put(CODE, "c66000000080" + "b9040075" + "a797fffb" + "b9a40001" + STOP.hex())
    machine.put(CODE + 0x100, "d20040005000")
    for bound in range(1, 12):
        monkeypatch.setattr(runahead, "CHUNK_INSTRUCTIONS", bound)
        machine.memory.write(0x300000, bytes(16) + b"0123456789abcdef")
        machine.grs = [0x1000 + n for n in range(16)]
        machine.grs[4], machine.grs[5], machine.grs[6], machine.grs[9] = 0x300000, 0x300010, 15, 3
        machine.psw = Psw(HOME, CODE)
        stretch = RunAhead(machine.memory)
        try:
            for _ in range(40):
                if machine.psw.address == CODE + 14:
                    break
                assert stretch.run(machine, lambda trap: False).end is not End.ACCESS
        finally:
            stretch.close()
        assert machine.psw.address == CODE + 14, bound
        assert machine.memory.read(0x300000, 16) == b"0123456789abcdef"
        assert (machine.grs[7], machine.grs[9]) == (0x300010, 0)


def test_code_that_stores_all_over_the_place_is_left_to_the_cpu(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "e31020000024" + "a72b1000" + "a7f4fffb")  # stg %r1,0(%r2); aghi %r2,4096; j back
    machine.grs[2] = 0x300000
    machine.psw = Psw(HOME, CODE)
    stretch = ahead.run(machine, never)
    assert (stretch.end, len(stretch.written)) == (End.ACCESS, runahead.WRITTEN_LIMIT)
    assert (machine.grs[2], machine.psw.address) == (0x300000 + 0x1000 * runahead.WRITTEN_LIMIT, CODE)


def test_one_stretch_of_calls_ends_in_time(machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runahead, "STRETCH_SECONDS", 0.0)
    begin(machine, 10)
    stretch = ahead.run(machine, Calls(machine.memory))
    assert (stretch.calls, stretch.end) == (1, End.TIME)
    assert machine.psw.address == UVC_AT + 4


def test_patched_code_is_seen_by_the_next_stretch(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 2)
    run_all(ahead, machine, Calls(machine.memory))
    assert machine.grs[2] == 0
    machine.put(CODE + 0x9C, "a7280007")  # lhi %r2,7
    begin(machine, 2)
    run_all(ahead, machine, Calls(machine.memory))
    assert machine.grs[2] == 7


def test_code_does_not_change_under_its_own_execution(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE, "a7380001" + "e31020000024" + "a7f40000")  # stg %r1,0(%r2)
    machine.grs[2] = CODE + 0x800
    machine.psw = Psw(HOME, CODE)
    assert ahead.run(machine, never).end is End.ACCESS
    assert machine.psw.address == CODE + 4
    # Nor is a page executed that the stretch has written to.
    machine.put(CODE, "e31020000024" + "c0f40000fffd")  # stg %r1,0(%r2); jump 0x20000 further
    machine.put(CODE + 0x20000, "a7f40000")
    machine.grs[2] = CODE + 0x20800
    machine.psw = Psw(HOME, CODE)
    ahead.run(machine, never)
    assert ahead.run(machine, never).end is End.ACCESS
    assert machine.psw.address == CODE + 0x20000


def test_a_control_block_among_code_is_left_to_the_cpu(machine: Machine, ahead: RunAhead) -> None:
    machine.psw = Psw(HOME, CODE)
    machine.grs[2] = CODE + 0x100
    machine.put(CODE, "b9a40002" + STOP.hex())
    stretch = ahead.run(machine, never)
    assert (stretch.calls, stretch.end, machine.psw.address) == (0, End.CALL, CODE)


@pytest.mark.parametrize(
    "mask",
    [
        HOME | 1 << 62,  # PER
        HOME | 1 << 48,  # problem state
        HOME | 1 << 49,  # wait
        0x0400800180000000,  # secondary space: instructions are in the primary one
        0x0400400180000000,  # access-register mode
        0x0400C00080000000,  # 31-bit addressing
    ],
)
def test_cpus_in_other_states_are_not_run_ahead(machine: Machine, ahead: RunAhead, mask: int) -> None:
    begin(machine, 5, mask=mask)
    assert ahead.run(machine, never) == Stretch(0, End.NOT_TRIED)


def test_a_place_that_gains_nothing_is_tried_less_and_less(machine: Machine, ahead: RunAhead) -> None:
    machine.memory.write(CODE, STOP)
    machine.psw = Psw(HOME, CODE)
    tried = [ahead.run(machine, never).end is End.CODE for _ in range(30)]
    assert [number for number, yes in enumerate(tried) if yes] == [0, 2, 6, 14]


def test_execution_protected_pages_are_not_executed(machine: Machine, ahead: RunAhead) -> None:
    begin(machine, 1)
    entry = 0x208000 + (CODE >> 12) * 8
    machine.memory.write(entry, (CODE | 0x100).to_bytes(8, "big"))
    machine.crs[0] = 1 << 20
    assert ahead.run(machine, never).end is End.ACCESS
    assert machine.psw.address == CODE
