"""A guest that copies its input and output through bounce buffers as a protected one does, and is not protected.

Linux on s390 has bounce buffers only where it believes to run protected, whatever ``swiotlb=`` says. So this guest is
made to believe it: firmware says that there is an ultravisor, which agrees to everything and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

from benchmarks.common import Subject
from zseal.arch.psw import Psw
from zseal.arch.storage import OperandMemory
from zseal.engine.devices import Disk
from zseal.engine.interface import Series
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.engine import QemuEngine
from zseal.engine.qemu.launch import LocalLauncher
from zseal.formats.ipib import Ipib
from zseal.formats.uv_codes import Command, Generic
from zseal.formats.uvcb import HEADER_SIZE, RC_OFFSET, QuiUvcb, UvcbHeader
from zseal.guest.guest import DEFAULT_MEMORY, Guest
from zseal.hypervisor.diag308 import Firmware
from zseal.linux import kernel_file
from zseal.ultravisor.calls.machine import installed_calls

_CALLS = (Command.QUI, Command.SET_SHARED_ACCESS, Command.REMOVE_SHARED_ACCESS)


class Indulgent:
    """A hypervisor (``zseal.hypervisor.diag308.Hypervisor``) whose guest is told that all its calls succeeded."""

    protected = True

    def protect(self, block: Ipib) -> Psw:
        raise NotImplementedError("the guest believes itself protected already")

    def reset_guest(self, *, cpu: int, clear: bool) -> None:
        """There is nothing to reset."""

    def guest_call(self, cpu: int, memory: OperandMemory, address: int) -> int:
        """Answer what there is to know, and agree."""
        header = UvcbHeader.unpack(memory.read(address, HEADER_SIZE))
        if header.command == Command.QUI:
            information = QuiUvcb(inst_calls=installed_calls(_CALLS)).pack()
            memory.write(address + HEADER_SIZE, information[HEADER_SIZE : header.length])
        memory.write(address + RC_OFFSET, Generic.EXECUTED.rc.to_bytes(2, "big") + bytes(2))
        return 0

    def series(self, cpu: int, memory: OperandMemory, address: int) -> Series | None:
        """Let each call come alone."""
        return None


def bouncing(subject: Subject, *, memory: int = DEFAULT_MEMORY, disks: Sequence[Disk] = ()) -> Guest:
    """Return such a guest, not started, of the kernel, ramdisk and command line of ``subject``."""
    engines: list[QemuEngine] = []

    def create(_name: str, config: MachineConfig, *, program: str | None) -> QemuEngine:
        engines.append(QemuEngine(config, entry=kernel_file.ENTRY, launcher=LocalLauncher(program)))
        return engines[0]

    with mock.patch("zseal.guest.guest.create_engine", create):
        guest = subject.plain(memory=memory, disks=disks)
    (engine,) = engines
    if engine.sites is not None:
        engine.sites.protected()  # no image comes first
    mock.patch.object(guest._session, "trap", Firmware(engine, Indulgent()).trap).start()
    return guest
