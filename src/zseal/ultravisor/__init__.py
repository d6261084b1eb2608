"""The software ultravisor: configurations, secure storage, and the calls of hosts and guests."""

from zseal.ultravisor.acceptance import AcceptedHeader, accept_header, check_digests
from zseal.ultravisor.addressspace import AddressSpace, MappedSpace, OffsetSpace
from zseal.ultravisor.events import Event, EventLog, Level
from zseal.ultravisor.pagemap import PageMap
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Feature, Settings
from zseal.ultravisor.sie import Validity, ValidityIntercept
from zseal.ultravisor.snapshot import Snapshot
from zseal.ultravisor.ultravisor import Ultravisor

__all__ = [
    "AcceptedHeader",
    "AddressSpace",
    "Event",
    "EventLog",
    "Feature",
    "Level",
    "MappedSpace",
    "OffsetSpace",
    "PageMap",
    "Settings",
    "Snapshot",
    "Ultravisor",
    "UvcRefusal",
    "Validity",
    "ValidityIntercept",
    "accept_header",
    "check_digests",
]
