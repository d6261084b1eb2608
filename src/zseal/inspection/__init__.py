"""Recognises files and directories around protected guests, describes them, and names the commands to use next.

Example::

    from pathlib import Path
    from zseal.inspection import inspect

    description = inspect(Path("image.img"))
    print(description.kind, description.fields)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from zseal.files import named_path
from zseal.inspection.recognisers import ALL_RECOGNISERS, Description, Sample, Value

__all__ = ["UNKNOWN", "Description", "inspect", "to_json", "to_text"]

# grows when a field changes its meaning; new fields and kinds do not change it
JSON_VERSION = 1
UNKNOWN = "unknown"
"""The kind of unrecognised files."""
# a file can contain control characters where a name is expected
_LONGEST_VALUE = 300


def inspect(path: str | os.PathLike[str]) -> Description:
    """Return the description of the file or directory ``path``; its kind is ``unknown`` if no recogniser knows it.

    Reads a bounded part of it; only a kernel is read as a whole, to find its release. Raises InputError if it cannot be
    read.
    """
    sample = Sample(named_path(path))
    if not sample.is_directory and not sample.size:
        return Description(UNKNOWN, "empty file", {"size": 0})
    for recogniser in ALL_RECOGNISERS:
        if recogniser.directories == sample.is_directory:
            description = recogniser.recognise(sample)
            if description is not None:
                return description
    if sample.is_directory:
        return Description(UNKNOWN, "a directory of an unknown kind")
    # none of its bytes are shown: it may be a secret
    text = b"\0" not in sample.head[:4096]
    return Description(UNKNOWN, f"not recognised, {'text' if text else 'binary'}", {"size": sample.size})


def to_json(found: Sequence[tuple[Path, Description]]) -> str:
    """Return the descriptions as one JSON object; see docs/explain.md for its fields."""
    files = [
        {
            "path": str(path),
            "kind": description.kind,
            "title": description.title,
            "fields": description.fields,
            "problems": description.problems,
            "next": description.next_steps,
        }
        for path, description in found
    ]
    return json.dumps({"version": JSON_VERSION, "files": files}, indent=2)


def _shown(value: Value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)[:_LONGEST_VALUE]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def to_text(path: Path, description: Description) -> str:
    """Return the description for people: a title line, then one line for each field."""
    lines = [f"{_shown(str(path))}: {description.title}"]
    width = max((len(name) for name in description.fields), default=0) + 1
    for name, value in description.fields.items():
        values = list(value) or ["none"] if isinstance(value, tuple) else [value]
        label = f"{name.replace('_', ' ')}:"
        for entry in values:
            lines.append(f"  {label:<{width}} {_shown(entry)}")
            label = ""
    lines += [f"  problem: {_shown(problem)}" for problem in description.problems]
    lines += [f"  next: {step}" for step in description.next_steps]
    return "\n".join(lines)
