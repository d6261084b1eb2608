"""Control of running guests from other processes: a socket for each guest, its protocol, server and client.

``GuestControl`` is the client, ``list_guests`` finds the guests of this user; a guest listens if it has a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.guest.control.client import GuestControl, list_guests
    from zseal.guest.control.protocol import ControlError

__all__ = [
    "ControlError",
    "GuestControl",
    "list_guests",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        client=("GuestControl", "list_guests"),
        protocol=("ControlError",),
    )
