"""Declarative big-endian layouts.

A layout is a frozen dataclass whose fields name their offset and width once::

    class Header(Layout, size=16):
        magic: bytes = raw(0x00, 8, "ASCII magic")
        version: int = u32(0x08, "format version")

Bytes that no field covers are reserved: written as zeros, ignored when read. Offsets are relative to the start of the
structure, all integers are unsigned and big-endian, as everywhere in z/Architecture.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Self, dataclass_transform

from zseal.errors import FormatError


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """Where one field lies: ``offset`` and ``size`` in bytes, ``doc`` spells its abbreviation out."""

    offset: int
    size: int
    integer: bool
    doc: str


_KEY = "zseal-layout"
_INTEGER_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _field(spec: FieldSpec, default: object) -> Any:
    return dataclasses.field(default=default, metadata={_KEY: spec})


def u8(offset: int, doc: str = "", *, default: int = 0) -> Any:
    """Declare a one-byte unsigned integer."""
    return _field(FieldSpec(offset, 1, True, doc), default)


def u16(offset: int, doc: str = "", *, default: int = 0) -> Any:
    """Declare a two-byte unsigned integer."""
    return _field(FieldSpec(offset, 2, True, doc), default)


def u32(offset: int, doc: str = "", *, default: int = 0) -> Any:
    """Declare a four-byte unsigned integer."""
    return _field(FieldSpec(offset, 4, True, doc), default)


def u64(offset: int, doc: str = "", *, default: int = 0) -> Any:
    """Declare an eight-byte unsigned integer."""
    return _field(FieldSpec(offset, 8, True, doc), default)


def raw(offset: int, size: int, doc: str = "", *, default: bytes | None = None) -> Any:
    """Declare ``size`` uninterpreted bytes."""
    return _field(FieldSpec(offset, size, False, doc), bytes(size) if default is None else default)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(u8, u16, u32, u64, raw))
class Layout:
    """Base of all fixed-size structures; subclasses pass their ``size`` in bytes."""

    SIZE: ClassVar[int]
    FIELDS: ClassVar[Mapping[str, FieldSpec]]
    _STRUCT: ClassVar[struct.Struct]

    def __init_subclass__(cls, *, size: int) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        cls.SIZE = size
        cls.FIELDS = {f.name: f.metadata[_KEY] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        end, codes = 0, ">"
        for name, spec in cls.FIELDS.items():
            if spec.offset < end or spec.offset + spec.size > size:
                raise TypeError(f"{cls.__name__}.{name} overlaps its neighbour or the end")
            codes += f"{spec.offset - end}x" + (_INTEGER_CODES[spec.size] if spec.integer else f"{spec.size}s")
            end = spec.offset + spec.size
        cls._STRUCT = struct.Struct(codes)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read the structure at ``offset`` of ``data``; raises FormatError if it does not fit."""
        if offset < 0 or len(data) - offset < cls.SIZE:
            raise FormatError(f"{cls.__name__} needs {cls.SIZE} bytes, {max(0, len(data) - offset)} are there")
        return cls(**dict(zip(cls.FIELDS, cls._STRUCT.unpack_from(data, offset), strict=True)))

    def pack(self) -> bytes:
        """Return the ``SIZE`` bytes of the structure; raises ValueError if a value does not fit its field."""
        out = bytearray(self.SIZE)
        for name, spec in self.FIELDS.items():
            value = getattr(self, name)
            try:
                part = value.to_bytes(spec.size, "big") if spec.integer else bytes(value)
            except OverflowError as error:
                raise ValueError(f"{type(self).__name__}.{name} does not fit {spec.size} bytes") from error
            if len(part) != spec.size:
                raise ValueError(f"{type(self).__name__}.{name} has {len(part)} bytes instead of {spec.size}")
            out[spec.offset : spec.offset + spec.size] = part
        return bytes(out)
