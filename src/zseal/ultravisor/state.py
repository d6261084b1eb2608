"""The state of one machine's ultravisor, and how a call reaches it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import OperandMemory, Storage
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.layout import Layout
from zseal.formats.uv_codes import Command, ResponseCode
from zseal.formats.uv_codes import Generic as AnyCommand
from zseal.ultravisor.addressspace import AddressSpace
from zseal.ultravisor.configuration import Configuration, ConfigurationState, SecureCpu
from zseal.ultravisor.donations import Donation, DonationLedger
from zseal.ultravisor.events import EventLog, Level
from zseal.ultravisor.faults import FaultPlan
from zseal.ultravisor.image.unpack_ahead import UnpackAhead
from zseal.ultravisor.image.unpacking import Unpacked
from zseal.ultravisor.refusal import OutOfMemoryError, UvcRefusal
from zseal.ultravisor.securestorage import SecureStorage
from zseal.ultravisor.settings import Feature, Settings
from zseal.ultravisor.tables import States
from zseal.ultravisor.undo import Undo

BlockT = TypeVar("BlockT", bound=Layout)


class HostMemory(OperandMemory, Protocol):
    """Host storage as a UVC of the host sees it; donated storage is named by logical address, so it translates."""

    def absolute(self, address: int, *, write: bool = False) -> int:
        """Return the absolute address of the byte at logical ``address``; raises ProgramInterruption."""


@runtime_checkable
class UntranslatedMemory(Protocol):
    """Host storage whose logical addresses are absolute, so that all pages of a large area need not be translated."""

    def check_storage(self, address: int, length: int) -> None:
        """Raise ProgramInterruption where there is no storage for ``length`` bytes at ``address``."""


@dataclasses.dataclass
class HostCpus:
    """The state of the host's own CPUs that matters for INIT_UV and donations."""

    prefixes: tuple[int, ...] = (0,)
    """Absolute addresses of their prefix areas (8 KiB each), which cannot be donated."""
    others_stopped: bool = True
    """Whether every CPU but the one issuing calls is stopped."""


class Busy(Exception):  # noqa: N818 - condition code 2, not an error
    """The call cannot be done now; the control block stays as it is and the call is issued again."""


@dataclasses.dataclass(frozen=True)
class Request(Generic[BlockT]):
    """One UVC: its control block, the storage its logical addresses belong to, and the guest that issued it."""

    uvcb: BlockT
    memory: OperandMemory
    host: HostMemory | None
    caller: Configuration | None
    length: int

    @property
    def guest(self) -> Configuration:
        """The issuing guest of a guest call."""
        assert self.caller is not None  # noqa: S101 - the dispatcher separates host and guest calls
        return self.caller

    @property
    def host_memory(self) -> HostMemory:
        """The issuing host's memory of a host call."""
        assert self.host is not None  # noqa: S101 - likewise
        return self.host


@dataclasses.dataclass(frozen=True)
class Reply:
    """The result of a call that succeeds: output fields, or raw bytes from ``raw_offset`` on; and its answer.

    ``need_destroy`` marks a creation that failed half-way.
    """

    fields: Mapping[str, int | bytes] = dataclasses.field(default_factory=dict)
    raw: bytes = b""
    raw_offset: int = 0
    answer: ResponseCode = AnyCommand.EXECUTED
    need_destroy: bool = False


DONE = Reply()


@dataclasses.dataclass(frozen=True)
class Call(Generic[BlockT]):
    """One row of the table of calls: a command, the layout of its control block, and the function that executes it.

    The block's length must be the layout's size, or at least ``minimum`` if that is given.
    """

    command: Command
    layout: type[BlockT]
    handler: Callable[[MachineState, Request[BlockT]], Reply]
    minimum: int | None = None

    def fits(self, length: int) -> bool:
        """Whether a control block of ``length`` bytes is acceptable."""
        return length == self.layout.SIZE if self.minimum is None else length >= self.minimum


Row = Call[Any]


