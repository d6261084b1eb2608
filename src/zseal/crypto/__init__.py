"""The few cryptographic constructions that the formats share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.crypto.digests import DigestValues, ImageDigests
    from zseal.crypto.keyexchange import MachineKeys, key_hash
    from zseal.crypto.xts import XtsPages

__all__ = [
    "DigestValues",
    "ImageDigests",
    "MachineKeys",
    "XtsPages",
    "key_hash",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        digests=("DigestValues", "ImageDigests"),
        keyexchange=("MachineKeys", "key_hash"),
        xts=("XtsPages",),
    )
