"""Writes plain values as block-style YAML, and reads nested mappings of texts from it.

Programs in a guest read such files with Python's standard library alone, and a reader that takes ``0x…`` for a number
would lose its leading zeros: so every scalar that is read is a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from zseal.errors import FormatError

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


MAX_TEXT = 1 << 20
_MAX_DEPTH = 8
Texts = dict[str, "str | Texts"]
_LINE = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z_][\w .-]*?) *:(?: +(?P<value>.*?))? *")


def read_texts(text: str) -> Texts:
    """Return the mapping in ``text``: names with texts or with mappings of their own, nested at most eight deep.

    A tag on the first line (``!Association``), comments, document markers and lists are passed over. Quotes around a
    value are removed. Raises FormatError for any other line.
    """
    if len(text) > MAX_TEXT:
        raise FormatError(f"the YAML text has {len(text)} characters, more than {MAX_TEXT}")
    root: Texts = {}
    levels: list[tuple[int, Texts]] = [(-1, root)]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip()[0] in "#!-" or line.startswith("..."):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise FormatError(f"line {number} is not of the form NAME: VALUE")
        indent, value = len(match["indent"]), match["value"]
        while levels[-1][0] >= indent:
            levels.pop()
        parent = levels[-1][1]
        if value:
            parent[match["name"]] = _unquoted(value)
        else:
            if len(levels) > _MAX_DEPTH:
                raise FormatError(f"line {number} is nested more than {_MAX_DEPTH} deep")
            child: Texts = {}
            parent[match["name"]] = child
            levels.append((indent, child))
    return root


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
