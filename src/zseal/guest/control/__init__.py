"""Control of running guests from other processes: a socket for each guest, its protocol, server and client.

``GuestControl`` is the client, ``list_guests`` finds the guests of this user; a guest listens where it is given a name.
"""

from __future__ import annotations

from zseal.guest.control.client import GuestControl, list_guests
from zseal.guest.control.protocol import ControlError

__all__ = ["ControlError", "GuestControl", "list_guests"]
