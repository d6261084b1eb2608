"""The unnamed file that contains guest storage, with large pages if Linux lets us have them.

Large pages spare a guest tens of thousands of page faults while it boots. Memory files get none unless the computer's
administrator enables them for all such files (/sys/kernel/mm/transparent_hugepage/shmem_enabled), but a tmpfs has an
option of its own. It needs no mount point (fsopen(2), Linux 5.2), only the right to mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable

LARGE_PAGE = 2 << 20
"""The alignment of a mapping for large pages; those of some computers are smaller."""

# Numbers of system calls, which are the same on all computers since Linux 5.1
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1  # of FSOPEN_ and FSMOUNT_
_SET_STRING, _CREATE = 1, 6  # FSCONFIG_
_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8  # MOUNT_ATTR_
_OPTIONS = ((b"huge", b"always"), (b"size", b"0"))  # the tmpfs has no limit: the computer's memory is the limit


def memory_file(*, large_pages: bool) -> tuple[int, bool]:
    """Return a descriptor of an empty memory file, not inheritable, and whether it takes up large pages.

    It has them if ``large_pages`` are requested and the computer grants them. Raises OSError.
    """
    if large_pages:
        with contextlib.suppress(OSError):
            return _in_tmpfs(), True
    return os.memfd_create("zseal-guest", os.MFD_CLOEXEC), False


def _in_tmpfs() -> int:
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    with contextlib.ExitStack() as undo:

        def opened(number: int, *arguments: object) -> int:
            descriptor = _checked(system_call, number, *arguments)
            undo.callback(os.close, descriptor)
            return descriptor

        context = opened(_FSOPEN, b"tmpfs", _CLOEXEC)
        for name, value in _OPTIONS:
            _checked(system_call, _FSCONFIG, context, _SET_STRING, name, value, 0)
        _checked(system_call, _FSCONFIG, context, _CREATE, None, None, 0)
        root = opened(_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV_NOEXEC)
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=root)


def _checked(system_call: Callable[..., int], *arguments: object) -> int:
    result = system_call(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
