"""A host in Python: a hypervisor that issues the real calls and pages its guests.

It does what Linux (KVM) and QEMU do on a real machine, in the same way: a control block in storage for each call,
donated memory, demand paging by program interruption. It can do nothing that it cannot do on real hardware.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from zseal.arch.dat import ASCE_PRIVATE_SPACE
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.errors import ZsealError
from zseal.formats.uv_codes import Command, CpuState
from zseal.formats.uvcb import (
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    DestroyConfFastUvcb,
    InitUvcb,
    SetParametersUvcb,
    UnpackUvcb,
    UvcbHeader,
)
from zseal.hypervisor.uvcalls import CallFailed, CallingHost
from zseal.model.frames import FrameAllocator
from zseal.model.image import ModelImage
from zseal.ultravisor.addressspace import MappedSpace
from zseal.ultravisor.host import HostInterface

_SCA_PAGES = 4
_HEADER_PAGES = 2
_ASCE_TYPE = 0x7  # region-third table, full length

BlockT = TypeVar("BlockT", bound=UvcbHeader)


class HostError(ZsealError):
    """The model host itself refuses an operation."""


@dataclasses.dataclass
class ModelConfiguration:
    """The host's record of one protected guest. Frames are numbers of 4 KiB frames."""

    handle: int
    """0 if it is already destroyed."""
    pages: int
    space: MappedSpace
    asce: int
    base_frame: int
    variable_frames: int
    sca_frame: int
    cpus: list[ModelCpu] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ModelCpu:
    """A secure CPU: its handle, the frame donated for it and that of its SIE block."""

    handle: int
    number: int
    storage_frame: int
    sie_frame: int


