"""The host's access to the guest that it runs, which is all that paging, device checks and views of memory get."""

from __future__ import annotations

import dataclasses

from zseal.ultravisor.host import HostInterface


@dataclasses.dataclass
class HostSide:
    """The host's access to the machine, and what it knows about its guest; the hypervisor keeps it up to date.

    Guest absolute addresses are host absolute addresses here: the guest's memory is the first ``memory_size`` bytes.
    """

    uv: HostInterface
    memory_size: int
    configuration: int | None = None
    """The handle of the guest's configuration; None while there is none."""
    protected: bool = False
    """Whether the guest runs protected."""
