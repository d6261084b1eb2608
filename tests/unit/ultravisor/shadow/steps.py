"""One random step of a world, chosen by a random source so that its seed tells which."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.unit.ultravisor.shadow import configurations, pages
from tests.unit.ultravisor.shadow.model import Guest, Phase
from tests.unit.ultravisor.shadow.world import World

ON_MACHINE: tuple[tuple[Callable[[World, random.Random], None], int], ...] = (
    (configurations.create, 4), (configurations.reset_machine, 1), *pages.ON_FRAMES,
)  # fmt: skip
ON_GUESTS: tuple[tuple[Callable[[World, Guest, random.Random], None], int], ...] = (
    (configurations.create_cpu, 3), (configurations.destroy_cpu, 1), (configurations.destroy, 1),
    (configurations.set_parameters, 4), (configurations.verify, 5), (configurations.set_state, 5),
    (configurations.reset_cpu, 1), (configurations.enter, 3), (configurations.leave, 3),
    (configurations.request_reset, 1), (configurations.unshare_all, 2), (configurations.prepare_reset, 2),
    *pages.ON_GUESTS,
)  # fmt: skip
_MACHINE = [action for action, weight in ON_MACHINE for _ in range(weight)]
_GUESTS = [action for action, weight in ON_GUESTS for _ in range(weight)]
_USEFUL: dict[Phase, tuple[Callable[[World, Guest, random.Random], None], ...]] = {
    Phase.CREATED: (configurations.create_cpu, configurations.set_parameters),
    Phase.PARAMETERS: (pages.load, pages.unpack),
    Phase.UNPACKING: (configurations.verify,),
    Phase.BROKEN: (configurations.destroy,),
    Phase.SECURE: (pages.bring_in, pages.share, pages.guest_access),
    Phase.RESETTING: (configurations.stop, configurations.unshare_all, configurations.prepare_reset),
}
"""What brings a guest further, so that most are running most of the time."""


def step(world: World, source: random.Random) -> str:
    """Do one thing and check everything; returns its name."""
    guests = list(world.model.guests.values())
    choice = source.randrange(len(_MACHINE) + 2 * len(_GUESTS))
    if choice < len(_MACHINE) or not guests:
        action = _MACHINE[choice % len(_MACHINE)] if guests else configurations.create
        action(world, source)
        name = action.__name__
    else:
        guest = source.choice(guests)
        on_guest = _GUESTS[choice % len(_GUESTS)]
        if source.random() < 0.3:
            on_guest = source.choice(_USEFUL[guest.phase])
        on_guest(world, guest, source)
        name = on_guest.__name__
    world.check()
    return name
