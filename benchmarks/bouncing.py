"""A guest that copies its input and output through bounce buffers as a protected one does, and is not protected.

Linux on s390 has bounce buffers only where it believes to run protected, whatever ``swiotlb=`` says. So this guest is
made to believe it: firmware says that there is an ultravisor, which agrees to everything and does nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from benchmarks.common import Subject
from zseal.arch.psw import Psw
from zseal.arch.storage import OperandMemory
from zseal.engine.devices import Disk
from zseal.engine.interface import Action, Series, Trap
from zseal.engine.machine import MachineConfig, fixed_memory_size
from zseal.engine.qemu.engine import QemuEngine
from zseal.formats.ipib import Ipib
from zseal.formats.uv_codes import Command, Generic
from zseal.formats.uvcb import HEADER_SIZE, RC_OFFSET, QuiUvcb, UvcbHeader
from zseal.guest.boot import UNPROTECTED, Boot, Plan, Unprotected
from zseal.guest.guest import Guest
from zseal.guest.options import DEFAULT_MEMORY, GuestOptions
from zseal.guest.protection import Protection, Run
from zseal.hostkeys.machine import Machine
from zseal.hypervisor.diag308 import Firmware
from zseal.linux import kernel_file
from zseal.ultravisor.calls.machine import installed_calls

_CALLS = (Command.QUI, Command.SET_SHARED_ACCESS, Command.REMOVE_SHARED_ACCESS)


class Indulgent:
    """A hypervisor (``zseal.hypervisor.diag308.Hypervisor``) that answers every call of its guest with success."""

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


class _Believing(Protection):
    """What the guest takes for the firmware of a machine that protects it."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._firmware = Firmware(run.engine, Indulgent())

    def trap(self, trap: Trap) -> Action:
        return self._firmware.trap(trap)


@dataclasses.dataclass(frozen=True)
class _BouncingKernel(Boot):
    """The kernel of ``subject``, on an engine that stops for it from its first instruction on."""

    subject: Subject

    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        kernel, ramdisk = (files.enter_context(path.open("rb")) for path in (self.subject.kernel, self.subject.ramdisk))
        config = MachineConfig(
            kernel=kernel.fileno(),
            ramdisk=ramdisk.fileno(),
            cmdline=self.subject.cmdline,
            memory=fixed_memory_size(options.memory),
            disks=tuple(options.disks),
        )
        engine = QemuEngine(config, entry=kernel_file.ENTRY)
        files.callback(engine.close)
        if engine.sites is not None:
            engine.sites.protected()  # no image comes first
        return Plan(engine=engine, protect=_Believing, subject={"memory": config.memory, "cpus": 1})


def bouncing(subject: Subject, *, memory: int = DEFAULT_MEMORY, disks: Sequence[Disk] = ()) -> Guest:
    """Return such a guest, not started, of the kernel, ramdisk and command line of ``subject``."""
    return Guest(_BouncingKernel(subject), machine=UNPROTECTED, memory=memory, disks=disks)
