"""A Kata Containers configuration (configuration-qemu-se.toml)."""

from __future__ import annotations

import json

from zseal.domain.export.interface import Exported, Exporter, Notes, memory_of, vcpus_of
from zseal.domain.export.shape import misfits
from zseal.domain.model import Domain
from zseal.errors import InputError, ZsealError

# The settings of [hypervisor.qemu] and [agent.kata] that are written here.
SCHEMA = {
    "hypervisor.qemu": {
        "path": str,
        "kernel": str,
        "machine_type": ("s390-ccw-virtio",),
        "confidential_guest": bool,
        "default_vcpus": int,
        "default_maxvcpus": int,
        "default_memory": int,
        "shared_fs": ("none",),
        "enable_hugepages": bool,
        "enable_iommu": bool,
        "enable_virtio_mem": bool,
        "block_device_driver": ("virtio-blk-ccw",),
    },
    "agent.kata": {"dial_timeout": int},
}
DIAL_TIMEOUT = 90


class KataExporter(Exporter):
    """The settings that make a Kata runtime start this image as a Secure Execution guest."""

    def export(self, domain: Domain) -> Exported:
        """See :meth:`Exporter.export`. Raises InputError for a domain that boots from disk."""
        if domain.kernel is None:
            hint = "name the image in <kernel>"
            raise InputError(
                "Kata boots the image directly, but the domain boots from a disk", where=domain.document.name, hint=hint
            )
        memory = memory_of(domain)
        if memory % (1 << 20):
            raise InputError("Kata needs whole MiB of memory", where=domain.document.name)
        document: dict[str, dict[str, object]] = {
            "hypervisor.qemu": {
                "path": self._emulator(domain),
                "kernel": domain.kernel.value,
                "machine_type": "s390-ccw-virtio",
                "confidential_guest": True,
                "default_vcpus": vcpus_of(domain),
                "default_maxvcpus": vcpus_of(domain),
                "default_memory": memory >> 20,
                "shared_fs": "none",
                "enable_hugepages": False,
                "enable_iommu": False,
                "enable_virtio_mem": False,
                "block_device_driver": "virtio-blk-ccw",
            },
            "agent.kata": {"dial_timeout": DIAL_TIMEOUT},
        }
        wrong = misfits(document, SCHEMA)
        if wrong:  # only a mistake of zseal's own gets here
            raise ZsealError(f"the exported configuration does not fit Kata's: {wrong[0]}")
        return Exported(self._toml(document), self._notes(domain))

    @staticmethod
    def _emulator(domain: Domain) -> str:
        emulator = domain.devices.find("emulator")
        return emulator.value if emulator is not None and emulator.value else "/usr/bin/qemu-system-s390x"

    @staticmethod
    def _toml(document: dict[str, dict[str, object]]) -> str:
        sections = []
        for name, settings in document.items():
            # strings, numbers and booleans are written the same in TOML and JSON
            lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
            sections.append("\n".join([f"[{name}]", *lines]))
        return "\n\n".join(sections) + "\n"

    @staticmethod
    def _notes(domain: Domain) -> tuple[str, ...]:
        notes = Notes()
        notes.add("the image must contain Kata's own ramdisk with its agent; these settings only start it")
        notes.add("these settings replace those in configuration-qemu-se.toml; keep the rest of that file")
        if any(domain.devices.all("disk", "interface", "filesystem")):
            notes.add("disks, interfaces and shares come from the pod, not from the domain")
        return notes.lines()
