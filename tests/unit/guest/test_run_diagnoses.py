"""What is said about a whole run at its end fits what was seen of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zseal.engine.interface import Stop, StopKind
from zseal.guest.outcome import Outcome
from zseal.guest.run_diagnoses import RunFacts, diagnose_run

UNAWARE = RunFacts(
    outcome=Outcome.PANIC,
    stop=Stop(StopKind.PANIC),
    ever_protected=True,
    kernel_began=True,
    calls={"QUI": 1},
)


def ids(facts: RunFacts) -> list[str]:
    return [found.id for found in diagnose_run(facts)]


def test_a_kernel_that_shared_nothing_is_unaware() -> None:
    assert ids(UNAWARE) == ["kernel-unaware"]
    assert ids(replace(UNAWARE, outcome=Outcome.POWEROFF)) == ["kernel-unaware"]
    assert ids(replace(UNAWARE, calls={"QUI": 1, "SET_SHARED_ACCESS": 5})) == []
    assert ids(replace(UNAWARE, known={"missed-call"})) == []


def test_a_kernel_that_never_left_its_decompressor_is_not_judged() -> None:
    assert ids(replace(UNAWARE, kernel_began=False)) == []


def test_what_never_was_protected_is_told_first() -> None:
    assert ids(replace(UNAWARE, ever_protected=False, kernel_began=False)) == ["never-protected"]


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.LOST, Outcome.STOPPED, Outcome.REFUSED])
def test_a_guest_that_may_not_have_come_far_is_not_judged(outcome: Outcome) -> None:
    assert ids(replace(UNAWARE, outcome=outcome)) == []
