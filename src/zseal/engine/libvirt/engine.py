"""The QEMU engine on a QEMU that libvirt owns and can reset and pause."""

from __future__ import annotations

from zseal.engine.libvirt.machine import DomainToStart, LibvirtLauncher
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.managed import ManagedOwner
from zseal.engine.qemu.ownership import Owned
from zseal.libvirt.connection import Connection


class LibvirtEngine(QemuEngine):
    """Executes a domain that runs on this computer, through ``connection``; ``entry`` is the address of its image."""

    name = "libvirt"

    def __init__(
        self, connection: Connection, domain: DomainToStart, config: MachineConfig, *, entry: int, console: bool
    ) -> None:
        self._domain_launcher = LibvirtLauncher(connection, domain, console=console)

        def owner(run: Owned) -> ManagedOwner:
            return ManagedOwner(run, entry=entry, kernel=config.kernel, ends_at_reset=domain.ends_at_reset)

        super().__init__(config, entry=entry, launcher=self._domain_launcher, owner=owner)

    @property
    def domain(self) -> object:
        """libvirt's domain object (a libvirt.virDomain)."""
        return self._domain_launcher.created
