"""``zseal domain run``: start a domain as a protected guest through libvirt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zseal.domain.model import Style


def style_of(name: str) -> Style:
    """The style that the command line calls ``launch-security`` or ``iommu``."""
    from zseal.domain.model import Style

    return Style.IOMMU if name == "iommu" else Style.LAUNCH_SECURITY


def command() -> None:
    """Start a domain as a protected guest."""
    raise NotImplementedError
