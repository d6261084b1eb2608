"""Values that building, reading and verifying an image share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from zseal.formats.image_layout import ComponentKind, classify_prefix
from zseal.formats.ipib import IpibComponent

Progress = Callable[[int, int | None], None]
"""Called with the bytes done so far and the bytes to do, None if that is not known."""


@dataclasses.dataclass(frozen=True)
class Component:
    """A component of an image: ``address`` and ``size`` (whole pages, bytes) as the IPL parameter block lists them."""

    kind: ComponentKind | None
    """Its kind; None if its tweak prefix follows the numbering of neither pvimg nor genprotimg."""
    tweak_prefix: int
    address: int
    size: int
    original_size: int | None = None
    """Bytes before padding; None if that is not known."""

    @classmethod
    def from_ipib(cls, listed: IpibComponent) -> Component:
        """Return the component that an entry of the IPL parameter block describes."""
        known = classify_prefix(listed.tweak_prefix)
        return cls(known[0] if known else None, listed.tweak_prefix, listed.address, listed.size)

    def to_ipib(self) -> IpibComponent:
        """Return the entry for the IPL parameter block."""
        return IpibComponent(tweak_prefix=self.tweak_prefix, address=self.address, size=self.size)

    @property
    def name(self) -> str:
        """The name of its kind, for people."""
        return self.kind.value if self.kind else "component"
