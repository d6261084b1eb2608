"""The software ultravisor of one machine, with an interface for each role."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from zseal.arch.storage import PAGE_SHIFT, Storage
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.uv_codes import Issuer
from zseal.formats.uvcb import QuiUvcb
from zseal.ultravisor.calls.machine import query_information
from zseal.ultravisor.calls.table import installed_rows
from zseal.ultravisor.clearing import clear
from zseal.ultravisor.events import EventLog, Level
from zseal.ultravisor.faults import FaultPlan
from zseal.ultravisor.firmware import FirmwareInterface
from zseal.ultravisor.host import HostInterface
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.snapshot import Snapshot, take_snapshot
from zseal.ultravisor.state import MachineState
from zseal.ultravisor.tables import FrameState, States, blank_states, runs


class Ultravisor:
    """One machine's firmware over its host absolute ``storage``, with the private host ``keys``.

    This is for code that builds and operates the machine. Code in the role of its host gets only ``host``, code that
    runs its guests ``firmware``. ``blank_states`` allocates the page-state array of a new configuration, so that
    another process can map it: it returns zeros, a byte for each of the given number of pages.
    """

    def __init__(
        self,
        storage: Storage,
        keys: MachineKeys,
        *,
        settings: Settings | None = None,
        log: EventLog | None = None,
        blank_states: Callable[[int], States] = blank_states,
    ) -> None:
        settings = settings or Settings()
        self._machine = MachineState(
            storage,
            keys,
            settings,
            log or EventLog(),
            host_rows=installed_rows(Issuer.HOST, settings),
            guest_rows=installed_rows(Issuer.GUEST, settings),
            blank_states=blank_states,
        )
        self.host = HostInterface(self._machine)
        """The operations of a host; they give no access to a guest's data."""
        self.firmware = FirmwareInterface(self._machine)
        """The interface for engines and code that completes guests' instructions."""

    @property
    def settings(self) -> Settings:
        """What kind of machine this is."""
        return self._machine.settings

    @property
    def log(self) -> EventLog:
        """The log of events so far."""
        return self._machine.log

    @property
    def faults(self) -> FaultPlan:
        """The answers to inject."""
        return self._machine.faults

    @property
    def initialised(self) -> bool:
        """Whether INIT_UV was done."""
        return self._machine.initialised

    def query(self, issuer: Issuer = Issuer.HOST) -> QuiUvcb:
        """Return the answer of QUI to ``issuer``."""
        with self._machine.lock:
            return query_information(self._machine, issuer)

    def snapshot(self) -> Snapshot:
        """Return the present state of everything that is not secret."""
        with self._machine.lock:
            return take_snapshot(self._machine)

    def machine_reset(self) -> None:
        """Reset the whole machine (load-normal): all secure and donated storage is cleared, everything forgotten."""
        machine = self._machine
        with machine.whole():
            table = machine.secure.frames
            # page by page final, so that a reset that cannot be completed leaves none half cleared
            for _, frame, length in runs(np.flatnonzero(table.state == FrameState.SECURE), table.count):
                machine.secure.destroy_run(frame, length)
            machine.undo.keep()
            for _, frame, length in runs(np.flatnonzero(table.state == FrameState.DONATED), table.count):
                machine.undo.last(functools.partial(clear, machine.storage, frame << PAGE_SHIFT, length << PAGE_SHIFT))
            for configuration in machine.configurations.values():
                machine.undo.afterwards(configuration.wipe)
                machine.undo.afterwards(configuration.guest.sealer.wipe)
            machine.undo.fields(machine)
            machine.forget()
        machine.log.add(Level.INFO, "machine reset")
