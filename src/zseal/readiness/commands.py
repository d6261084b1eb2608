"""The programs whose answers describe a host: their arguments, and the names of their answers in a capture."""

from __future__ import annotations

import dataclasses
import re

_FILTERED_LOG_LINE = re.compile(r"prot_virt|protvirt|ultravisor|secure.storage|\bkvm[-: ]", re.IGNORECASE)


def _only_relevant_log_lines(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if _FILTERED_LOG_LINE.search(line))


@dataclasses.dataclass(frozen=True)
class HostCommand:
    """One question to a host.

    ``name`` is the file stem below ``commands/`` in a capture. ``programs`` are tried in order, the first installed
    one is run with ``arguments``. With ``log``, only lines about protected virtualization are kept of the output.
    """

    name: str
    programs: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    log: bool = False

    def clean(self, output: str) -> str:
        """Return the part of ``output`` to keep."""
        return _only_relevant_log_lines(output) if self.log else output


# the Red Hat family calls the s390x build on an s390x host qemu-kvm, and puts it into libexec
QEMU_PROGRAMS = ("qemu-system-s390x", "/usr/libexec/qemu-kvm", "qemu-kvm")

UNAME = HostCommand("uname", ("uname",), ("-srvm",))
KERNEL_LOG = HostCommand("kernel-log", ("dmesg",), log=True)
KERNEL_JOURNAL = HostCommand("kernel-journal", ("journalctl",), ("-k", "-b", "--no-pager", "-o", "cat"), log=True)
QEMU_VERSION = HostCommand("qemu-version", QEMU_PROGRAMS, ("--version",))
QEMU_OBJECTS = HostCommand("qemu-objects", QEMU_PROGRAMS, ("-object", "help"))
LIBVIRT_VERSION = HostCommand("libvirt-version", ("virsh",), ("--version",))
_PROTECTED_TARGET = ("--virttype", "kvm", "--arch", "s390x", "--machine", "s390-ccw-virtio")
DOMAIN_CAPABILITIES = HostCommand(
    "domcapabilities", ("virsh",), ("--connect", "qemu:///system", "domcapabilities", *_PROTECTED_TARGET)
)
HOST_VALIDATE = HostCommand("virt-host-validate", ("virt-host-validate",), ("qemu",))
PVIMG_VERSION = HostCommand("pvimg-version", ("pvimg",), ("--version",))
GENPROTIMG_VERSION = HostCommand("genprotimg-version", ("genprotimg",), ("--version",))

ALL_COMMANDS = (
    UNAME,
    KERNEL_LOG,
    KERNEL_JOURNAL,
    QEMU_VERSION,
    QEMU_OBJECTS,
    LIBVIRT_VERSION,
    DOMAIN_CAPABILITIES,
    HOST_VALIDATE,
    PVIMG_VERSION,
    GENPROTIMG_VERSION,
)
