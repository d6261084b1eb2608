"""libvirt on this computer: its Python bindings, connections, and the capabilities it reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.libvirt.capabilities import (
        CachedEmulator,
        DomainCapabilities,
        parse_cached_emulator,
        parse_domain_capabilities,
    )
    from zseal.libvirt.connection import EMBED, Connection, open_connection

__all__ = [
    "EMBED",
    "CachedEmulator",
    "Connection",
    "DomainCapabilities",
    "open_connection",
    "parse_cached_emulator",
    "parse_domain_capabilities",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        capabilities=("CachedEmulator", "DomainCapabilities", "parse_cached_emulator", "parse_domain_capabilities"),
        connection=("Connection", "EMBED", "open_connection"),
    )
