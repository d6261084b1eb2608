"""Writes plain values (mappings, lists, texts, numbers, booleans, null) as block-style YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def _scalar(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)


def to_yaml(value: object, indent: str = "") -> str:
    """Return the YAML text of ``value``; ends with a line end."""
    if isinstance(value, Mapping) and value:
        text = ""
        for name, item in value.items():
            nested = isinstance(item, (Mapping, list)) and item
            text += f"{indent}{name}:" + (f"\n{to_yaml(item, indent + '  ')}" if nested else f" {_empty(item)}\n")
        return text
    if isinstance(value, list) and value:
        text = ""
        for item in value:
            body = to_yaml(item, indent + "  ")
            text += (
                f"{indent}- {body[len(indent) + 2 :]}" if isinstance(item, Mapping) else f"{indent}- {_empty(item)}\n"
            )
        return text
    return f"{indent}{_empty(value)}\n"


def _empty(value: object) -> str:
    if isinstance(value, Mapping):
        return "{}"
    return "[]" if isinstance(value, list) else _scalar(value)
