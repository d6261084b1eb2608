"""A guest whose storage does not begin at 0 of its address space: which calls take the main storage origin with it."""

from __future__ import annotations

import dataclasses

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, CpuState, LargeFrame, PageCall, Share
from zseal.formats.uvcb import (
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    FrameUvcb,
    GuestPageUvcb,
    HandleUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UnpackUvcb,
    UvcbHeader,
)
from zseal.model.image import ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.ultravisor import MappedSpace, PrefixIntercept

ORIGIN, SIZE = 6 * MIB, 2 * MIB
IMAGE_ADDRESS, PAGE = 0x10000, 0x30000
ASCE = 0x88107


@dataclasses.dataclass
class Moved:
    """A guest of 2 MiB that its host maps from 6 MiB on."""

    machine: ModelMachine
    image: ModelImage
    space: MappedSpace
    handle: int
    cpu: int

    def rc(self, block: UvcbHeader) -> int:
        return self.machine.host.issue(block)[1].rc

    def map(self, address: int) -> int:
        """Give guest absolute ``address`` a frame; return that."""
        frame = self.machine.host.frames.take()
        self.space.map((ORIGIN + address) >> PAGE_SHIFT, frame)
        return frame

    def unpack(self, gaddr: int) -> int:
        part = self.image.components[0]
        return self.rc(
            UnpackUvcb.call(Command.UNPACK_IMG, guest_handle=self.handle, gaddr=gaddr, tweak_prefix=part.prefix)
        )

    def page_call(self, command: Command, gaddr: int) -> int:
        return self.rc(GuestPageUvcb.call(command, guest_handle=self.handle, gaddr=gaddr))


@pytest.fixture
def moved(machine: ModelMachine) -> Moved:
    host, settings = machine.host, machine.ultravisor.settings
    host.initialise()
    image, space = seal_image([(IMAGE_ADDRESS, b"kernel")], [machine.public_key]), MappedSpace((ORIGIN + SIZE) >> 12)
    host.uv.register_address_space(ASCE, space)
    handle = host.create_configuration(
        CreateConfUvcb.call(
            Command.CREATE_SEC_CONF,
            conf_base_stor_origin=host.frames.take(settings.conf_base_storage >> PAGE_SHIFT) << PAGE_SHIFT,
            conf_stor_origin_virt=host.frames.take(settings.variable_storage(SIZE) >> PAGE_SHIFT) << PAGE_SHIFT,
            guest_stor_origin=ORIGIN,
            guest_stor_len=SIZE,
            guest_sca=host.frames.take(4) << PAGE_SHIFT,
            guest_asce=ASCE,
        )
    )
    cpu = host.call(
        CreateCpuUvcb.call(
            Command.CREATE_SEC_CPU,
            guest_handle=handle,
            stor_origin=host.frames.take() << PAGE_SHIFT,
            state_origin=host.frames.take() << PAGE_SHIFT,
        )
    ).cpu_handle
    header = host.frames.take() << PAGE_SHIFT
    host.uv.write(header, image.header)
    host.call(
        SetParametersUvcb.call(
            Command.SET_SEC_CONF_PARAMS,
            guest_handle=handle,
            sec_header_origin_virt=header,
            sec_header_len=len(image.header),
        )
    )
    found = Moved(machine, image, space, handle, cpu)
    host.uv.write(found.map(IMAGE_ADDRESS) << PAGE_SHIFT, image.components[0].stored)
    return found


@pytest.fixture
def running(moved: Moved) -> Moved:
    assert moved.unpack(IMAGE_ADDRESS) == 1
    assert moved.rc(HandleUvcb.call(Command.VERIFY_IMG, handle=moved.handle)) == 1
    start = CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=moved.cpu, state=CpuState.OPERATING_LOAD)
    assert moved.rc(start) == 1
    return moved


def test_images_are_unpacked_where_they_were_sealed_for(moved: Moved) -> None:
    for wrong in (ORIGIN + IMAGE_ADDRESS, SIZE, ORIGIN):
        assert moved.unpack(wrong) == PageCall.OUTSIDE.rc
    assert moved.unpack(IMAGE_ADDRESS) == 1
    assert moved.rc(HandleUvcb.call(Command.VERIFY_IMG, handle=moved.handle)) == 1


def test_runs_of_pages_are_unpacked_there_too(moved: Moved) -> None:
    part = moved.image.components[0]
    moved.machine.host.uv.unpack_run(moved.handle, IMAGE_ADDRESS, len(part.stored), prefix=part.prefix)
    assert moved.rc(HandleUvcb.call(Command.VERIFY_IMG, handle=moved.handle)) == 1


def test_pages_are_imported_and_unpinned_by_where_they_are_mapped(running: Moved) -> None:
    frame = running.map(PAGE)
    assert running.page_call(Command.CONV_TO_SEC_STOR, PAGE) == PageCall.OUTSIDE.rc
    assert running.page_call(Command.CONV_TO_SEC_STOR, ORIGIN + PAGE) == 1
    firmware = running.machine.ultravisor.firmware
    firmware.guest_write(running.handle, PAGE, ShareUvcb.call(Command.SET_SHARED_ACCESS, paddr=PAGE).pack())
    assert firmware.guest_call(running.handle, PAGE) == 0
    assert running.machine.host.uv.is_shared(running.handle, PAGE, PAGE_SIZE)
    assert running.rc(FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame << PAGE_SHIFT)) == 1
    assert running.page_call(Command.UNPIN_PAGE_SHARED, PAGE) == PageCall.OUTSIDE.rc
    assert running.page_call(Command.UNPIN_PAGE_SHARED, ORIGIN + PAGE) == 1


def test_guests_share_by_their_own_addresses(running: Moved) -> None:
    running.map(PAGE)
    assert running.page_call(Command.CONV_TO_SEC_STOR, ORIGIN + PAGE) == 1
    firmware = running.machine.ultravisor.firmware
    block = ShareUvcb.call(Command.SET_SHARED_ACCESS, paddr=ORIGIN + PAGE)
    firmware.guest_write(running.handle, PAGE, block.pack())
    assert firmware.guest_call(running.handle, PAGE) == 1
    assert UvcbHeader.unpack(firmware.guest_read(running.handle, PAGE, 8)).rc == Share.ADDRESS.rc


def test_the_host_gets_addresses_with_the_origin(running: Moved) -> None:
    firmware = running.machine.ultravisor.firmware
    with pytest.raises(ProgramInterruption) as caught:
        firmware.guest_read(running.handle, PAGE, 1)
    assert (caught.value.code, caught.value.address) == (ProgramCode.PAGE_TRANSLATION, ORIGIN + PAGE)
    with pytest.raises(PrefixIntercept) as intercept:
        firmware.enter(running.handle, running.cpu, asce=ASCE)
    assert intercept.value.addresses == (ORIGIN, ORIGIN + PAGE_SIZE)
    with pytest.raises(ProgramInterruption) as caught:
        firmware.guest_read(running.handle, SIZE, 1)
    assert caught.value.code is ProgramCode.ADDRESSING


def test_large_frames_are_verified_by_where_they_are_mapped(running: Moved) -> None:
    running.space.map_large((ORIGIN + MIB) >> PAGE_SHIFT, running.machine.host.frames.take(256, align=256))
    running.machine.host.uv.import_run(running.handle, ORIGIN + MIB, MIB)
    assert running.page_call(Command.VERIFY_LARGE_FRAME, MIB) == LargeFrame.RANGE.rc
    assert running.page_call(Command.VERIFY_LARGE_FRAME, ORIGIN + MIB) == 1
