"""One situation for each call in which it does something: ``scene(machine)`` prepares it and returns the call."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.ultravisor.shadow.world import GuestBlock
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.header_tags import HeaderTags
from zseal.formats.se_header import SecretFlags, parse_header
from zseal.formats.uv_codes import Command, CpuState
from zseal.formats.uvcb import (
    AddSecretUvcb,
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    DestroyConfFastUvcb,
    FrameUvcb,
    GuestPageUvcb,
    HandleUvcb,
    InitUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UnpackUvcb,
    UvcbHeader,
)
from zseal.model.guest import ModelGuest
from zseal.model.host import ModelConfiguration
from zseal.model.image import ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.secret import Secret
from zseal.secrets import NewSecret, create_add_secret_request
from zseal.ultravisor import MappedSpace, Settings

SMALL = Settings(uv_base_storage=MIB, conf_base_storage=PAGE_SIZE, conf_virtual_base=PAGE_SIZE)
IMAGE_ADDRESS, BLOCK = 0x10000, 0x2000
REQUEST, OUTPUT, SIZE = 0x1000, 0x4000, 0x8000
Action = Callable[[], object]
Scene = Callable[[ModelMachine], Action]
RunScene = Callable[[ModelMachine], tuple[ModelGuest, Action]]


def call(machine: ModelMachine, block: UvcbHeader) -> Action:
    """Issue a call of the host; anything but success is a failure."""

    def issue() -> object:
        machine.host.uv.write(BLOCK, block.pack())
        if machine.host.uv.call(BLOCK):
            header = UvcbHeader.unpack(machine.host.uv.read(BLOCK, UvcbHeader.SIZE))
            raise AssertionError(f"{header.rc:#x} {header.rrc:#x}")
        return None

    return issue


def guest_of(machine: ModelMachine, *, pages: int = 0) -> ModelGuest:
    """A running guest that has written to ``pages`` pages from 0x40 on."""
    guest = ModelGuest(machine)
    guest.start()
    for page in range(0x40, 0x40 + pages):
        guest.write(page << PAGE_SHIFT, b"content of page %d" % page)
    return guest


def frame_of(guest: ModelGuest, page: int) -> int:
    return guest.configuration.space.resolve(page) << PAGE_SHIFT


def prepared(machine: ModelMachine) -> tuple[ModelConfiguration, ModelImage]:
    """A configuration whose header is set and whose image lies where it is to be unpacked."""
    image = seal_image([(IMAGE_ADDRESS, b"kernel" * 2000)], [machine.public_key])
    configuration = machine.host.create(MIB)
    machine.host.set_parameters(configuration, image.header)
    machine.host.load(configuration, IMAGE_ADDRESS, image.components[0].stored)
    return configuration, image


# ---------------------------------------------------------------- one scene for each call


def init(machine: ModelMachine) -> Action:
    return call(machine, InitUvcb.call(Command.INIT_UV, stor_origin=2 << 30, stor_len=MIB))


def create_configuration(machine: ModelMachine) -> Action:
    machine.host.initialise()
    take, asce = machine.host.frames.take, 0x77107
    machine.host.uv.register_address_space(asce, MappedSpace(256))
    return call(
        machine,
        CreateConfUvcb.call(
            Command.CREATE_SEC_CONF, conf_base_stor_origin=take() << PAGE_SHIFT, guest_stor_len=MIB,
            conf_stor_origin_virt=take(SMALL.variable_storage(MIB) >> PAGE_SHIFT) << PAGE_SHIFT,
            guest_sca=take(4) << PAGE_SHIFT, guest_asce=asce,
        ),
    )  # fmt: skip


def destroy_configuration(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=3)
    guest.share(0x40 << PAGE_SHIFT)
    machine.host.call(FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame_of(guest, 0x40)))
    machine.host.destroy_cpu(guest.configuration, guest.configuration.cpus[0])
    return call(machine, HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=guest.handle))


def destroy_configuration_fast(machine: ModelMachine) -> Action:
    handle = machine.host.create(MIB, 0).handle
    return call(machine, DestroyConfFastUvcb.call(Command.DESTROY_SEC_CONF_FAST, handle=handle))


def create_cpu(machine: ModelMachine) -> Action:
    take, handle = machine.host.frames.take, machine.host.create(MIB, 0).handle
    return call(
        machine,
        CreateCpuUvcb.call(
            Command.CREATE_SEC_CPU, guest_handle=handle, stor_origin=take() << 12, state_origin=take() << 12
        ),
    )


def destroy_cpu(machine: ModelMachine) -> Action:
    cpu = machine.host.create(MIB).cpus[0].handle
    return call(machine, HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=cpu))


def set_parameters(machine: ModelMachine) -> Action:
    image = seal_image([(IMAGE_ADDRESS, b"kernel")], [machine.public_key])
    handle = machine.host.create(MIB, 0).handle
    machine.host.uv.write(0x4000, image.header)
    return call(
        machine,
        SetParametersUvcb.call(
            Command.SET_SEC_CONF_PARAMS, guest_handle=handle, sec_header_origin_virt=0x4000,
            sec_header_len=len(image.header),
        ),
    )  # fmt: skip


def unpack(machine: ModelMachine) -> Action:
    configuration, image = prepared(machine)
    part = image.components[0]
    block = UnpackUvcb.call(
        Command.UNPACK_IMG, guest_handle=configuration.handle, gaddr=IMAGE_ADDRESS, tweak_prefix=part.prefix
    )
    return call(machine, block)


def unpack_what_another_guest_shares(machine: ModelMachine) -> Action:
    other = guest_of(machine, pages=1)
    other.share(0x40 << PAGE_SHIFT)
    configuration, image = prepared(machine)
    machine.host.uv.write(frame_of(other, 0x40), image.components[0].stored[:PAGE_SIZE])
    configuration.space.map(IMAGE_ADDRESS >> PAGE_SHIFT, frame_of(other, 0x40) >> PAGE_SHIFT)
    block = UnpackUvcb.call(
        Command.UNPACK_IMG, guest_handle=configuration.handle, gaddr=IMAGE_ADDRESS,
        tweak_prefix=image.components[0].prefix,
    )  # fmt: skip
    return call(machine, block)


def unpack_run(machine: ModelMachine) -> Action:
    configuration, image = prepared(machine)
    part = image.components[0]
    return lambda: machine.host.uv.unpack_run(configuration.handle, IMAGE_ADDRESS, len(part.stored), prefix=part.prefix)


def verify(machine: ModelMachine) -> Action:
    configuration, image = prepared(machine)
    part = image.components[0]
    machine.host.unpack(configuration, IMAGE_ADDRESS, len(part.stored), part.prefix)
    return call(machine, HandleUvcb.call(Command.VERIFY_IMG, handle=configuration.handle))


def import_unused(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    frame = machine.host.map_page(guest.configuration, 0x50)
    machine.host.uv.write(frame << PAGE_SHIFT, b"the host's own")
    return call(
        machine, GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=0x50 << PAGE_SHIFT)
    )


def _import_again(machine: ModelMachine, *, shared: bool) -> Action:
    guest = guest_of(machine, pages=1)
    if shared:
        guest.share(0x40 << PAGE_SHIFT)
    machine.host.uv.export_run(frame_of(guest, 0x40), PAGE_SIZE)
    return call(
        machine, GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=0x40 << PAGE_SHIFT)
    )


def import_exported(machine: ModelMachine) -> Action:
    return _import_again(machine, shared=False)


def import_shared(machine: ModelMachine) -> Action:
    return _import_again(machine, shared=True)


def _scattered(machine: ModelMachine) -> tuple[ModelGuest, int]:
    """A guest with private pages 0x40 to 0x47 in frames of which no two follow each other; the first of those."""
    guest, first = guest_of(machine), machine.host.frames.take(16)
    for number in range(8):
        guest.configuration.space.map(0x40 + number, first + number * 5 % 16)
    for page in range(0x40, 0x48):
        guest.write(page << PAGE_SHIFT, b"content of page %d" % page)
    return guest, first << PAGE_SHIFT


def import_run(machine: ModelMachine) -> tuple[ModelGuest, Action]:
    guest, first = _scattered(machine)
    machine.host.uv.export_run(first, 16 * PAGE_SIZE)
    return guest, lambda: machine.host.uv.import_run(guest.handle, 0x40 << PAGE_SHIFT, 8 * PAGE_SIZE)


def export(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    return call(machine, FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame_of(guest, 0x40)))


def export_shared(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    guest.share(0x40 << PAGE_SHIFT)
    return call(machine, FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame_of(guest, 0x40)))


def export_of_a_guest_that_is_gone(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    frame = frame_of(guest, 0x40)
    machine.host.destroy(guest.configuration, keep_pages=True)
    return call(machine, FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame))


def export_run(machine: ModelMachine) -> tuple[ModelGuest, Action]:
    guest, first = _scattered(machine)
    return guest, lambda: machine.host.uv.export_run(first, 16 * PAGE_SIZE)


def view(machine: ModelMachine) -> tuple[ModelGuest, Action]:
    guest, first = _scattered(machine)
    return guest, lambda: machine.host.uv.view(first, 3 * PAGE_SIZE)


def destroy_page(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    return call(machine, FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=frame_of(guest, 0x40)))


def verify_large_frame(machine: ModelMachine) -> Action:
    guest = ModelGuest(machine, memory=3 * MIB)
    guest.start()
    guest.configuration.space.map_large(256, machine.host.frames.take(256, align=256))
    machine.host.uv.import_run(guest.handle, MIB, MIB)
    return call(machine, GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=guest.handle, gaddr=MIB))


def pin(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    guest.share(0x40 << PAGE_SHIFT)
    return call(machine, FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame_of(guest, 0x40)))


def unpin(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    guest.share(0x40 << PAGE_SHIFT)
    machine.host.call(FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=frame_of(guest, 0x40)))
    return call(
        machine, GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=guest.handle, gaddr=0x40 << PAGE_SHIFT)
    )


def _guest_call(machine: ModelMachine, guest: ModelGuest, command: Command, page: int) -> Action:
    operands = GuestBlock(ShareUvcb.call(command, paddr=page << PAGE_SHIFT))

    def issue() -> None:
        assert machine.ultravisor.firmware.guest_call(guest.handle, 0, operands) == 0

    return issue


def share(machine: ModelMachine) -> Action:
    return _guest_call(machine, guest_of(machine, pages=1), Command.SET_SHARED_ACCESS, 0x40)


def share_what_was_never_used(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    frame = machine.host.map_page(guest.configuration, 0x50)
    machine.host.uv.write(frame << PAGE_SHIFT, b"the host's own")
    return _guest_call(machine, guest, Command.SET_SHARED_ACCESS, 0x50)


def unshare(machine: ModelMachine) -> Action:
    guest = guest_of(machine, pages=1)
    guest.share(0x40 << PAGE_SHIFT)
    return _guest_call(machine, guest, Command.REMOVE_SHARED_ACCESS, 0x40)


# ---------------------------------------------------------------- attestation and secrets


def _request_call(machine: ModelMachine, guest: ModelGuest, block: UvcbHeader, request: bytes = b"") -> Action:
    """A call of a guest whose request and output are beside its control block."""
    operands = GuestBlock(block, SIZE)
    operands.write(REQUEST, request)

    def issue() -> None:
        assert machine.ultravisor.firmware.guest_call(guest.handle, 0, operands) == 0

    return issue


def _secret(guest: ModelGuest, secret: NewSecret) -> bytes:
    tags = HeaderTags.of(parse_header(guest.image.header))
    return create_add_secret_request([guest.machine.public_key], tags=tags, secret=secret).pack()


def add_secret(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    block = AddSecretUvcb.call(Command.ADD_SECRET, request_addr_virt=REQUEST)
    return _request_call(machine, guest, block, _secret(guest, NewSecret.plaintext("name", Secret(b"value"))))


def replace_communication_key(machine: ModelMachine) -> Action:
    image = seal_image([(IMAGE_ADDRESS, b"kernel")], [machine.public_key], scf=SecretFlags.CCK_UPDATE)
    guest = ModelGuest(machine, image=image)
    guest.start()
    block = AddSecretUvcb.call(Command.ADD_SECRET, request_addr_virt=REQUEST)
    return _request_call(machine, guest, block, _secret(guest, NewSecret.update_cck(Secret(b"n" * 32))))


def lock_secrets(machine: ModelMachine) -> Action:
    return _request_call(machine, guest_of(machine), HandleUvcb.call(Command.LOCK_SECRETS))


# ---------------------------------------------------------------- CPUs, resets, everything


def _cpu_call(command: Command) -> Scene:
    def scene(machine: ModelMachine) -> Action:
        guest = guest_of(machine)
        cpu = guest.configuration.cpus[0].handle
        machine.host.uv.interrupt(cpu)
        machine.ultravisor.firmware.configuration(guest.handle).cpus[0].registers.general[3] = 77
        return call(machine, HandleUvcb.call(command, handle=cpu))

    scene.__name__ = command.name.lower()
    return scene


def set_state(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    cpu = guest.configuration.cpus[0].handle
    machine.host.uv.interrupt(cpu)
    return call(machine, CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu, state=CpuState.STOPPED))


def _resetting(machine: ModelMachine) -> ModelGuest:
    guest = guest_of(machine, pages=2)
    guest.share(0x40 << PAGE_SHIFT)
    guest.share(0x41 << PAGE_SHIFT)
    machine.host.uv.export_run(frame_of(guest, 0x41), PAGE_SIZE)
    machine.ultravisor.firmware.request_reset(guest.handle)
    machine.host.set_state(guest.configuration.cpus[0], CpuState.STOPPED)
    return guest


def unshare_all(machine: ModelMachine) -> Action:
    return call(machine, HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=_resetting(machine).handle))


def prepare_reset(machine: ModelMachine) -> Action:
    guest = _resetting(machine)
    machine.host.call_handle(Command.SET_UNSHARE_ALL, guest.handle)
    return call(machine, HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle))


def enter(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    cpu = guest.configuration.cpus[0]
    machine.host.uv.interrupt(cpu.handle)
    machine.host.set_state(cpu, CpuState.OPERATING_LOAD)
    firmware, asce = machine.ultravisor.firmware, guest.configuration.asce
    return lambda: firmware.enter(guest.handle, cpu.handle, asce=asce)


def request_reset(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    return lambda: machine.ultravisor.firmware.request_reset(guest.handle)


def adopt_all(machine: ModelMachine) -> Action:
    guest = guest_of(machine)
    guest.configuration.space.map_run(0x60, machine.host.frames.take(16), 16)
    return lambda: machine.ultravisor.firmware.adopt_all(guest.handle)


SCENES: tuple[Scene, ...] = (
    init, create_configuration, destroy_configuration, destroy_configuration_fast, create_cpu, destroy_cpu,
    set_parameters, unpack, unpack_what_another_guest_shares, unpack_run, verify, import_unused, import_exported,
    import_shared, export, export_shared, export_of_a_guest_that_is_gone, destroy_page,
    verify_large_frame, pin, unpin, share, share_what_was_never_used, unshare, set_state, unshare_all, prepare_reset,
    enter, request_reset, adopt_all, add_secret, replace_communication_key, lock_secrets,
    *(_cpu_call(command) for command in (Command.CPU_RESET, Command.CPU_RESET_INITIAL, Command.CPU_RESET_CLEAR)),
)  # fmt: skip
RUNS: tuple[RunScene, ...] = (export_run, import_run, view)
