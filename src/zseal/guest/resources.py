"""The memory that this computer has left for a guest."""

from __future__ import annotations

from pathlib import Path

from zseal.arch.storage import MIB
from zseal.errors import InputError

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def _number(path: Path) -> int | None:
    """Return the number in a one-line file; None if there is none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _file_cache(path: Path) -> int:
    """Return the bytes that the kernel can reclaim."""
    try:
        fields = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        return sum(int(value) for name, value in fields if name in ("active_file", "inactive_file"))
    except (OSError, ValueError):
        return 0


def _left_in_cgroups() -> int | None:
    """Return the bytes that the memory limits of this process's cgroups (version 2) leave; None without a limit."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), None)
    if own is None or ".." in own.split("/"):
        return None
    left = []
    group = _CGROUPS / own
    for place in (group, *group.parents):
        limit, used = _number(place / "memory.max"), _number(place / "memory.current")
        if limit is not None and used is not None:
            left.append(max(0, limit - used + _file_cache(place / "memory.stat")))
        if place == _CGROUPS:
            break
    return min(left, default=None)


def available_memory() -> int | None:
    """Return Linux's estimate of the bytes that a new program can use without swapping; None if there is none."""
    found = []
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                found.append(int(value.split()[0]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    left = _left_in_cgroups()
    if left is not None:
        found.append(left)
    return min(found, default=None)


def check_memory(size: int) -> None:
    """Raise InputError if a guest of ``size`` bytes is larger than what this computer has free."""
    available = available_memory()
    if available is not None and size > available:
        raise InputError(
            f"the guest's {size // MIB} MiB of memory are more than the {available // MIB} MiB that this computer "
            "has free",
            hint="give it less with `memory`",
        )
