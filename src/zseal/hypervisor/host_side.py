"""What a host has of the guest it runs: all that paging, device checks and views of its memory can reach."""

from __future__ import annotations

import dataclasses

from zseal.ultravisor.host import HostInterface


@dataclasses.dataclass
class HostSide:
    """The host's access to the machine, and what it knows of its guest; kept up to date by the hypervisor.

    Guest absolute addresses are host absolute addresses here: the guest's memory is the first ``memory_size`` bytes.
    """

    uv: HostInterface
    memory_size: int
    configuration: int | None = None
    """The handle of the guest's configuration; None while there is none."""
    protected: bool = False
    """Whether the guest runs protected."""
