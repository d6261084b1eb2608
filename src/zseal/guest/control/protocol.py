"""The language of a guest's control socket: lines of JSON, with raw bytes after a line that announces them.

The guest speaks first: ``{"zseal": "0.1.0", "protocol": 1, "name": "demo", "pid": 4711}``. Then each request is a line

    {"id": 1, "command": "read-memory", "arguments": {"address": 4096, "length": 16}}

and is answered, in order, by any number of lines ``{"id": 1, "progress": {"done": 5, "total": 10}}`` and
``{"id": 1, "data": 4096}`` with that number of raw bytes after the newline, then by one line with ``result`` or with
``error``. Unknown members are ignored, so that later versions can add some; ``protocol`` changes if old clients would
misunderstand. docs/guest-control.md lists commands and arguments.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from zseal.errors import InputError, ZsealError
from zseal.jsonvalue import Json

VERSION = 1
LINE_LIMIT = 64 << 10
"""Bytes of a request, including its newline. The longest real one names a file."""
ANSWER_LIMIT = 4 << 20
"""Bytes of a line that a client must accept."""
DATA_LIMIT = 1 << 20
"""Raw bytes after one line."""


class ControlError(ZsealError):
    """A guest cannot be reached, or refuses a request."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One request; ``id`` comes back with every line of its answer."""

    command: str
    arguments: Mapping[str, Json]
    id: int | str | None = None

    @classmethod
    def parse(cls, line: bytes) -> Request:
        """Return the request in ``line``; raises ControlError for anything else."""
        message = parse_object(line)
        command, arguments, number = message.get("command"), message.get("arguments", {}), message.get("id")
        if not isinstance(command, str):
            raise ControlError("a request must name a command")
        if not isinstance(arguments, dict):
            raise ControlError("the arguments of a request must be an object")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | str)):
            raise ControlError("the id of a request must be a number or text")
        return cls(command, arguments, number)

    def pack(self) -> bytes:
        """Return the line."""
        return pack({"id": self.id, "command": self.command, "arguments": dict(self.arguments)})


def parse_object(line: bytes) -> dict[str, Json]:
    """Return the JSON object in ``line``; raises ControlError if there is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("the line is not JSON") from None
    if not isinstance(message, dict):
        raise ControlError("the line is not a JSON object")
    return message


def pack(message: Mapping[str, Json]) -> bytes:
    """Return ``message`` as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def error_part(error: ZsealError) -> dict[str, Json]:
    """Return what a client gets for ``error``: its kind, and its one line."""
    return {"kind": type(error).__name__, "message": str(error)}


class Arguments:
    """Typed access to the arguments of a request; every method raises InputError for unsuitable values."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values

    def number(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """Return the whole number ``name``, at least ``least`` and below 2^63."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
            raise InputError(f"{name} must be a whole number from {least} on")
        return value

    def optional_number(self, name: str, *, least: int = 0) -> int | None:
        """Return the whole number ``name``, or None if it is missing."""
        return None if self._values.get(name) is None else self.number(name, least=least)

    def text(self, name: str) -> str:
        """Return the text ``name``."""
        value = self._values.get(name)
        if not isinstance(value, str) or not value or "\0" in value:
            raise InputError(f"{name} must be text")
        return value

    def flag(self, name: str) -> bool:
        """Return whether ``name`` is set."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise InputError(f"{name} must be true or false")
        return value
