"""What is said about a whole run at its end fits what was seen of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zseal.arch.interruption import ProgramCode
from zseal.engine.interface import Interrupted, Stop, StopKind
from zseal.guest.outcome import Outcome
from zseal.guest.run_diagnoses import RunFacts, diagnose_run, diagnose_unused

UNAWARE = RunFacts(
    outcome=Outcome.PANIC,
    stop=Stop(StopKind.PANIC),
    ever_protected=True,
    linux=True,
    kernel_began=True,
    calls={"QUI": 1},
)
MISSED = Interrupted(ProgramCode.OPERATION, 0x1234, bytes.fromhex("b9a40012"))


def ids(facts: RunFacts) -> list[str]:
    return [found.id for found in diagnose_run(facts)]


def test_a_kernel_that_shared_nothing_is_unaware() -> None:
    assert ids(UNAWARE) == ["kernel-unaware"]
    assert ids(replace(UNAWARE, outcome=Outcome.POWEROFF)) == ["kernel-unaware"]
    assert ids(replace(UNAWARE, calls={"QUI": 1, "SET_SHARED_ACCESS": 5})) == []
    assert ids(replace(UNAWARE, known={"missed-call"})) == []


def test_a_kernel_that_never_left_its_decompressor_is_not_judged() -> None:
    assert ids(replace(UNAWARE, kernel_began=False)) == []


def test_a_guest_that_is_not_linux_is_not_judged_as_if_it_were() -> None:
    assert ids(replace(UNAWARE, linux=False)) == []


def test_what_never_was_protected_is_told_first() -> None:
    assert ids(replace(UNAWARE, ever_protected=False, kernel_began=False)) == ["never-protected"]
    assert ids(replace(UNAWARE, ever_protected=False, linux=False)) == ["never-protected"]


def test_a_missed_call_is_named_once() -> None:
    facts = replace(UNAWARE, stop=Stop(StopKind.PANIC, interrupted=MISSED))
    assert ids(facts) == ["missed-call"]
    assert ids(replace(facts, known={"missed-call"})) == []


def test_an_unused_device_is_named_unless_it_was_used_before() -> None:
    found = diagnose_unused(["virtio-blk 0.0.0001", "virtio-net 0.0.0002"], used=["virtio-net 0.0.0002"])
    assert [("virtio-blk 0.0.0001" in each.message) for each in found] == [True]


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.LOST, Outcome.STOPPED, Outcome.REFUSED, Outcome.RESET])
def test_a_guest_that_may_not_have_come_far_is_not_judged(outcome: Outcome) -> None:
    assert ids(replace(UNAWARE, outcome=outcome)) == []
