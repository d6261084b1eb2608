"""What names an image in attestations and add-secret requests: three digests and the tag of its SE header."""

from __future__ import annotations

from typing import Self

from zseal.formats.layout import Layout, raw
from zseal.formats.se_header import DIGEST_SIZE, TAG_SIZE, SeHeader


class HeaderTags(Layout, size=0xD0):
    """The boot header tags, 208 bytes."""

    pld: bytes = raw(0x00, DIGEST_SIZE, "page list digest")
    ald: bytes = raw(0x40, DIGEST_SIZE, "address list digest")
    tld: bytes = raw(0x80, DIGEST_SIZE, "tweak list digest")
    seht: bytes = raw(0xC0, TAG_SIZE, "SE header tag: authenticates the whole header")

    @classmethod
    def of(cls, header: SeHeader) -> Self:
        """Return the tags of ``header``."""
        fixed = header.fixed
        return cls(pld=fixed.pld, ald=fixed.ald, tld=fixed.tld, seht=header.tag)
