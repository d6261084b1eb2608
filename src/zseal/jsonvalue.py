"""The type of a JSON value: what a report, a message of the control protocol, or QMP carries."""

from __future__ import annotations

from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
