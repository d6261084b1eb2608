"""Random calls of a hostile host and several guests, checked against a simple model after every call.

The model reaches every state that a frame can have before every call that is given one. One world is driven by
hypothesis, which shrinks what fails; others by 100,000 seeded steps, as many as hypothesis would take minutes for.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.unit.ultravisor.shadow.life import LIFE, live
from tests.unit.ultravisor.shadow.steps import step
from tests.unit.ultravisor.shadow.world import LARGE, SMALL, World

STEPS, SHARES = 100_000, 2

DONATING = ("create: base", "create: variable", "create CPU: storage")
TAKING = ("import unused", "import exported", "import shared out", "share unused", "adopt")
GIVING = ("export", "destroy", "pin", "host write")
ANY = {"ordinary", "donated", "secure, owner gone", "shared, owner gone"}
OTHERS = {"secure by another", "shared by another", "pinned by another"}
SIBLINGS = {"secure, another page", "shared, another page"}
TO_MEET = {
    *((call, found) for call in TAKING for found in (*ANY, *OTHERS, *SIBLINGS, "unmapped")),
    *(("unpack", found) for found in (*ANY, *OTHERS, "secure, another page", "secure, the page itself", "unmapped")),
    *((call, found) for call in GIVING for found in (*ANY, "secure", "shared", "pinned")),
    *((call, found) for call in DONATING[:2] for found in (*ANY, "secure", "shared", "pinned")),
    *((DONATING[2], found) for found in (*ANY, *OTHERS, *SIBLINGS)),
}
"""Calls that are given a frame, each with everything that the frame can be then."""


class HypothesisMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World()

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed: int) -> None:
        step(self.world, random.Random(seed))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()


HypothesisMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHypothesisMachine = HypothesisMachine.TestCase


@pytest.mark.parametrize("share", range(SHARES))
def test_promise_98_a_hundred_thousand_random_steps(share: int) -> None:
    """A half each; every call finds every frame that it can be given."""
    met: set[tuple[str, str]] = set()
    for life in range(STEPS // SHARES // LIFE):
        met |= live(SMALL, share * 1_000_000 + life)
    assert not TO_MEET - met, "the steps do not reach what they are to test"


def test_random_steps_with_1_mib_frames() -> None:
    """The first of those of ``make soak``."""
    met = live(LARGE, 1) | live(LARGE, 2) | live(LARGE, 3)
    assert ("verify large frame", "whole") in met
