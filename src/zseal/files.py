"""Reading bounded inputs and writing outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zseal.errors import InputError, OutputError


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _exists(path: Path) -> OutputError:
    return OutputError("the output exists", where=str(path), hint="choose another name or give --overwrite")


def read_limited(path: Path, limit: int, what: str) -> bytes:
    """Return the content of the file ``path``, which is ``what`` for messages and has at most ``limit`` bytes.

    Raises InputError where it can't be read or is larger.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read the {what}: {_reason(error)}", where=str(path)) from error
    if len(data) > limit:
        raise InputError(f"too large for a {what}: more than {limit} bytes", where=str(path))
    return data


@contextlib.contextmanager
def atomic_output(path: Path, *, overwrite: bool, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` and rename it there when the block ends without an exception.

    The target is replaced only with ``overwrite``; a crash at any moment leaves the old content or none. Raises
    OutputError where the target exists unasked or can't be written.
    """
    if not overwrite and (path.exists() or path.is_symlink()):
        raise _exists(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise OutputError(f"cannot create the output: {_reason(error)}", where=str(path)) from error
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            part.replace(path)
        else:
            # link() refuses an existing target, rename() would replace one that appeared meanwhile
            os.link(part, path)
            part.unlink()
    except FileExistsError as error:
        raise OutputError(
            "the output exists", where=str(path), hint="choose another name or give --overwrite"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write the output: {_reason(error)}", where=str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, *, overwrite: bool, mode: int = 0o600) -> None:
    """Write ``data`` to ``path`` as :func:`atomic_output` does."""
    with atomic_output(path, overwrite=overwrite, mode=mode) as stream:
        stream.write(data)
