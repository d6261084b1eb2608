"""Random calls of a hostile host and of several guests with 1 MiB frames, for as many steps as the argument says.

What they are checked against is tests/unit/ultravisor/shadow. A failure names the seed and the step, which
``live(LARGE, seed)`` repeats.
"""

from __future__ import annotations

import sys
import time

from tests.unit.ultravisor.shadow.life import LIFE, live
from tests.unit.ultravisor.shadow.world import LARGE

_PROGRESS = 50_000


def main(steps: int) -> None:
    """Do at least ``steps`` steps and say every now and then how many are done."""
    start = time.monotonic()
    met: set[tuple[str, str]] = set()
    for done in range(LIFE, steps + LIFE, LIFE):
        met |= live(LARGE, done // LIFE)
        if done % _PROGRESS == 0 or done >= steps:
            print(f"{done} steps, {len(met)} ways to meet a frame, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
