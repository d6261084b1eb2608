"""The files in which pvattest carries attestation requests to the guest and answers back ("exchange format").

Version 0x100, big-endian: a header of 64 bytes with size and offset of five entries, then their data.
"""

from __future__ import annotations

import dataclasses

from zseal.errors import FormatError
from zseal.formats.attestation_request import CUID_SIZE, MAX_USER_DATA
from zseal.formats.layout import Layout, raw, u32
from zseal.formats.request import MAX_REQUEST_SIZE

MAGIC = b"pvattest"
VERSION_1 = 0x100
MAX_MEASUREMENT = 0x8000
MAX_ADDITIONAL = 0x8000
MAX_FILE_SIZE = 4 << 20


class FileHeader(Layout, size=0x18):
    """The header in front of the entries."""

    magic: bytes = raw(0x00, 8, "ASCII pvattest", default=MAGIC)
    version: int = u32(0x08, "format version", default=VERSION_1)
    size: int = u32(0x0C, "bytes of header, entries and data")


class Entry(Layout, size=8):
    """Where data lie. With offset 0 there are none, and the size may say how many bytes the answer will need."""

    size: int = u32(0x00, "bytes")
    offset: int = u32(0x04, "from the beginning of the file")


_ENTRIES = {
    "arcb": MAX_REQUEST_SIZE,
    "measurement": MAX_MEASUREMENT,
    "additional": MAX_ADDITIONAL,
    "user_data": MAX_USER_DATA,
    "cuid": CUID_SIZE,
}
"""The entries in the order of their data, each with its longest size in bytes."""
_DATA_OFFSET = FileHeader.SIZE + Entry.SIZE * len(_ENTRIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestFile:
    """A request for the guest: the ARCB, and how many bytes of measurement and additional data its answer has."""

    arcb: bytes
    measurement_size: int
    additional_size: int

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _pack({"arcb": self.arcb}, {"measurement": self.measurement_size, "additional": self.additional_size})

    @classmethod
    def parse(cls, data: bytes) -> RequestFile:
        """Read a request; a response works as well. Raises FormatError."""
        entries, found = _parse(data)
        if not entries["measurement"].size:
            raise FormatError("the pvattest file does not say how long the measurement is")
        return cls(
            arcb=found["arcb"],
            measurement_size=entries["measurement"].size,
            additional_size=entries["additional"].size,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResponseFile:
    """The answer of a guest: the unchanged ARCB, measurement, additional data, user data and the guest's CUID."""

    arcb: bytes
    measurement: bytes
    cuid: bytes
    additional: bytes = b""
    user_data: bytes = b""

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _pack({name: getattr(self, name) for name in _ENTRIES}, {})

    @classmethod
    def parse(cls, data: bytes) -> ResponseFile:
        """Read a response; raises FormatError, also for a request, which has no measurement yet."""
        _, found = _parse(data)
        for name, what in (("measurement", "measurement"), ("cuid", "configuration unique ID")):
            if name not in found:
                raise FormatError(
                    f"the pvattest file holds no {what}: it is not a response",
                    hint="a guest answers a request with pvattest perform",
                )
        if len(found["cuid"]) != CUID_SIZE:
            raise FormatError(f"the configuration unique ID has {len(found['cuid'])} bytes, not {CUID_SIZE}")
        return cls(
            arcb=found["arcb"],
            measurement=found["measurement"],
            cuid=found["cuid"],
            additional=found.get("additional", b""),
            user_data=found.get("user_data", b""),
        )


def _pack(data: dict[str, bytes], expected: dict[str, int]) -> bytes:
    entries = b""
    at = _DATA_OFFSET
    for name in _ENTRIES:
        part = data.get(name, b"")
        entries += Entry(size=len(part) or expected.get(name, 0), offset=at if part else 0).pack()
        at += len(part)
    return FileHeader(size=at).pack() + entries + b"".join(data.get(name, b"") for name in _ENTRIES)


def _parse(data: bytes) -> tuple[dict[str, Entry], dict[str, bytes]]:
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError("not a pvattest file: it does not begin with pvattest")
    header = FileHeader.unpack(data)
    if header.version != VERSION_1:
        raise FormatError(f"a pvattest file of unknown version {header.version:#x}", hint=f"zseal knows {VERSION_1:#x}")
    if len(data) < max(header.size, _DATA_OFFSET):
        raise FormatError(
            f"the pvattest file is cut off: {len(data)} of {max(header.size, _DATA_OFFSET)} bytes are there"
        )
    entries, found = {}, {}
    for index, (name, limit) in enumerate(_ENTRIES.items()):
        entry = entries[name] = Entry.unpack(data, FileHeader.SIZE + Entry.SIZE * index)
        if entry.size > limit:
            raise FormatError(f"damaged pvattest file: its {name} has {entry.size} bytes, at most {limit} are allowed")
        if entry.size and entry.offset:
            if entry.offset < _DATA_OFFSET or entry.offset + entry.size > len(data):
                raise FormatError(f"damaged pvattest file: its {name} lies outside the data")
            found[name] = data[entry.offset : entry.offset + entry.size]
    if "arcb" not in found:
        raise FormatError("the pvattest file holds no attestation request")
    return entries, found
