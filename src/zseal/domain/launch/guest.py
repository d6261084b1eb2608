"""Run a domain as a protected guest: :class:`zseal.guest.guest.Guest` with libvirt between it and QEMU."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Unpack

from zseal.domain.launch.translate import Translated
from zseal.engine.libvirt.engine import LibvirtEngine
from zseal.engine.machine import MachineConfig
from zseal.guest.boot import Boot, Plan, Unprotected, protection_by
from zseal.guest.guest import Guest
from zseal.guest.image import inspect_image
from zseal.guest.options import GuestOptions, RunKeywords
from zseal.hostkeys.machine import Machine
from zseal.jsonvalue import Json
from zseal.libvirt.connection import Connection
from zseal.linux import kernel_file


class DomainGuest(Guest):
    """One run of the ``translated`` domain on ``machine``, started through ``connection``.

    ``console`` False leaves the domain's console to others, virsh for example.
    :class:`zseal.guest.options.RunOptions` explains the other keyword arguments: the domain itself says what its
    machine has. Raises ZsealError as Guest does, and where libvirt does not start the domain.
    """

    def __init__(
        self,
        translated: Translated,
        *,
        connection: Connection,
        machine: Machine,
        console: bool = True,
        **options: Unpack[RunKeywords],
    ) -> None:
        super().__init__(_DomainBoot(translated, connection, console=console), machine=machine, **options)


@dataclasses.dataclass(frozen=True)
class _DomainBoot(Boot):
    """What a domain boots: its image, or its disk."""

    translated: Translated
    connection: Connection
    console: bool

    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        """Have libvirt's engine run what the domain describes."""
        domain = self.translated
        kernel, entry, size = None, kernel_file.ENTRY, None
        if domain.image is not None:
            image = inspect_image(domain.image)
            files.callback(image.close)
            image.check_memory(domain.memory)
            kernel, entry, size = image.descriptor, image.entry, image.size
        config = MachineConfig(kernel=kernel, memory=domain.memory, cpus=domain.cpus)
        engine = LibvirtEngine(self.connection, domain, config, entry=entry, console=self.console)
        files.callback(engine.close)
        protect = protection_by(machine, domain.cpus, options)
        return Plan(engine=engine, protect=protect, subject=self._subject(machine, size))

    def _subject(self, machine: Machine | Unprotected, image_bytes: int | None) -> dict[str, Json]:
        domain = self.translated
        return {
            "image": None if domain.image is None else str(domain.image),
            **({"machine": machine.name} if isinstance(machine, Machine) else {}),
            "domain": domain.name,
            "libvirt": self.connection.uri,
            "translated": list(domain.changes),
            **({} if image_bytes is None else {"image_bytes": image_bytes}),
            "memory": domain.memory,
            "cpus": domain.cpus,
            "disks": [],
        }
