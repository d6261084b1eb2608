"""Files that may also be stdin or stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from zseal.errors import InputError
from zseal.files import read_limited, write_atomic


def read_input(name: str, limit: int, what: str) -> bytes:
    """Return the content of the file ``name``, or of stdin for ``-``."""
    if name != "-":
        return read_limited(Path(name), limit, what)
    data: bytes = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"the {what} is longer than {limit} bytes", where="stdin")
    return data


def write_output(name: str, data: bytes, *, overwrite: bool, mode: int = 0o644) -> None:
    """Write ``data`` to the file ``name``, or to stdout for ``-``."""
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        write_atomic(Path(name), data, overwrite=overwrite, mode=mode)