class ModelHost(CallingHost):
    """A hypervisor with ``frames`` to give to guests. INIT_UV donates the storage from ``base_origin`` on."""

    def __init__(self, uv: HostInterface, frames: FrameAllocator, *, base_origin: int) -> None:
        super().__init__(uv, frames.take() << PAGE_SHIFT)
        self.frames = frames
        self._base_origin = base_origin
        self._next_asce = 1
        self._aside: ModelConfiguration | None = None

    def initialise(self) -> None:
        """INIT_UV, as at the host's boot; raises CallFailed."""
        size = self.uv.settings.uv_base_storage
        self.call(InitUvcb.call(Command.INIT_UV, stor_origin=self._base_origin, stor_len=size))

    # ---------------------------------------------------------------- life of a configuration

    def create(self, memory: int, cpus: int = 1) -> ModelConfiguration:
        """Create a configuration with ``memory`` bytes of guest storage and its CPUs; raises CallFailed."""
        settings = self.uv.settings
        if not self.uv.initialised:
            self.initialise()
        space = MappedSpace(memory >> PAGE_SHIFT)
        asce = self._next_asce << 12 | ASCE_PRIVATE_SPACE | _ASCE_TYPE
        self._next_asce += 1
        variable = settings.variable_storage(memory) >> PAGE_SHIFT
        configuration = ModelConfiguration(
            handle=0,
            pages=memory >> PAGE_SHIFT,
            space=space,
            asce=asce,
            base_frame=self.frames.take(settings.conf_base_storage >> PAGE_SHIFT),
            variable_frames=self.frames.take(variable),
            sca_frame=self.frames.take(_SCA_PAGES),
        )
        self.uv.register_address_space(asce, space)
        try:
            configuration.handle = self.create_configuration(
                CreateConfUvcb.call(
                    Command.CREATE_SEC_CONF,
                    conf_base_stor_origin=configuration.base_frame << PAGE_SHIFT,
                    conf_stor_origin_virt=configuration.variable_frames << PAGE_SHIFT,
                    guest_stor_len=memory,
                    guest_sca=configuration.sca_frame << PAGE_SHIFT,
                    guest_asce=asce,
                )
            )
        except CallFailed:
            self._release(configuration)
            raise
        for number in range(cpus):
            self.create_cpu(configuration, number)
        return configuration

    def create_cpu(self, configuration: ModelConfiguration, number: int) -> ModelCpu:
        """Create one CPU; raises CallFailed."""
        size = self.uv.settings.cpu_storage >> PAGE_SHIFT
        storage, sie = self.frames.take(size), self.frames.take()
        try:
            answer = self.call(
                CreateCpuUvcb.call(
                    Command.CREATE_SEC_CPU,
                    guest_handle=configuration.handle,
                    stor_origin=storage << PAGE_SHIFT,
                    num=number,
                    state_origin=sie << PAGE_SHIFT,
                )
            )
        except CallFailed:
            self.frames.give_back(storage, size)
            self.frames.give_back(sie)
            raise
        cpu = ModelCpu(answer.cpu_handle, number, storage, sie)
        configuration.cpus.append(cpu)
        return cpu

    def map_page(self, configuration: ModelConfiguration, page: int) -> int:
        """Give guest page ``page`` a frame unless it has one, and return it."""
        frame = configuration.space.resolve(page)
        if frame < 0:
            frame = self.frames.take()
            configuration.space.map(page, frame)
        return frame

    def set_parameters(self, configuration: ModelConfiguration, header: bytes) -> None:
        """SET_SEC_CONF_PARAMS with a copy of ``header`` in host storage; raises CallFailed."""
        frame = self.frames.take(_HEADER_PAGES)
        try:
            self.uv.write(frame << PAGE_SHIFT, header[: _HEADER_PAGES * PAGE_SIZE])
            self.call(
                SetParametersUvcb.call(
                    Command.SET_SEC_CONF_PARAMS,
                    guest_handle=configuration.handle,
                    sec_header_origin_virt=frame << PAGE_SHIFT,
                    sec_header_len=len(header),
                )
            )
        finally:
            self.frames.give_back(frame, _HEADER_PAGES)

    def load(self, configuration: ModelConfiguration, address: int, stored: bytes) -> None:
        """Put a component's stored pages into guest storage, as a bootloader or QEMU does before it is protected."""
        for at in range(0, len(stored), PAGE_SIZE):
            frame = self.map_page(configuration, (address + at) >> PAGE_SHIFT)
            self.uv.write(frame << PAGE_SHIFT, stored[at : at + PAGE_SIZE])

    def unpack(self, configuration: ModelConfiguration, address: int, length: int, prefix: int) -> None:
        """UNPACK_IMG for each page; raises CallFailed."""
        for at in range(0, length, PAGE_SIZE):
            self.call(
                UnpackUvcb.call(
                    Command.UNPACK_IMG,
                    guest_handle=configuration.handle,
                    gaddr=address + at,
                    tweak_prefix=prefix,
                    tweak_offset=at,
                )
            )

    def protect(self, configuration: ModelConfiguration, image: ModelImage) -> None:
        """Set parameters, load, unpack, verify, let CPU 0 load its PSW; raises CallFailed."""
        self.set_parameters(configuration, image.header)
        for part in image.components:
            self.load(configuration, part.address, part.stored)
            self.unpack(configuration, part.address, len(part.stored), part.prefix)
        self.call_handle(Command.VERIFY_IMG, configuration.handle)
        self.set_state(configuration.cpus[0], CpuState.OPERATING_LOAD)

    def set_state(self, cpu: ModelCpu, state: CpuState) -> None:
        """CPU_SET_STATE; raises CallFailed."""
        self.call(CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu.handle, state=state))

    def reset(self, configuration: ModelConfiguration) -> None:
        """Carry out a reset that the guest asked for; raises CallFailed."""
        for cpu in configuration.cpus:
            self.set_state(cpu, CpuState.STOPPED)
        self.call_handle(Command.SET_UNSHARE_ALL, configuration.handle)
        self.call_handle(Command.PREPARE_RESET, configuration.handle)
        for cpu in configuration.cpus:
            self.call_handle(Command.CPU_RESET_CLEAR, cpu.handle)
        self.set_state(configuration.cpus[0], CpuState.OPERATING_LOAD)

    def destroy_cpu(self, configuration: ModelConfiguration, cpu: ModelCpu) -> None:
        """DESTROY_SEC_CPU; raises CallFailed, and the donated storage is then lost, as in Linux."""
        self.uv.interrupt(cpu.handle)
        self.call_handle(Command.DESTROY_SEC_CPU, cpu.handle)
        configuration.cpus.remove(cpu)
        self.frames.give_back(cpu.storage_frame, self.uv.settings.cpu_storage >> PAGE_SHIFT)
        self.frames.give_back(cpu.sie_frame)

    def destroy(self, configuration: ModelConfiguration, *, fast: bool = False, keep_pages: bool = False) -> None:
        """Destroy CPUs, configuration and, unless ``keep_pages``, every page; raises CallFailed."""
        for cpu in list(configuration.cpus):
            self.destroy_cpu(configuration, cpu)
        if fast:
            self.call(DestroyConfFastUvcb.call(Command.DESTROY_SEC_CONF_FAST, handle=configuration.handle))
        else:
            self.call_handle(Command.DESTROY_SEC_CONF, configuration.handle)
        self._release(configuration)
        if not keep_pages:
            self.free_pages(configuration)

    def set_aside(self, configuration: ModelConfiguration) -> None:
        """Release a guest immediately and its pages later, as KVM does on a reboot; raises HostError for a second one.

        On a machine without DESTROY_SEC_CONF_FAST only the CPUs go immediately.
        """
        if self._aside is not None:
            raise HostError("one guest is already set aside", hint="finish with it first")
        if Command.DESTROY_SEC_CONF_FAST in self.uv.settings.missing_calls:
            for cpu in list(configuration.cpus):
                self.destroy_cpu(configuration, cpu)
        else:
            self.destroy(configuration, fast=True, keep_pages=True)
            configuration.handle = 0
        self._aside = configuration

    def finish_aside(self) -> None:
        """Destroy the rest of the guest that was set aside; raises HostError if there is none."""
        if self._aside is None:
            raise HostError("no guest is set aside")
        self.free_pages(self._aside)
        if self._aside.handle:
            self.destroy(self._aside)
        self._aside = None

    def free_pages(self, configuration: ModelConfiguration) -> None:
        """Destroy what a former guest left in its frames, and free them."""
        for page, frame in configuration.space.mapped():
            self.uv.destroy_run(frame << PAGE_SHIFT, PAGE_SIZE)
            configuration.space.unmap(page)
            self.frames.give_back(frame)

    def _release(self, configuration: ModelConfiguration) -> None:
        settings = self.uv.settings
        self.uv.forget_address_space(configuration.asce)
        self.frames.give_back(configuration.base_frame, settings.conf_base_storage >> PAGE_SHIFT)
        variable = settings.variable_storage(configuration.pages << PAGE_SHIFT) >> PAGE_SHIFT
        self.frames.give_back(configuration.variable_frames, variable)
        self.frames.give_back(configuration.sca_frame, _SCA_PAGES)