class MachineState:
    """The ultravisor of one machine. Handlers of calls work on it, with ``lock`` held by their caller."""

    def __init__(
        self,
        storage: Storage,
        keys: MachineKeys,
        settings: Settings,
        log: EventLog,
        *,
        host_rows: Mapping[int, Row],
        guest_rows: Mapping[int, Row],
        blank_states: Callable[[int], States],
    ) -> None:
        """``host_rows`` and ``guest_rows`` are the installed calls by command code; see ``Ultravisor`` for the rest."""
        self.lock = threading.RLock()
        self.undo = Undo()
        self.storage = storage
        self.keys = keys
        self.settings = settings
        self.log = log
        self.host_rows = host_rows
        self.guest_rows = guest_rows
        self.blank_states = blank_states
        self.host_cpus = HostCpus()
        self.faults = FaultPlan()
        self.spaces: dict[int, AddressSpace] = {}
        self.calls: collections.Counter[int] = collections.Counter()
        """Calls done and refused, by command code."""
        self.refused: collections.Counter[int] = collections.Counter()
        self.unpack_ahead: UnpackAhead | None = None
        self._serial = 0
        self._handles: set[int] = set()
        self.forget()

    def forget(self) -> None:
        """Reset the state, as after a machine reset: no configuration, no donation, every frame ordinary."""
        self.secure = SecureStorage(self.storage, self.undo, transfers_shared=Feature.MISC in self.settings.features)
        self.ledger = DonationLedger(self.storage, self.secure.frames, self.undo)
        self.configurations: dict[int, Configuration] = {}
        self.cpus: dict[int, SecureCpu] = {}
        self.base: Donation | None = None

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Do one call, or one piece of a run of calls: completely, as far as it was refused, or not at all.

        Raises OutOfMemoryError, with nothing changed, if this computer's memory does not suffice.
        """
        with self.lock:
            try:
                try:
                    yield
                except (UvcRefusal, ProgramInterruption, Busy):  # answers: what was done before them counts
                    self.undo.keep()
                    raise
                else:
                    self.undo.keep()
            except MemoryError:
                self.undo.take_back()
                raise OutOfMemoryError from None
            except BaseException:
                self.undo.take_back()
                raise

    def note(self, level: Level, name: str, **details: int | str) -> None:
        """Put an event into the log once the call in progress is complete."""
        self.undo.afterwards(functools.partial(self.log.add, level, name, **details))

    def unpacked_ahead(self, header: bytes) -> Sequence[Unpacked]:
        """Return the results prepared for an image with ``header``; none the second time."""
        ahead, self.unpack_ahead = self.unpack_ahead, None
        return () if ahead is None else ahead.take(header)

    @property
    def initialised(self) -> bool:
        """Whether INIT_UV was done."""
        return self.base is not None

    def new_serial(self) -> int:
        """Return a new, unique number for a configuration."""
        self._serial += 1
        return self._serial

    def new_handle(self, kind: int) -> int:
        """Return a new, random handle; its first byte shows ``kind`` to readers of a trace."""
        while True:
            handle = kind << 56 | secrets.randbits(56)
            if handle not in self._handles:
                self._handles.add(handle)
                return handle

    def configuration(self, handle: int, *states: ConfigurationState) -> Configuration:
        """Return the configuration with ``handle``, which must be in one of ``states`` if any are given.

        Raises UvcRefusal (rc 0020, 0003).
        """
        found = self.configurations.get(handle)
        if found is None:
            raise UvcRefusal(AnyCommand.INVALID_CONFIGURATION)
        if states and found.state not in states:
            raise UvcRefusal(AnyCommand.INVALID_STATE, detail=f"the configuration is {found.state.value}")
        return found

    def cpu(self, handle: int) -> SecureCpu:
        """Return the CPU with ``handle``; raises UvcRefusal (rc 0021)."""
        found = self.cpus.get(handle)
        if found is None:
            raise UvcRefusal(AnyCommand.INVALID_CPU)
        return found
