"""Privileged instructions, interruptions and what they leave in the lowcore, each as the architecture has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from zseal.arch.psw import Psw
from zseal.engine.embedded import clock
from zseal.engine.errors import EngineError
from zseal.engine.interface import StopKind

if TYPE_CHECKING:
    from tests.unit.engine.embedded.conftest import Bench

CODE = 0x10000
DONE, UNEXPECTED = 0xD0, 0xBAD
WAIT_MASK = 0x0002000180000000
PLAIN_MASK = 0x0000000180000000
PROBLEM_MASK = 0x0001000180000000
HANDLER = 0x10800


def psw(mask: int, address: int) -> bytes:
    return mask.to_bytes(8, "big") + address.to_bytes(8, "big")


def double(value: int) -> bytes:
    return value.to_bytes(8, "big")


def program_check(bench: Bench, code: str, places: dict[int, bytes] | None = None) -> tuple[int, int, int]:
    """Run ``code``, which must end in a program interruption; return code, old PSW address and instruction length."""
    bench.run(code, places, end=UNEXPECTED)
    memory = bench.memory
    return (
        int.from_bytes(memory.read(0x8E, 2), "big"),
        int.from_bytes(memory.read(0x158, 8), "big"),
        memory.read(0x8D, 1)[0],
    )


def test_control_registers_are_loaded_and_stored(bench: Bench) -> None:
    values = b"".join(double(0x1000 * number) for number in range(16))
    machine = bench.run("eb0f0800002f" + "eb0f09000025", {0x800: values})  # LCTLG, STCTG
    assert bench.memory.read(0x900, 128) == values
    assert machine.cpus[0].cr(9) == 0x9000


def test_the_short_forms_touch_the_low_halves_in_a_circle_of_registers(bench: Bench) -> None:
    machine = bench.run("b7f10800" + "b6f10810", {0x800: bytes.fromhex("111111112222222233333333")})  # LCTL 15,1
    assert [machine.cpus[0].cr(number) for number in (15, 0, 1)] == [0x11111111, 0x22222222, 0x33333333]
    assert bench.memory.read(0x810, 12) == bytes.fromhex("111111112222222233333333")


def test_the_system_mask_is_stored_and_changed(bench: Bench) -> None:
    machine = bench.run(
        "8000080a" + "acfc0808" + "ad020809" + "b98d0012" + "b98d0030",  # SSM, STNSM, STOSM, EPSW, EPSW
        {0x80A: b"\x03"},
    )
    assert bench.memory.read(0x808, 2) == b"\x03\x00"
    assert [machine.cpus[0].gr(number) for number in (1, 2, 3)] == [0x02000001, 0x80000000, 0x02000001]


def test_set_prefix_moves_the_lowcore_at_once(bench: Bench) -> None:
    # spx; mvi 0x300,0xab; stpx 0x814; back to 0 for the end
    code = "b2100810" + "92ab0300" + "b2110814" + "41100000" + "50100820" + "b2100820"
    machine = bench.run(code, {0x810: (0x20FFF).to_bytes(4, "big")})
    assert bench.memory.read(0x20300, 1) == b"\xab"
    assert bench.memory.read(0x300, 1) == b"\0"
    assert bench.memory.read(0x20814, 4) == (0x20000).to_bytes(4, "big")
    assert machine.cpus[0].prefix == 0x20000 or machine.cpus[0].prefix == 0


def test_set_prefix_to_where_nothing_is_fails(bench: Bench) -> None:
    assert program_check(bench, "b2100810", {0x810: (0x7FFFE000).to_bytes(4, "big")})[0] == 5


def test_identity_and_address(bench: Bench) -> None:
    bench.run("b2120818" + "b2020820")
    assert bench.memory.read(0x818, 2) == b"\0\0"
    assert bench.word(0x820) == 0x85618000


def test_a_supervisor_call_tells_its_number_and_goes_on_behind_it(bench: Bench) -> None:
    handler = "a7180077" + "b2b20140"  # lhi %r1,0x77; lpswe of the SVC old PSW
    machine = bench.run(
        "0a2a" + "a7280055", {0x1C0: psw(PLAIN_MASK, HANDLER), HANDLER: bytes.fromhex(handler)}
    )  # svc 42; lhi %r2,0x55
    assert bench.memory.read(0x88, 4) == bytes.fromhex("0002002a")
    assert (machine.cpus[0].gr(1), machine.cpus[0].gr(2)) == (0x77, 0x55)


def test_a_supervisor_call_through_execute_has_the_length_of_the_execute(bench: Bench) -> None:
    code = "a7190003" + "44100840" + "a7280055"  # lghi %r1,3; ex %r1,0x840; lhi
    handler = bytes.fromhex("b2b20140")
    machine = bench.run(code, {0x840: bytes.fromhex("0a40"), 0x1C0: psw(PLAIN_MASK, HANDLER), HANDLER: handler})
    assert bench.memory.read(0x88, 4) == bytes.fromhex("00040043")
    assert machine.cpus[0].gr(2) == 0x55


@pytest.mark.parametrize(
    ("code", "number", "length"),
    [
        ("0000", 1, 2),
        ("b9ff0000", 1, 4),
        ("e3000000ffff", 1, 6),
        ("a7180005" + "a7280000" + "1d02", 9, 2),  # divide by zero
        ("1d12", 6, 2),  # odd register pair
        ("b2b20e04", 6, 4),  # LPSWE of what is no doubleword
        ("e310080000" + "8f", 6, 6),  # LPQ into an odd register
        ("44000841", 6, 4),  # EXECUTE of an odd address
        ("44000842", 3, 4),  # EXECUTE of an EXECUTE
        ("28f8", 7, 2),  # LDR of a register that needs CR0 bit 45
        ("c01f00500000" + "58101000", 5, 4),  # outside storage
    ],
)
def test_program_interruptions_name_code_place_and_length(bench: Bench, code: str, number: int, length: int) -> None:
    if code.startswith("c01f"):
        code = "c01f00500000" + "58101000"
    found = program_check(bench, code, {0x842: bytes.fromhex("44000840")})
    assert found == (number, CODE + len(code) // 2, length)


def test_privileged_instructions_are_for_the_supervisor_state(bench: Bench) -> None:
    for code in ("b2100810", "eb0f0800002f", "b2b20e00", "ae120000", "b2200012", "83020308", "b2790300", "b2210012"):
        start = {0x860: psw(PROBLEM_MASK, HANDLER), HANDLER: bytes.fromhex(code)}
        bench.run("b2b20860", start, end=UNEXPECTED)
        assert bench.memory.read(0x8E, 2) == b"\0\2", code
        assert bench.word(0x158) == HANDLER + len(code) // 2
        assert bench.word(0x150) == PROBLEM_MASK
        assert bench.machine is not None
        bench.machine.close()


def test_a_privileged_instruction_can_be_executed(bench: Bench) -> None:
    bench.run("44000840", {0x840: bytes.fromhex("b2120818"), 0x818: b"\xff\xff"})
    assert bench.memory.read(0x818, 2) == b"\0\0"


@pytest.mark.parametrize(
    "mask", [0x8000000180000000, 0x0008000180000000, 0x0000000100000000, 0x0000000180000001, 0x2000000180000000]
)
def test_a_psw_that_can_not_be_is_an_early_specification_exception(bench: Bench, mask: int) -> None:
    bench.run("b2b20860", {0x860: psw(mask, 0x20000)}, end=UNEXPECTED)
    assert bench.memory.read(0x8C, 4) == b"\0\0\0\6"
    assert (bench.word(0x150), bench.word(0x158)) == (mask, 0x20000)


def test_a_short_psw_is_expanded(bench: Bench) -> None:
    machine = bench.run("82000860", {0x860: double(0x000A000080000000 | 0x1234)}, end=0x1234)
    assert machine.stop is not None
    assert machine.stop.psw == Psw(0x0002000080000000, 0x1234)


def test_the_clock_runs(bench: Bench) -> None:
    before = clock.time_of_day()
    bench.run("b2050850" + "b27c0858" + "b2780860")  # STCK, STCKF, STCKE
    after = clock.time_of_day()
    assert before <= bench.word(0x850) <= bench.word(0x858) <= after
    assert bench.memory.read(0x860, 1) == b"\0"
    assert before <= int.from_bytes(bench.memory.read(0x861, 8), "big") <= after
    # 1970-01-01 is 2,208,988,800 s after the epoch of the clock
    assert abs((before >> 12) / 1e6 - 2_208_988_800 - time.time()) < 100


def test_the_clock_comparator_wakes_a_waiting_cpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0xE000000000000000
    monkeypatch.setattr(clock, "time_of_day", lambda: now)
    wait = psw(0x0102000180000000, 0)
    code = "eb000800002f" + "b2060860" + "b2070868" + "b2b20870"  # LCTLG CR0; SCKC; STCKC; LPSWE enabled wait
    then = now + 4096 * 30_000
    places = {0x800: double(0xE0 | 0x800), 0x860: double(then), 0x870: wait, 0x1B0: psw(WAIT_MASK, DONE)}
    machine = bench.load(code, places)
    assert not machine.run_slice()
    assert bench.word(0x868) == then
    assert machine.seconds_to_next() == 0.03
    assert not machine.run_slice()
    now = then + 1
    assert not machine.run_slice()
    assert machine.stop is not None
    assert machine.stop.psw == Psw(WAIT_MASK, DONE)
    assert bench.memory.read(0x86, 2) == b"\x10\x04"
    assert bench.memory.read(0x130, 16) == wait


def test_the_cpu_timer_runs_down(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    code = "b2080868" + "b2090870" + "eb000800002f" + "b2b20878"
    places = {0x800: double(0x400), 0x868: double(4096 * 5_000), 0x878: psw(0x0102000180000000, 0)}
    machine = bench.load(code, {**places, 0x1B0: psw(WAIT_MASK, DONE)})
    machine.run_slice()
    assert bench.word(0x870) == 4096 * 5_000
    assert machine.seconds_to_next() == 0.005
    now += 5_000_001
    machine.run_slice()
    assert bench.memory.read(0x86, 2) == b"\x10\x05"
    assert machine.stop is not None


def test_real_storage_is_read_and_written_past_the_prefix(bench: Bench) -> None:
    # spx 0x20000; r2 = 0x880; lurag r1; sturg r1 at r2+8; back
    code = "b2100810" + "a7290880" + "b9050012" + "a72b0008" + "b9250012" + "a7390000" + "50300820" + "b2100820"
    bench.run(code, {0x810: (0x12000).to_bytes(4, "big"), 0x12880: double(0x1122334455667788)})
    assert bench.word(0x12888) == 0x1122334455667788


def tables(bench: Bench) -> dict[int, bytes]:
    """A region-third table at 0x200000 that maps the first MiB one to one, except page 0x30 (read only) and 0x31."""
    memory = bench.memory
    for index in range(2048):
        memory.write(0x200000 + 8 * index, double(0x20))
        memory.write(0x204000 + 8 * index, double(0x20))
    memory.write(0x200000, double(0x204000 | 4 | 3))
    memory.write(0x204000, double(0x208000))
    for page in range(256):
        memory.write(0x208000 + 8 * page, double(page << 12))
    memory.write(0x208000 + 8 * 0x30, double(0x30000 | 0x200))
    memory.write(0x208000 + 8 * 0x31, double(0x400))
    return {0x800: double(0x200000 | 4 | 3), 0x860: psw(0x0400C00180000000, HANDLER)}


def run_translated(bench: Bench, code: str, *, end: int = DONE) -> None:
    machine = bench.load("eb110800002f" + "ebdd0800002f" + "b2b20860", {HANDLER: bytes.fromhex(code + "b2b20e00")})
    for address, data in tables(bench).items():
        bench.memory.write(address, data)
    while machine.run_slice():
        pass
    assert machine.stop is not None
    assert machine.stop.psw is not None
    assert machine.stop.psw.address == end


def test_translation_exceptions_name_the_page_and_leave_the_psw_at_the_instruction(bench: Bench) -> None:
    run_translated(bench, "a72b0001" + "c02f00031234" + "e31020000004", end=UNEXPECTED)
    assert bench.memory.read(0x8E, 2) == b"\0\x11"
    assert bench.word(0xA8) == 0x31000 | 3
    assert bench.word(0x158) == HANDLER + 10


def test_protected_pages_refuse_stores(bench: Bench) -> None:
    run_translated(bench, "c02f00030100" + "e31020000004" + "e31020000024", end=UNEXPECTED)
    assert bench.memory.read(0x8E, 2) == b"\0\4"
    assert bench.word(0xA8) & ~0xFFF == 0x30000
    assert bench.word(0x158) == HANDLER + 18


def test_load_real_address_and_test_protection(bench: Bench) -> None:
    code = "c02f00030010" + "e31020000003" + "e50120000000" + "b2220050"  # lrag, tprot, ipm
    code += "c03f00031000" + "e36030000003" + "b2220070" + "e50130000000" + "b2220080"
    run_translated(bench, code)
    assert bench.machine is not None
    cpu = bench.machine.cpus[0]
    assert cpu.gr(1) == 0x30010
    assert cpu.gr(5) >> 28 & 3 == 1  # fetches only
    assert cpu.gr(6) & 0xFFFFFFFF == 0x80000011
    assert cpu.gr(7) >> 28 & 3 == 3
    assert cpu.gr(8) >> 28 & 3 == 3


def test_ipte_invalidates_the_page_at_once(bench: Bench) -> None:
    # touch page 0x33, invalidate it (table at 0x208000 is reached real), touch again
    code = "c02f00033000" + "e31020000004" + "c03f00208000" + "b2210032" + "e31020000004"
    run_translated(bench, code, end=UNEXPECTED)
    assert bench.memory.read(0x8E, 2) == b"\0\x11"
    assert bench.word(0x208000 + 8 * 0x33) == 0x33000 | 0x400


def test_spaces_of_their_own_need_another_engine(bench: Bench) -> None:
    with pytest.raises(EngineError, match=r'secondary mode.*`engine="qemu"`'):
        run_translated(bench, "b2190100" + "a7180001")


def test_low_address_protection_covers_exactly_its_two_stretches(bench: Bench) -> None:
    on = {0x800: double(0x10000000 | 0xE0)}
    bench.run("eb000800002f" + "92550300" + "9266021f" + "92770fff", on)
    assert (bench.memory.read(0x300, 1), bench.memory.read(0xFFF, 1)) == (b"\x55", b"\x77")
    for code, at in (("92550100", 0x100), ("925501ff", 0x1FF), ("a7291000925520ff", 0x10FF)):
        assert bench.machine is not None
        bench.machine.close()
        assert program_check(bench, "eb000800002f" + code, on)[0] == 4
        assert bench.memory.read(at, 1) == b"\0"
    assert bench.machine is not None
    bench.machine.close()
    # A store that only begins outside is refused as a whole, and no register has changed.
    code = "eb000800002f" + "a7190055" + "d20f0ff80900" + "a7190066"
    assert program_check(bench, code, {**on, 0x900: bytes(range(1, 17))})[0] == 4
    assert bench.memory.read(0xFF8, 16) == bytes(16)
    assert bench.machine.cpus[0].gr(1) == 0x55


def test_a_data_exception_code_follows_the_prefix(bench: Bench) -> None:
    new = psw(WAIT_MASK, UNEXPECTED)
    code = "b2100810" + "28f8"
    bench.run(code, {0x810: (0x12000).to_bytes(4, "big"), 0x12000 + 0x1D0: new, 0x90: b"keep"}, end=UNEXPECTED)
    assert bench.memory.read(0x12090, 4) == bytes.fromhex("00000001")
    assert bench.memory.read(0x90, 4) == b"keep"


def test_facilities_are_listed_as_asked_for(bench: Bench) -> None:
    machine = bench.run("a7090000" + "b2b00900" + "b2220010" + "a7090007" + "b2b00940" + "b2b10000")
    assert bench.listener.traps == ["stfle", "stfle"]
    first = bench.memory.read(0x900, 16)
    assert first[0] & 0x61  # z/Architecture, and STFLE itself
    assert first[8:] == bytes(8)
    assert machine.cpus[0].gr(1) >> 28 & 3 == 3
    assert machine.cpus[0].gr(0) == 2
    assert bench.memory.read(0x940, 8) == first[:8]
    assert bench.memory.read(0xC8, 4) == first[:4]


def test_there_are_no_channels_and_no_storage_keys(bench: Bench) -> None:
    code = "a71900ff" + "b2290012" + "b22a0002" + "b2220030" + "b2340900" + "b2220040" + "b2360900" + "b2220050"
    cpu = bench.run(code).cpus[0]
    assert cpu.gr(1) == 0
    assert [cpu.gr(number) >> 28 & 3 for number in (3, 4, 5)] == [0, 3, 0]


def test_the_key_of_the_psw_can_be_set_and_read(bench: Bench) -> None:
    cpu = bench.run("a72900ff" + "b20a0020" + "b20b0000").cpus[0]
    assert cpu.gr(2) == 0x20


def test_an_uvc_without_ultravisor_is_an_operation_exception(bench: Bench) -> None:
    assert program_check(bench, "b9a40002") == (1, CODE + 4, 4)
    assert bench.listener.traps == ["uvc"]


def test_diagnose_functions_that_are_not_there_are_refused(bench: Bench) -> None:
    for subcode in (2, 7, 8, 10, 0x10000):
        code = f"c02f{subcode:08x}" + "83020308"
        assert program_check(bench, code)[0] == 6
        assert bench.machine is not None
        bench.machine.close()


def test_an_ipl_parameter_block_is_kept(bench: Bench) -> None:
    block = (16).to_bytes(4, "big") + bytes(range(12))
    code = "c00f00012000" + "a7290006" + "83020308" + "b9040061"  # store: nothing there yet
    code += "a7290005" + "83020308" + "b9040071" + "c00f00013000" + "a7290006" + "83020308"
    cpu = bench.run(code, {0x12000: block}).cpus[0]
    assert (cpu.gr(6), cpu.gr(7), cpu.gr(1)) == (0x0102, 0x0001, 0x0001)
    assert bench.memory.read(0x13000, 16) == block


def test_an_instruction_that_is_not_interpreted_is_named(bench: Bench) -> None:
    with pytest.raises(EngineError, match=r'b98e1012 at 0x10000 .*`engine="qemu"`|b23a0000'):
        bench.run("b23a0000")


def test_a_program_check_handler_that_interrupts_itself_stops_the_machine(bench: Bench) -> None:
    machine = bench.load("0000", {0x1D0: psw(PLAIN_MASK, CODE)})
    while machine.run_slice():
        pass
    assert machine.stop is not None
    assert machine.stop.kind is StopKind.PANIC
    assert machine.stop.detail == "program-interruption loop"


def test_a_disabled_wait_at_fff_is_a_power_off(bench: Bench) -> None:
    machine = bench.load("b2b20860", {0x860: psw(WAIT_MASK, 0xFFF)})
    while machine.run_slice():
        pass
    assert machine.stop is not None
    assert machine.stop.kind is StopKind.POWEROFF
