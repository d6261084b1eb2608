"""The owner of a QEMU: the meaning of its resets, pauses and power-offs depends on who can cause them.

:class:`MachineOwner` is the policy for a QEMU of our own, which waits for us before each reset and which only we pause.
:class:`zseal.engine.qemu.managed.ManagedOwner` is the policy for a QEMU that a manager such as libvirt also controls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias

from zseal.engine.interface import Stop
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.cpu import QemuCpu
from zseal.engine.qemu.machine import QemuMachine
from zseal.engine.qemu.qmp import QmpEvent
from zseal.engine.qemu.sites import Stage
from zseal.engine.qemu.stop_reasons import stop_for, wants_reset


class Owned(Protocol):
    """The owner's access to the run whose machine it owns."""

    @property
    def machine(self) -> QemuMachine:
        """QEMU and its connections."""

    @property
    def memory(self) -> SharedMemory:
        """The machine's main storage."""

    @property
    def stage(self) -> Stage:
        """The code that the guest runs; IMAGE as long as that is not checked."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the run."""

    @property
    def paused(self) -> bool:
        """Whether the host has paused the machine."""

    def finish(self, stop: Stop) -> None:
        """End the run."""

    def explained(self, stop: Stop) -> Stop:
        """Return ``stop`` with details from a stopped CPU."""

    def reset(self) -> None:
        """Drop protection, reset the machine and let it run; it must have stopped, or be about to."""

    def read_events(self) -> None:
        """Handle what QEMU has reported so far."""

    def interrupt(self) -> None:
        """Stop the CPUs if they run."""

    def resumed(self) -> None:
        """Note that something else resumed the machine; stop it again if the host has paused it."""


class MachineOwner:
    """The owner of a QEMU that only we control."""

    reboot_action = "shutdown"
    """QEMU's action (QMP's set-action) when the guest asks for a reset: it stops, so that protection ends first."""

    def __init__(self, run: Owned) -> None:
        self._run = run

    def event(self, event: QmpEvent) -> None:
        """React to ``event``."""
        if wants_reset(event):
            self._run.reset()
        elif (stop := stop_for(event)) is not None:
            self._run.finish(self._run.explained(stop))

    def final(self, stop: Stop) -> Stop:
        """Return the end that the run comes to with ``stop``; called once."""
        return stop

    # --- the machine is stopped ---

    @property
    def holds(self) -> bool:
        """Whether the machine must be stopped for its owner."""
        return False

    @property
    def resetting(self) -> bool:
        """Whether a reset is under way that the guest did not ask for."""
        return False

    def interrupted(self) -> bool:
        """The CPUs were stopped, not by us; returns whether they stay stopped until ``Owned.resumed``."""
        return False

    def trapped(self) -> None:
        """A CPU has stopped at a breakpoint: so the machine has run."""

    # --- resets that come without an event ---

    def breakpoints(self) -> Collection[int]:
        """Return the addresses to stop at, in addition to those found in the guest's code."""
        return ()

    def was_reset(self, cpu: QemuCpu) -> bool:
        """Whether ``cpu``, at a breakpoint, shows that the machine was reset meanwhile."""
        return False

    def asks_for_reset(self, cpu: QemuCpu) -> bool:
        """Whether ``cpu`` is about to execute an instruction with which QEMU would immediately reset the machine."""
        return False

    def reset(self) -> None:
        """Reset the machine because of :meth:`was_reset` or :meth:`asks_for_reset`."""
        self._run.reset()


OwnerFactory: TypeAlias = Callable[[Owned], MachineOwner]
