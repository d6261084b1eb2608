"""Run a domain as a protected guest: :class:`zseal.guest.guest.Guest` with libvirt between it and QEMU."""

from __future__ import annotations

import contextlib

from zseal.domain.launch.translate import Translated
from zseal.engine.libvirt.engine import LibvirtEngine
from zseal.engine.machine import MachineConfig
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.guest import Guest
from zseal.guest.image import inspect_image
from zseal.hostkeys.machine import Machine
from zseal.jsonvalue import Json
from zseal.libvirt.connection import Connection
from zseal.linux import kernel_file


class DomainGuest(Guest):
    """One run of the ``translated`` domain on ``machine``, started through ``connection``.

    ``console`` False leaves the domain's console to others, virsh for example; ``name``, ``number_name`` and ``record``
    are Guest's. Raises ZsealError as Guest does, and where libvirt does not start the domain.
    """

    def __init__(  # the parent describes QEMU itself
        self,
        translated: Translated,
        *,
        connection: Connection,
        machine: Machine,
        console: bool = True,
        timeout: float | None = None,
        io_policy: IoPolicy | str = IoPolicy.ENFORCE,
        name: str | None = None,
        number_name: bool = False,
        record: bool = False,
    ) -> None:
        policy = IoPolicy.of(io_policy)
        with contextlib.ExitStack() as files:
            kernel, entry = None, kernel_file.ENTRY
            subject: dict[str, Json] = {
                "image": str(translated.image) if translated.image is not None else None,
                "machine": machine.name,
                "domain": translated.document.name,
                "libvirt": connection.uri,
                "translated": list(translated.changes),
            }
            if translated.image is not None:
                boot = inspect_image(translated.image)
                files.callback(boot.close)
                boot.check_memory(translated.memory)
                kernel, entry = boot.descriptor, boot.entry
                subject["image_bytes"] = boot.size
            config = MachineConfig(kernel=kernel, memory=translated.memory, cpus=translated.cpus)
            engine = LibvirtEngine(connection, translated, config, entry=entry, console=console)
            files.callback(engine.close)
            self._prepare(
                config,
                subject,
                files,
                engine=engine,
                keys=machine.keys,
                timeout=timeout,
                io_policy=policy,
                name=name,
                number_name=number_name,
                record=record,
            )
