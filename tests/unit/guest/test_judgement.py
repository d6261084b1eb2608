"""How a run is judged: by what went wrong on our side, what its user wanted, and why the machine stopped."""

from __future__ import annotations

import pytest

from zseal.arch.psw import Psw
from zseal.engine.errors import EngineError
from zseal.engine.interface import Stop, StopKind
from zseal.formats.uv_codes import Command
from zseal.guest.judgement import ProtectedStart, judge
from zseal.guest.outcome import Outcome, Result
from zseal.hypervisor.vmm import Refusal, Step

WANTED = Result(Outcome.TIMEOUT, "late")
REFUSAL = Refusal(Step.UNPACK, Command.UNPACK_IMG, 0x0108, 5)


def panic(address: int) -> Stop:
    return Stop(StopKind.PANIC, "disabled-wait", 1, Psw(0x0002000180000000, address))


def start(*, protected: bool = False, refusal: Refusal | None = None, complaint: str = "") -> ProtectedStart:
    return ProtectedStart(protected=protected, refusal=refusal, complaint=complaint)


def test_our_own_failure_comes_before_what_was_wanted_and_that_before_the_stop() -> None:
    stop = Stop(StopKind.POWEROFF)
    assert judge(stop, failure=EngineError("no gdb"), wanted=WANTED).message.endswith("the guest: no gdb")
    assert judge(stop, failure=OSError(5, "EIO"), wanted=WANTED).outcome is Outcome.FAILED
    assert judge(stop, wanted=WANTED) is WANTED
    assert judge(stop) == Result(Outcome.POWEROFF, "the guest powered off")


@pytest.mark.parametrize("kind", [kind for kind in StopKind if kind is not StopKind.POWEROFF])
def test_what_was_no_power_off_never_counts_as_one(kind: StopKind) -> None:
    assert judge(Stop(kind)).exit_code != 0


def test_the_stop_explains_itself() -> None:
    assert judge(Stop(StopKind.LOST, "QEMU ended")).message == "the guest is lost: QEMU ended"


def test_a_panic_names_its_cpu_and_psw() -> None:
    for before in (None, start(protected=True, refusal=REFUSAL)):
        result = judge(panic(0x4711), start=before)
        assert (result.outcome, result.cpu) == (Outcome.PANIC, 1)
        assert result.message == "the guest stopped for good: disabled wait at 0x4711"
        assert result.psw == Psw(0x0002000180000000, 0x4711)


def test_a_bootloader_that_stops_after_a_refusal_was_refused() -> None:
    result = judge(panic(0x4711), start=start(refusal=REFUSAL))
    assert (result.outcome, result.refusal, result.message) == (Outcome.REFUSED, REFUSAL, REFUSAL.message)


@pytest.mark.parametrize(
    ("address", "outcome"),
    [(0x4500, Outcome.REFUSED), (0x46FF, Outcome.REFUSED), (0x44FF, Outcome.PANIC), (0x4700, Outcome.PANIC)],
)
def test_a_bootloaders_own_wait_is_a_refusal_before_protection_only(address: int, outcome: Outcome) -> None:
    result = judge(panic(address), start=start(complaint="no such header"))
    assert result.outcome is outcome
    assert result.message.endswith(": no such header") is (outcome is Outcome.REFUSED)
    assert judge(panic(address)).outcome is judge(panic(address), start=start(protected=True)).outcome is Outcome.PANIC
