"""Many random steps, in worlds that are replaced by fresh ones from time to time; what fails says its seed and step."""

from __future__ import annotations

import random

from tests.unit.ultravisor.shadow.steps import step
from tests.unit.ultravisor.shadow.world import Shape, World

LIFE = 1000
"""Steps before a world is replaced by a fresh one."""


def live(shape: Shape, seed: int, steps: int = LIFE) -> set[tuple[str, str]]:
    """Do ``steps`` steps in one world; return which calls met a frame, and what the frame was then.

    Every fourth world is without the feature by which a frame can be taken over from another guest. Raises
    AssertionError.
    """
    world, source = World(shape, transfers=seed % 4 != 3), random.Random(seed)
    try:
        for number in range(steps):
            try:
                step(world, source)
            except Exception as error:
                raise AssertionError(f"seed {seed}, step {number}: {error!r}") from error
        return world.met
    finally:
        world.close()
