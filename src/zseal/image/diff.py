"""Compares two images: what both show without keys and, with keys, their contents."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.header import open_header
from zseal.crypto.keyexchange import MachineKeys
from zseal.crypto.xts import XtsPages
from zseal.errors import VerificationError
from zseal.formats.se_header import PlainFlags, SecretArea, SeHeader
from zseal.image.describe import PLAIN_FLAG_NAMES, SECRET_FLAG_NAMES, flag_lines
from zseal.image.locate import read_at
from zseal.image.model import Component
from zseal.image.pages import component_sizes, process_pages
from zseal.image.pipeline import CHUNK
from zseal.image.read import Image, open_image
from zseal.image.source import Source
from zseal.secret import Secret
from zseal.ultravisor.image.acceptance import accept_header
from zseal.ultravisor.refusal import UvcRefusal

Opener = Callable[[SeHeader], SecretArea]
"""Opens a header with a key; raises VerificationError or UvcRefusal if it is the wrong key."""

ABSENT = "absent"


def machine_opener(keys: MachineKeys) -> Opener:
    """Return an opener for headers with the host keys of a machine."""

    def opener(header: SeHeader) -> SecretArea:
        accepted = accept_header(header.pack(), keys)
        return SecretArea(
            cck=accepted.cck,
            image_key=accepted.image_key,
            psw_mask=accepted.psw.mask,
            psw_address=accepted.psw.address,
            scf=accepted.scf,
        )

    return opener


def key_opener(header_key: Secret) -> Opener:
    """Return an opener for headers with a header key."""
    return lambda header: open_header(header, header_key)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference: ``what`` it is, and its value in the first and in the second image. No key is shown."""

    what: str
    first: str
    second: str
    every_build: bool = False
    """Whether this is random or depends on something random, so that it differs between any two builds."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The differences of two images."""

    differences: tuple[Difference, ...]
    opened: tuple[bool, bool]
    """Whether a key opened the first and the second image; contents are compared only if both are open."""

    @property
    def rebuilt(self) -> bool:
        """Whether both are known to be made of the same inputs: only values that every build generates differ."""
        return all(self.opened) and all(difference.every_build for difference in self.differences)

    def json(self) -> dict[str, object]:
        """Return the comparison for ``json.dumps``."""
        return {
            "same": not self.differences,
            "rebuilt": self.rebuilt,
            "opened": list(self.opened),
            "differences": [dataclasses.asdict(difference) for difference in self.differences],
        }


def compare_images(
    first: Source | BinaryIO, second: Source | BinaryIO, *, openers: Sequence[Opener] = ()
) -> Comparison:
    """Compare two images or SE headers. Each of ``openers`` is tried on both headers.

    Without keys, flags, key slots, places and stored bytes are compared; with keys also the decrypted kernel, ramdisk
    and command line, and whether keys are the same. Raises FormatError or InputError if one is not an image.
    """
    with open_image(first) as (a, stream_a), open_image(second) as (b, stream_b):
        sides = (_Side.open(a, stream_a, openers), _Side.open(b, stream_b, openers))
        found = itertools.chain(
            _header_differences(a.header, b.header),
            _area_differences(sides[0].area, sides[1].area),
            _loader_differences(*sides),
            _component_differences(*sides),
        )
        return Comparison(tuple(found), (sides[0].area is not None, sides[1].area is not None))


@dataclasses.dataclass(frozen=True)
class _Side:
    image: Image
    stream: BinaryIO
    area: SecretArea | None
    components: tuple[Component, ...]

    @classmethod
    def open(cls, image: Image, stream: BinaryIO, openers: Sequence[Opener]) -> _Side:
        area = next((area for area in (_opened(image, opener) for opener in openers) if area), None)
        parts = image.components
        if area and not image.missing_bytes():
            parts = component_sizes(image, stream, area.psw_address, _xts(image, area))
        return cls(image, stream, area, parts)

    @property
    def readable(self) -> bool:
        return self.image.ipib is not None and not self.image.missing_bytes()

    def content_digest(self, part: Component) -> str:
        """Return the digest of a component's decrypted content."""
        assert self.area is not None  # noqa: S101  called only if both sides are open
        sink = _DigestSink()
        xts = _xts(self.image, self.area)
        process_pages(self.image, self.stream, [part], xts=xts, outputs={part.address: sink})
        return sink.digest.hexdigest()


