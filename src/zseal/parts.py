"""Parts: files and directories with a temporary name, which are removed even if the process that makes them is killed.

A part is locked (flock(2)) as long as its process uses it. The kernel drops the lock with the process, so a part that
can be locked is left over, and the next process that makes a part in the same directory removes it: it may hold private
keys. Without such locks (on Windows, on some network file systems) left-over parts stay.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

PREFIX, SUFFIX = ".zseal-", ".part"


def part_name(prefix: str = PREFIX, suffix: str = SUFFIX) -> str:
    """Return a new name for a part: a short one, because the name that it gets in the end may be as long as allowed."""
    return f"{prefix}{secrets.token_hex(8)}{suffix}"


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[bool]:
    """Lock an open file or directory until the end of the block, even if ``descriptor`` is closed before.

    Yields False if another process holds the lock: it is about to remove this part.
    """
    if os.name != "posix":  # Windows could not rename what is open
        yield True
        return
    own = os.dup(descriptor)
    try:
        yield _lock(own) is not False
    finally:
        os.close(own)


@contextlib.contextmanager
def part_directory(parent: Path, *, prefix: str = PREFIX, suffix: str = SUFFIX, mode: int = 0o700) -> Iterator[Path]:
    """Make a part that is a directory in ``parent``; it is removed at the end of the block unless it was renamed.

    Parts of the same kind that killed processes left are removed before. Raises OSError.
    """
    remove_left_over(parent, prefix=prefix, suffix=suffix)
    with contextlib.ExitStack() as stack:
        while True:
            part = parent / part_name(prefix, suffix)
            part.mkdir(mode=mode)
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            if os.name != "posix":
                break
            descriptor = os.open(part, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            stack.callback(os.close, descriptor)
            if _lock(descriptor) is not False and part.exists():
                break
        yield part


def remove_left_over(directory: Path, *, prefix: str = PREFIX, suffix: str = SUFFIX) -> None:
    """Remove the parts in ``directory`` that killed processes of this user left there, as far as possible."""
    with contextlib.suppress(OSError):
        for path in directory.glob(f"{prefix}{'[0-9a-f]' * 16}{suffix}"):
            with contextlib.suppress(OSError):
                _remove_if_left_over(path)


def _remove_if_left_over(path: Path) -> None:
    found = path.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or found.st_uid != os.geteuid():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # what was renamed meanwhile has become an output
        if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.lstat()):
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; False if it is locked already, None if there are no locks."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return None
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
