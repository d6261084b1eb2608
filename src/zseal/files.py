"""Reading bounded inputs and writing outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zseal.errors import InputError, OutputError, ZsealError
from zseal.parts import locked, part_directory, part_name, remove_left_over

_DESCRIPTORS = Path("/proc/self/fd")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def output_exists(path: Path) -> OutputError:
    """Return the error for an output that already exists."""
    return OutputError("the output exists", where=str(path), hint="choose another name or give `overwrite=True`")


_LONGEST_NAME = 4095  # bytes; Linux takes no longer path


def named_path(name: str | os.PathLike[str]) -> Path:
    """Return the path ``name``; raises InputError if it is the text of a file rather than a file's name.

    Nothing of it is shown: it may be a key.
    """
    text = os.fspath(name)
    if "-----BEGIN " in text or text.count("\n") > 1 or text.startswith("<") or len(text.encode()) > _LONGEST_NAME:
        raise InputError("text was given where a file name is expected", hint="give the content as bytes")
    return Path(text)


def read_limited(path: Path, limit: int, what: str) -> bytes:
    """Return the content of the file ``path``, which is ``what`` for messages and has at most ``limit`` bytes.

    Raises InputError if it cannot be read or is larger.
    """
    path = named_path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read the {what}: {_reason(error)}", where=str(path)) from error
    if len(data) > limit:
        raise InputError(f"too large for a {what}: more than {limit} bytes", where=str(path))
    return data


def read_description(directory: Path, name: str, limit: int, what: str, hint: str) -> bytes:
    """Return the content of the file ``name`` that identifies ``directory`` as ``what``.

    Raises InputError if there is none, with ``hint``, and if it cannot be read or has more than ``limit`` bytes.
    """
    try:
        return read_limited(directory / name, limit, f"description of the {what}")
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise InputError(f"not a {what}: it has no {name}", where=str(directory), hint=hint) from error
        raise


@contextlib.contextmanager
def atomic_output(path: Path, *, overwrite: bool, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a new file without a name and give it the name ``path`` when the block ends without an exception.

    The target is replaced only with ``overwrite``, and only if it is a regular file or a link to one, which stays a
    link. A crash at any moment leaves the old content or none. If the file system knows no files without a name, it may
    also leave a part, which the next output in the same directory removes. Raises OutputError if the target exists
    without ``overwrite`` or cannot be written.
    """
    path = _target(path, overwrite=overwrite)
    remove_left_over(path.parent)
    with _new_part(path, mode) as (descriptor, part, named):
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if not named:
                    _give_name(stream.fileno(), part if overwrite else path)
            # the file is closed here, because Windows cannot rename an open one
            if overwrite:
                part.replace(path)
            elif named:
                _rename_to_new(part, path)
        except FileExistsError as error:
            raise output_exists(path) from error
        except OSError as error:
            raise OutputError(f"cannot write the output: {_reason(error)}", where=str(path)) from error
        finally:
            part.unlink(missing_ok=True)


class _CheckOnlyError(Exception):
    """An output was begun to test whether that is possible."""


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if :func:`atomic_output` would, as far as can be known beforehand; nothing is written."""
    with contextlib.suppress(_CheckOnlyError), atomic_output(path, overwrite=overwrite):
        raise _CheckOnlyError


def _target(path: Path, *, overwrite: bool) -> Path:
    """Return the path of the file to write; raises OutputError if something is there that must stay."""
    try:
        if path.exists() and not path.is_file():
            # renaming would replace a directory, pipe or device (such as /dev/null) with a file
            raise OutputError(
                "the output exists and is not a regular file", where=str(path), hint="choose another name"
            )
        if not overwrite and (path.exists() or path.is_symlink()):
            raise output_exists(path)
        # a rename would replace the link itself
        return path.resolve() if path.is_symlink() else path
    except OSError as error:
        raise OutputError(f"cannot create the output: {_reason(error)}", where=str(path)) from error


@contextlib.contextmanager
def _new_part(path: Path, mode: int) -> Iterator[tuple[int, Path, bool]]:
    """Yield the descriptor of a new, locked file, a temporary name for it next to ``path``, and whether it has that."""
    while True:
        part = path.with_name(part_name())
        try:
            descriptor, named = _open_new(part, mode)
        except OSError as error:
            raise OutputError(f"cannot create the output: {_reason(error)}", where=str(path)) from error
        with locked(descriptor) as ours:
            if ours and (part.exists() or not named):
                yield descriptor, part, named
                return
        os.close(descriptor)  # another process found it before it was locked, and removed it


def _open_new(part: Path, mode: int) -> tuple[int, bool]:
    """Open a new file without a name next to ``part``, or as ``part`` itself if the system cannot do that.

    Returns its descriptor and whether it has the name.
    """
    unnamed = getattr(os, "O_TMPFILE", 0)  # Linux only
    if unnamed and _DESCRIPTORS.is_dir():
        try:
            return os.open(part.parent, os.O_RDWR | unnamed, mode), False
        except OSError as error:
            # EISDIR and EINVAL come from kernels and file systems that do not know O_TMPFILE
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), True


def _give_name(descriptor: int, path: Path) -> None:
    """Give the open, unnamed file the name ``path``; raises FileExistsError if that is taken."""
    # os.link() follows the link in /proc only when it is called with a directory descriptor: linkat(2), not link(2)
    links = os.open(_DESCRIPTORS, os.O_PATH | os.O_DIRECTORY)
    try:
        os.link(str(descriptor), path, src_dir_fd=links, follow_symlinks=True)
    finally:
        os.close(links)


def _rename_to_new(part: Path, path: Path) -> None:
    """Rename ``part`` to ``path``; raises FileExistsError if that is taken."""
    try:
        # unlike rename(), link() refuses a target that appeared meanwhile
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # file systems without hard links, such as FAT
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.rename(path)


@contextlib.contextmanager
def new_directory(path: Path, *, what: str, hint: str, mode: int = 0o700) -> Iterator[Path]:
    """Yield a new directory. It gets the name ``path`` if the block ends without an exception, otherwise it is removed.

    What a crash leaves of it, the next output beside it removes.
    ``what`` names it in messages. Raises OutputError if ``path`` exists, with ``hint``, or cannot be
    written.
    """
    exists = OutputError("it exists", where=str(path), hint=hint)
    try:
        if path.exists() or path.is_symlink():
            raise exists
        with part_directory(path.parent, mode=mode) as part:
            try:
                yield part
            except ZsealError as error:
                if error.where:
                    # the temporary name means nothing to users
                    error.where = error.where.replace(str(part), str(path))
                raise
            if path.exists():  # rename() would replace an empty one that appeared meanwhile
                raise exists
            part.rename(path)
    except OSError as error:
        raise OutputError(f"cannot create the {what}: {_reason(error)}", where=str(path)) from error


def write_atomic(path: Path, data: bytes, *, overwrite: bool, mode: int = 0o600) -> None:
    """Write ``data`` to ``path`` as :func:`atomic_output` does."""
    with atomic_output(path, overwrite=overwrite, mode=mode) as stream:
        stream.write(data)
