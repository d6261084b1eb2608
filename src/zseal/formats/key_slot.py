"""A key slot: one header or request protection key, wrapped for one host key (version 1, ECDH over P-521).

SE headers of version 0x100, attestation requests and add-secret requests hold the same slots.
"""

from __future__ import annotations

from zseal.formats.layout import Layout, raw

COORDINATE_SIZE = 80
PUBLIC_KEY_SIZE = 2 * COORDINATE_SIZE
KEY_HASH_SIZE = 32
WRAPPED_KEY_SIZE = 32


class KeySlot(Layout, size=80):
    """One slot, 80 bytes."""

    phkh: bytes = raw(0x00, KEY_HASH_SIZE, "public host-key hash: SHA-256 of X || Y, 80 bytes each")
    wrpk: bytes = raw(0x20, WRAPPED_KEY_SIZE, "wrapped protection key (AES-256-GCM)")
    kst: bytes = raw(0x40, 16, "key slot tag: the GCM tag of wrpk")
