"""The shape of a document: its fields and their types. Every generated document is checked against one."""

from __future__ import annotations

from collections.abc import Mapping

Shape = type | tuple[object, ...] | Mapping[str, object] | list[object] | None
"""A type; a tuple of allowed values; fields and their shapes; a list with the shape of its items; None for null."""


def misfits(value: object, shape: object, path: str = "") -> list[str]:
    """Return the places where ``value`` does not have ``shape``, as ``path: what is wrong``; empty if it fits."""
    here = path or "."
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return [f"{here}: not an object"]
        found = [f"{here}: unknown field {name}" for name in value if name not in shape]
        for name, item in value.items():
            if name in shape:
                found += misfits(item, shape[name], f"{path}.{name}")
        return found
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{here}: not a list"]
        return [m for index, item in enumerate(value) for m in misfits(item, shape[0], f"{path}[{index}]")]
    if isinstance(shape, tuple):
        return [] if value in shape else [f"{here}: {value!r} is not one of {shape}"]
    if shape is None:
        return [] if value is None else [f"{here}: not null"]
    fits = isinstance(value, shape) if isinstance(shape, type) else False
    wrong_bool = isinstance(value, bool) and shape is not bool
    return [] if fits and not wrong_bool else [f"{here}: {value!r} is not a {getattr(shape, '__name__', shape)}"]