class _DigestSink:
    """An output that keeps only a digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha512()

    def write(self, data: memoryview, /) -> int:
        self.digest.update(data)
        return len(data)


def _opened(image: Image, opener: Opener) -> SecretArea | None:
    try:
        return opener(image.header)
    except (VerificationError, UvcRefusal):
        return None


def _xts(image: Image, area: SecretArea) -> XtsPages | None:
    return None if PlainFlags.NO_COMPONENT_ENCRYPTION in image.header.pcf else XtsPages(area.image_key)


def _pairs(*pairs: tuple[str, object, object], every_build: bool = False) -> Iterator[Difference]:
    for what, first, second in pairs:
        if first != second:
            yield Difference(what, str(first), str(second), every_build)


def _header_differences(a: SeHeader, b: SeHeader) -> Iterator[Difference]:
    yield from _pairs(
        ("header version", f"{a.version:#x}", f"{b.version:#x}"),
        (
            "plaintext control flags",
            "; ".join(flag_lines(a.pcf, PLAIN_FLAG_NAMES)) or "none",
            "; ".join(flag_lines(b.pcf, PLAIN_FLAG_NAMES)) or "none",
        ),
        ("component pages", a.fixed.nep, b.fixed.nep),
    )
    hashes_a, hashes_b = ([slot.phkh.hex() for slot in header.slots] for header in (a, b))
    for phkh in dict.fromkeys(hashes_a + hashes_b):
        place_a, place_b = (
            f"key slot {hashes.index(phkh)}" if phkh in hashes else ABSENT for hashes in (hashes_a, hashes_b)
        )
        yield from _pairs((f"host key {phkh[:16]}…", place_a, place_b))
    yield from _pairs(("address list digest", _short(a.fixed.ald), _short(b.fixed.ald)))
    yield from _pairs(
        ("customer public key", _short(a.fixed.customer_key), _short(b.fixed.customer_key)),
        ("header IV", _short(a.fixed.iv), _short(b.fixed.iv)),
        ("page list digest", _short(a.fixed.pld), _short(b.fixed.pld)),
        ("tweak list digest", _short(a.fixed.tld), _short(b.fixed.tld)),
        ("header tag", _short(a.tag), _short(b.tag)),
        every_build=True,
    )


def _short(data: bytes) -> str:
    text = data.lstrip(b"\0").hex()
    return f"{text[:16]}…" if len(text) > 16 else text


def _area_differences(a: SecretArea | None, b: SecretArea | None) -> Iterator[Difference]:
    if a is None or b is None:
        return
    for what, key_a, key_b in (
        ("customer communication key", a.cck, b.cck),
        ("image key", a.image_key, b.image_key),
    ):
        if key_a != key_b:
            yield Difference(what, "one key", "another key", every_build=True)
    yield from _pairs(
        (
            "secret control flags",
            "; ".join(flag_lines(a.scf, SECRET_FLAG_NAMES)) or "none",
            "; ".join(flag_lines(b.scf, SECRET_FLAG_NAMES)) or "none",
        ),
        ("start PSW", f"{a.psw_mask:016x} {a.psw_address:016x}", f"{b.psw_mask:016x} {b.psw_address:016x}"),
    )


def _loader_differences(a: _Side, b: _Side) -> Iterator[Difference]:
    if a.image.ipib is None or b.image.ipib is None:
        yield from _pairs(
            ("component list", "present" if a.image.ipib else ABSENT, "present" if b.image.ipib else ABSENT)
        )
        return
    yield from _pairs(
        (
            "layout",
            a.image.dialect.value if a.image.dialect else "unknown",
            b.image.dialect.value if b.image.dialect else "unknown",
        ),
        ("header address", f"{_address(a):#x}", f"{_address(b):#x}"),
        ("bootloader stage3a", str(a.image.stage3a or "not found"), str(b.image.stage3a or "not found")),
    )


def _address(side: _Side) -> int:
    return side.image.header_offset - side.image.base


def _component_differences(a: _Side, b: _Side) -> Iterator[Difference]:
    if a.image.ipib is None or b.image.ipib is None:
        return
    named_a, named_b = _named(a.components), _named(b.components)
    for name in dict.fromkeys([*named_a, *named_b]):
        part_a, part_b = named_a.get(name), named_b.get(name)
        if part_a is None or part_b is None:
            yield Difference(name, "present" if part_a else ABSENT, "present" if part_b else ABSENT)
            continue
        yield from _pairs(
            (f"{name}: address", f"{part_a.address:#x}", f"{part_b.address:#x}"),
            (f"{name}: size", _size(part_a), _size(part_b)),
        )
        yield from _content_differences(name, a, part_a, b, part_b)


def _named(parts: Sequence[Component]) -> dict[str, Component]:
    return {part.name if part.kind else f"component {number}": part for number, part in enumerate(parts, 1)}


def _size(part: Component) -> str:
    if part.original_size is None:
        return f"{part.size} bytes padded"
    return f"{part.original_size} bytes"


def _content_differences(name: str, a: _Side, part_a: Component, b: _Side, part_b: Component) -> Iterator[Difference]:
    if not a.readable or not b.readable:
        return
    if a.area and b.area:
        digests = a.content_digest(part_a), b.content_digest(part_b)
        if digests[0] != digests[1]:
            yield Difference(f"{name}: content", f"SHA-512 {digests[0][:16]}…", f"SHA-512 {digests[1][:16]}…")
    elif part_a.size == part_b.size and (pages := _different_pages(a, part_a, b, part_b)):
        text = f"{pages} of {part_a.size // PAGE_SIZE} pages differ"
        yield Difference(f"{name}: stored bytes", text, text)


def _different_pages(a: _Side, part_a: Component, b: _Side, part_b: Component) -> int:
    different = 0
    for offset in range(0, part_a.size, CHUNK):
        size = min(CHUNK, part_a.size - offset)
        pages = [
            np.frombuffer(read_at(side.stream, side.image.base + part.address + offset, size), np.uint64)
            for side, part in ((a, part_a), (b, part_b))
        ]
        different += int((pages[0] != pages[1]).reshape(-1, PAGE_SIZE // 8).any(axis=1).sum())
    return different
