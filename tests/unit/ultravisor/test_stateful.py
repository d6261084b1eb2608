"""Random calls of a hostile host and several guests, checked against a simple reference model after every step.

One machine is driven by hypothesis, which shrinks what fails; another by 100,000 seeded steps, as many as hypothesis
would take minutes for.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.unit.ultravisor.reference import Machine

STEPS = 100_000
LIFE = 400
"""Steps before a machine is replaced by a fresh one."""

NUMBERS = st.integers(0, 10_000)


class HypothesisMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.machine = Machine()

    @rule(action=st.integers(0, 255), first=NUMBERS, second=NUMBERS, data=st.binary(min_size=1, max_size=8))
    def step(self, action: int, first: int, second: int, data: bytes) -> None:
        self.machine.step(action, first, second, data)

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.machine.close()


HypothesisMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHypothesisMachine = HypothesisMachine.TestCase


@pytest.mark.parametrize("share", range(4))
def test_promise_98_a_hundred_thousand_random_steps(share: int) -> None:
    """A quarter each; what fails says its seed and step."""
    done = 0
    for life in range(STEPS // 4 // LIFE + 1):
        seed = share * 1_000_000 + life
        source, machine = random.Random(seed), Machine()
        for number in range(LIFE):
            arguments = (
                source.randrange(256),
                source.randrange(10_000),
                source.randrange(10_000),
                source.randbytes(source.randint(1, 8)),
            )
            try:
                machine.step(*arguments)
            except Exception as error:
                raise AssertionError(f"seed {seed}, step {number}, {arguments}: {error!r}") from error
            done += 1
        machine.close()
    assert done >= STEPS // 4
