"""Core dumps: what a crash leaves must not hold a guest's memory or keys, unless the user asks for it."""

from __future__ import annotations

import mmap
import os

from zseal.errors import UsageError

VARIABLE = "ZSEAL_CORE_DUMPS"
_ALLOW = "allow"
LIMIT = 1
"""RLIMIT_CORE in bytes. A file would need a page, and 1 is also the value with which Linux starts no program for the
dump (core(5), fs/coredump.c); with 0 it would."""


def core_dumps_allowed() -> bool:
    """Whether the variable ``ZSEAL_CORE_DUMPS`` asks for core dumps; raises UsageError if it has an unknown value."""
    value = os.environ.get(VARIABLE, "")
    if value not in ("", _ALLOW):
        raise UsageError(
            f"the environment variable {VARIABLE} has the unknown value {value!r}; set it to {_ALLOW} or remove it"
        )
    return value == _ALLOW


def forbid_core_dumps() -> None:
    """Let neither this process nor those that it starts leave a core dump, unless the environment asks for it."""
    if core_dumps_allowed():
        return
    try:
        import resource
    except ImportError:  # Windows has no core dumps
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == resource.RLIM_INFINITY or hard >= LIMIT != soft:
        resource.setrlimit(resource.RLIMIT_CORE, (LIMIT, hard))


def keep_out_of_core_dumps(mapping: mmap.mmap) -> None:
    """Leave ``mapping`` out of a core dump of this process, whoever allows one, unless the environment asks for it."""
    advice = getattr(mmap, "MADV_DONTDUMP", None)  # Linux only
    if advice is not None and not core_dumps_allowed():
        mapping.madvise(advice)
