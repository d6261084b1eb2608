"""Start a domain as a protected guest on this computer, through real libvirt."""

from __future__ import annotations

from zseal.domain.launch.guest import DomainGuest
from zseal.domain.launch.translate import Translated, translate

__all__ = ["DomainGuest", "Translated", "translate"]
