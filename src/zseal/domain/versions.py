"""Versions of libvirt and QEMU that rules depend on, and ``--target``, which states them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from zseal.errors import UsageError

Version = tuple[int, ...]

LAUNCH_SECURITY_LIBVIRT: Version = (7, 6, 0)
LAUNCH_SECURITY_QEMU: Version = (6, 0)
IOMMU_ATTRIBUTE: Version = (3, 5, 0)
ASYNC_TEARDOWN: Version = (9, 6, 0)


def show(version: Version) -> str:
    """The version as text, such as ``9.6.0``."""
    return ".".join(map(str, version))


@dataclasses.dataclass(frozen=True)
class Target:
    """The versions a domain is meant for; None means the newest."""

    libvirt: Version | None = None
    qemu: Version | None = None

    def libvirt_has(self, since: Version) -> bool:
        """Whether the target's libvirt is at least ``since``."""
        return self.libvirt is None or self.libvirt >= since


def parse_targets(texts: Iterable[str]) -> Target:
    """Read ``libvirt-9.0.0`` and ``qemu-7.2``; a bare version means libvirt. Raises UsageError for anything else."""
    found: dict[str, Version] = {}
    for text in texts:
        match = re.fullmatch(r"(?:(libvirt|qemu)-)?(\d{1,4}(?:\.\d{1,4}){0,2})", text)
        if match is None:
            raise UsageError(f"invalid target {text!r}: use a name and version such as libvirt-9.0.0 or qemu-7.2")
        version = tuple(map(int, match[2].split(".")))
        found[match[1] or "libvirt"] = version + (0,) * (3 - len(version))
    return Target(**found)
