"""The software ultravisor: configurations, secure storage, and the calls of hosts and guests.

:class:`Ultravisor` is one machine's firmware over any :class:`zseal.arch.Storage`; ``zseal.model`` has a small host and
guests for it, and docs/ultravisor.md shows what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.ultravisor.addressspace import AddressSpace, MappedSpace, OffsetSpace
    from zseal.ultravisor.events import EventLog, Level, UvEvent
    from zseal.ultravisor.faults import Fault, FaultPlan
    from zseal.ultravisor.firmware import FirmwareInterface
    from zseal.ultravisor.host import HostInterface
    from zseal.ultravisor.image.acceptance import AcceptedHeader, accept_header, check_digests
    from zseal.ultravisor.pagemap import Kind, PageMap
    from zseal.ultravisor.refusal import OutOfMemoryError, UvcRefusal
    from zseal.ultravisor.settings import Feature, Settings
    from zseal.ultravisor.sie import PrefixIntercept, Validity, ValidityIntercept
    from zseal.ultravisor.snapshot import ConfigurationSnapshot, CpuSnapshot, Snapshot
    from zseal.ultravisor.state import HostCpus, HostMemory
    from zseal.ultravisor.tables import FrameState, PageState
    from zseal.ultravisor.ultravisor import Ultravisor

__all__ = [
    "AcceptedHeader",
    "AddressSpace",
    "ConfigurationSnapshot",
    "CpuSnapshot",
    "EventLog",
    "Fault",
    "FaultPlan",
    "Feature",
    "FirmwareInterface",
    "FrameState",
    "HostCpus",
    "HostInterface",
    "HostMemory",
    "Kind",
    "Level",
    "MappedSpace",
    "OffsetSpace",
    "OutOfMemoryError",
    "PageMap",
    "PageState",
    "PrefixIntercept",
    "Settings",
    "Snapshot",
    "Ultravisor",
    "UvEvent",
    "UvcRefusal",
    "Validity",
    "ValidityIntercept",
    "accept_header",
    "check_digests",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"zseal.ultravisor.image.acceptance": ("AcceptedHeader", "accept_header", "check_digests")},
        addressspace=("AddressSpace", "MappedSpace", "OffsetSpace"),
        events=("EventLog", "Level", "UvEvent"),
        faults=("Fault", "FaultPlan"),
        firmware=("FirmwareInterface",),
        host=("HostInterface",),
        pagemap=("Kind", "PageMap"),
        refusal=("OutOfMemoryError", "UvcRefusal"),
        settings=("Feature", "Settings"),
        sie=("PrefixIntercept", "Validity", "ValidityIntercept"),
        snapshot=("ConfigurationSnapshot", "CpuSnapshot", "Snapshot"),
        state=("HostCpus", "HostMemory"),
        tables=("FrameState", "PageState"),
        ultravisor=("Ultravisor",),
    )
