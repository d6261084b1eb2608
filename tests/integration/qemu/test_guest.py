"""The life of a protected guest on QEMU, told by the bare-metal test guest."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.engine.interface import Milestone
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.process import find_program
from zseal.errors import FormatError, InputError, MissingDependencyError, ZsealError
from zseal.guest.events import ConsoleOutput, Ended, Protected, Reached, Reset, Started
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result
from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

Seal = Callable[..., Path]
Start = Callable[..., Guest]
MARKER = "host-must-not-see-this"


def lines_of(guest: Guest) -> list[str]:
    with guest:
        output = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput))
    return [line.removeprefix("zseal-test-guest: ") for line in output.decode().splitlines()]


def result_of(guest: Guest) -> Result:
    result = guest.wait()
    assert result is not None
    return result


def qemu_pid(guest: Guest) -> int:
    engine = guest.engine
    assert isinstance(engine, QemuEngine)
    return engine.pid


def test_a_run_tells_its_events_in_order(start: Start) -> None:
    with start("hello query") as guest:
        events = list(guest.events())
    assert [type(event) for event in events if not isinstance(event, ConsoleOutput)] == [
        Started,
        Reached,
        Protected,
        Reached,
        Ended,
    ]
    assert [event.milestone for event in events if isinstance(event, Reached)] == [
        Milestone.IMAGE_ENTRY,
        Milestone.KERNEL_ENTRY,
    ]
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)


def test_a_qemu_that_takes_no_plugin_is_told_of_once(start: Start, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(
        '#!/bin/sh\ncase "$*" in *" -plugin "*) echo "Could not load plugin: another version" >&2; exit 1;; esac\n'
        f'exec {find_program()} "$@"\n'
    )
    qemu.chmod(0o755)
    with start("hello share=3 query", qemu=str(qemu)) as guest:
        assert result_of(guest).outcome is Outcome.POWEROFF
        (notice,) = guest.notices
        report = guest.report
    assert "does not take zseal's plugin" in notice
    assert "another version" in notice
    assert isinstance(report["engine"], dict)
    assert report["engine"]["calls_by"] == "breakpoints"


def test_the_usual_guest_has_nothing_to_tell_of_its_execution(start: Start) -> None:
    with start("hello") as guest:
        assert result_of(guest).outcome is Outcome.POWEROFF
        assert list(guest.notices) == []


def test_a_report_counts_calls_and_pages(start: Start) -> None:
    with start("query share=5 unshare=2") as guest:
        assert result_of(guest).outcome is Outcome.POWEROFF
        report = guest.report
    ultravisor = report["ultravisor"]
    assert isinstance(ultravisor, dict)
    calls, pages = ultravisor["calls"], ultravisor["pages"]
    assert isinstance(calls, dict)
    assert isinstance(pages, dict)
    assert (calls["QUI"], calls["SET_SHARED_ACCESS"], calls["REMOVE_SHARED_ACCESS"]) == (1, 5, 2)
    assert (calls["INIT_UV"], calls["CREATE_SEC_CONF"], calls["VERIFY_IMG"]) == (1, 1, 1)
    unpacked = calls["UNPACK_IMG"]
    assert isinstance(unpacked, int)
    assert unpacked > 20  # one a page of the image
    assert pages["shared"] == 3
    assert pages["private"] == 64 * MIB // 4096 - 3
    assert report["result"] == {
        "outcome": "poweroff",
        "exit_code": 0,
        "message": "the guest powered off",
        "cpu": None,
        "psw": None,
        "refusal": None,
    }


@pytest.mark.parametrize("dat", ["off", "primary", "home"])
def test_ultravisor_calls_are_answered_as_on_hardware(start: Start, dat: str) -> None:
    words = "hello" if dat == "off" else f"dat={dat}"
    lines = lines_of(start(f"{words} uvc=4242,8 uvc=1000,28 problem problem=4242 mfields misaligned readonly query"))
    assert lines[1:-1] == [
        "uvc 4242 cc=1 rc=0002 rrc=0000",
        "uvc 1000 cc=1 rc=0005 rrc=0000",
        "problem state program=0002",
        "problem state program=0002",
        "M3 not zero program=0006",
        "M4 not zero program=0006",
        *["misaligned program=0006"] * 3,
        "read-only program=0004",
    ]
    assert lines[-1].startswith("query cc=0 rc=0001")


def test_a_control_block_that_ends_outside_storage_is_an_addressing_exception(start: Start) -> None:
    assert lines_of(start("crossing")) == [
        "crossing the end of storage program=0005",
        "beyond the end of storage program=0005",
    ]
    assert lines_of(start("dat=home crossing"))[1] == "crossing the end of storage program=0010"


def test_a_second_cpu_finds_its_control_block_through_its_own_prefix(start: Start) -> None:
    assert lines_of(start("cpu query", cpus=2))[0] == "cpu 1 prefix=0x6000 query cc=0 rc=0001 rrc=0000"
    assert lines_of(start("cpu"))[0] == "cpu 1 did not start"


def test_a_protected_guest_may_use_few_functions_of_diagnose_308(start: Start) -> None:
    guest = start("diag=2 diag=4 diag=7 diag=8 diag=9 diag=a diag=4 diag=6")
    lines = lines_of(guest)
    assert lines == [
        *[f"diag 308 subcode {code} program=0006" for code in "24789a4"],
        "diag 308 subcode 6 response=0102",
    ]
    assert [(found.id, found.count) for found in guest.diagnoses] == [
        ("diag308-refused", count) for count in (2, 1, 1, 1, 1)
    ]
    assert "subcode 4" in guest.diagnoses[0].message
    listed = guest.report["diagnoses"]
    assert isinstance(listed, list)
    assert len(listed) == 5


@pytest.mark.parametrize("subcode", [0, 1])
def test_a_guest_that_resets_itself_stays_protected_and_shares_nothing(start: Start, subcode: int) -> None:
    with start(f"share=3 diag={subcode} query share=1") as guest:
        text = guest.wait_for_output("intact=1\r\n")
        assert result_of(guest).outcome is Outcome.POWEROFF
        report = guest.report
    assert f"diag 308 subcode {subcode} came back through the PSW at 0" in text
    ultravisor = report["ultravisor"]
    assert isinstance(ultravisor, dict)
    pages, calls = ultravisor["pages"], ultravisor["calls"]
    assert isinstance(pages, dict)
    assert isinstance(calls, dict)
    assert pages["shared"] == 1
    assert (calls["SET_UNSHARE_ALL"], calls["PREPARE_RESET"], calls["CREATE_SEC_CONF"]) == (1, 1, 1)


def test_memory_from_before_is_not_there_any_more(start: Start) -> None:
    # the image brings its metadata to 0xc000
    assert lines_of(start("zero=c000,1000 zero=800000,1000")) == [
        "zero address=0xc000 size=0x1000 yes",
        "zero address=0x800000 size=0x1000 yes",
    ]


def test_the_host_sees_only_what_is_shared(start: Start, tmp_path: Path) -> None:
    with start(f"marker={MARKER} hello wait") as guest:
        guest.wait_for_output("waiting")
        guest.pause()
        assert guest.host.find(MARKER.encode()) is None
        private = guest.host.read_memory(0x100000, 4096)
        assert guest.host.read_memory(0x100000, 4096) != private  # a fresh ciphertext each time
        assert guest.host.dump(tmp_path / "dump") == 64 * MIB
        guest.stop()
    dump = (tmp_path / "dump").read_bytes()
    assert len(dump) == 64 * MIB
    assert MARKER.encode() not in dump


def test_the_host_sees_a_marker_once_it_is_shared(start: Start) -> None:
    with start(f"marker={MARKER} share-at=0x100000 wait") as guest:
        guest.wait_for_output("waiting")
        assert guest.host.find(MARKER.encode()) == 0x100000
        assert guest.host.read_memory(0x100000, len(MARKER)) == MARKER.encode()
        with pytest.raises(InputError, match="not in the guest's memory"):
            guest.host.read_memory(64 * MIB - 1, 2)
        for pattern in (b"", bytes(4097)):
            with pytest.raises(InputError, match="1 to 4096 bytes"):
                guest.host.find(pattern)


def test_a_panic_is_told_with_its_psw(start: Start) -> None:
    with start("panic=beef") as guest:
        result = result_of(guest)
    assert result.outcome is Outcome.PANIC
    assert result.psw is not None
    assert result.psw.address == 0xBEEF
    assert "0xbeef" in result.message


def test_a_reboot_starts_protected_again_and_leaks_nothing(start: Start) -> None:
    boots = 0
    descriptors, storage = set(), set()
    with start("share=2 reboot") as guest:
        for event in guest.events():
            if isinstance(event, Protected):
                boots += 1
                descriptors.add(sum(1 for _ in Path("/proc/self/fd").iterdir()))
                assert guest.vmm is not None
                # by now it may have been reset, but as the guest's thread sees it none is half made
                snapshot = guest.in_loop(guest.vmm.ultravisor.snapshot)
                assert len(snapshot.configurations) <= 1
                if snapshot.configurations:
                    storage.add(snapshot.donated_bytes)
            if boots == 50:
                guest.stop()
                break
        report_boots = guest.report["boots"]
    assert isinstance(report_boots, int)
    assert report_boots >= 50  # it may have begun the next one when it was stopped
    assert len(descriptors) == 1
    assert len(storage) == 1
    resets = sum(isinstance(event, Reset) for event in guest.events())
    assert resets in (report_boots - 1, report_boots)  # a reset comes before the boot that it leads to


def test_an_image_for_another_machine_is_refused(seal: Seal, machine: Machine, tmp_path: Path) -> None:
    other = Machine.create(tmp_path / "other")
    with Guest(seal("hello", owner=other), machine=machine, memory=64 * MIB, timeout=PATIENCE) as guest:
        result = result_of(guest)
    assert result.outcome is Outcome.REFUSED
    assert result.refusal is not None
    assert (result.refusal.rc, result.refusal.rrc) == (0x108, 5)
    assert result.refusal.packed == 0x0002_0005_0108_0A02


def test_nothing_decrypted_remains_after_a_refusal(seal: Seal, machine: Machine) -> None:
    image = seal(f"hello {MARKER}")
    data = bytearray(image.read_bytes())
    data[0x16000] ^= 1
    image.write_bytes(data)
    with Guest(image, machine=machine, memory=64 * MIB, timeout=PATIENCE) as guest:
        result = result_of(guest)
        assert guest.host.find(MARKER.encode()) is None
    assert result.outcome is Outcome.REFUSED
    assert result.refusal is not None
    assert (result.refusal.rc, result.refusal.rrc) == (0x102, 0x1B)


def test_a_guest_that_does_not_end_in_time_is_ended(start: Start) -> None:
    with start("loop", timeout=1.5) as guest:
        result = result_of(guest)
    assert result.outcome is Outcome.TIMEOUT


def test_a_qemu_with_much_to_say_does_not_wait_for_a_reader(start: Start) -> None:
    with start("hello", qemu_arguments=["-d", "in_asm,op"]) as guest:  # some MiB on its stderr
        assert result_of(guest).outcome is Outcome.POWEROFF


def test_a_killed_qemu_is_noticed(start: Start) -> None:
    with start("wait") as guest:
        guest.wait_for_output("waiting")
        os.kill(qemu_pid(guest), signal.SIGKILL)
        result = result_of(guest)
        assert result.outcome is Outcome.LOST
        assert "signal 9" in result.message
        assert guest.host.read_memory(0, 4096)  # the memory is ours, not QEMU's


def ticks(guest: Guest) -> int:
    return b"".join(event.data for event in guest.events(0.0) if isinstance(event, ConsoleOutput)).count(b"tick")


def test_a_paused_guest_stands_still(start: Start) -> None:
    with start(" nap=100 say=tick" * 20) as guest:
        guest.wait_for_output("tick")
        guest.pause()
        guest.pause()
        before = ticks(guest)
        time.sleep(1)
        assert ticks(guest) == before < 20
        guest.resume()
        guest.resume()
        assert result_of(guest).outcome is Outcome.POWEROFF
        assert ticks(guest) == 20


def test_a_guest_can_be_left_at_any_time(start: Start) -> None:
    for cycle in range(100):
        with start("share=100 unshare=100 loop") as guest:
            time.sleep(cycle * 0.004)
        assert guest.result is not None
        assert guest.result.outcome is Outcome.STOPPED


def test_several_guests_run_at_once(seal: Seal, machine: Machine) -> None:
    image = seal("share=20 unshare=20 hello")
    guests = [Guest(image, machine=machine, memory=64 * MIB, timeout=PATIENCE) for _ in range(8)]
    for guest in guests:
        guest.start()
    results = [result_of(guest) for guest in guests]
    for guest in guests:
        guest.close()
    assert {result.outcome for result in results} == {Outcome.POWEROFF}


def test_a_program_with_an_event_loop_can_await_events(start: Start) -> None:
    async def run() -> list[str]:
        async with start("hello") as guest:
            return [type(event).__name__ async for event in guest.events_async()]

    assert asyncio.run(run())[-1] == "Ended"


def test_a_text_that_never_comes_is_an_error(start: Start) -> None:
    with start("hello") as guest, pytest.raises(EngineError, match="ended before"):
        guest.wait_for_output("goodbye")
    with start("loop") as guest, pytest.raises(EngineError, match=r"within 0\.2 s"):
        guest.wait_for_output("goodbye", 0.2)


def test_what_can_not_be_run_is_refused_before_the_start(
    seal: Seal, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = seal("hello")
    empty, foreign, cut = tmp_path / "empty", tmp_path / "foreign", tmp_path / "cut"
    empty.touch()
    foreign.write_bytes(b"\x7fELF" + bytes(10000))
    cut.write_bytes(image.read_bytes()[:0x18000])
    for path in (empty, foreign, cut, tmp_path / "missing", tmp_path):
        with pytest.raises((FormatError, InputError)) as caught:
            Guest(path, machine=machine)
        assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="too small"):
        Guest(image, machine=machine, memory=0)
    with pytest.raises(ZsealError, match="248 CPUs"):
        Guest(image, machine=machine, cpus=1000)
    with pytest.raises(MissingDependencyError, match="no-such-qemu"):
        Guest(image, machine=machine, qemu="no-such-qemu").start()
    with pytest.raises(EngineError, match="invalid option"):
        Guest(image, machine=machine, qemu_arguments=["-bogus"]).start()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError):
        Guest(image, machine=machine).start()


def test_calls_are_answered_alike_without_run_ahead(start: Start) -> None:
    quick, slow = start("share=40 unshare=40"), start("share=40 unshare=40", run_ahead=False)
    assert lines_of(quick) == lines_of(slow)
    assert engine_count(slow, "calls_without_stop") == 0
    assert engine_count(quick, "stops") + engine_count(quick, "calls_without_stop") >= 80


def test_guest_memory_has_large_pages_wherever_memory_can_have_them(start: Start) -> None:
    guest = start("share=1")
    lines_of(guest)
    memory = SharedMemory(MIB, large_pages=True)
    assert engine_count(guest, "large_pages") == memory.large_pages
    memory.close()


def engine_count(guest: Guest, key: str) -> int:
    engine = guest.report["engine"]
    assert isinstance(engine, dict)
    value = engine[key]
    assert isinstance(value, int)
    return value
