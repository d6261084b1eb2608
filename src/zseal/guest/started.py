"""A guest that whoever made it has started already, for a ``with`` block that is to end it only."""

from __future__ import annotations

from typing import Self

from zseal.guest.guest import Guest


class StartedGuest(Guest):
    """A guest to be started before its ``with`` block is entered; the block ends it."""

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self
