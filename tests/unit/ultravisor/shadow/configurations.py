"""Calls on configurations and CPUs, in every phase and with storage in every state."""

from __future__ import annotations

import random

from tests.unit.ultravisor.shadow.model import DONE, KINDS, ORDINARY, RUNNING, Cpu, Guest, Phase
from tests.unit.ultravisor.shadow.world import HEADER, IMAGE, SLOT_SIZE, World
from zseal.arch.storage import PAGE_SIZE
from zseal.formats.uv_codes import Command, CpuState, CreateConf, CreateCpu, Generic, Init, SetParameters, SetState
from zseal.formats.uvcb import (
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    DestroyConfFastUvcb,
    HandleUvcb,
    InitUvcb,
    SetParametersUvcb,
)
from zseal.ultravisor import MappedSpace, PrefixIntercept, UvcRefusal, Validity

STATES = (CpuState.OPERATING, CpuState.OPERATING, CpuState.OPERATING_LOAD, CpuState.STOPPED, CpuState.CHECK_STOP)
STARTING = (CpuState.OPERATING, CpuState.OPERATING_LOAD)
WRONG_PHASE = Generic.INVALID_STATE
_SCA_FRAMES = 4


def any_frame(world: World, source: random.Random) -> int:
    """A frame in play: mostly one of the few that guests fight for."""
    shape = world.shape
    if shape.large_frames and source.random() < 0.3:
        return source.randrange(shape.large.start, shape.large.stop)
    return shape.first + source.randrange(shape.frames if source.random() < 0.9 else shape.slots - shape.first + 8)


def contested_frame(world: World, source: random.Random) -> int:
    """A frame of a kind chosen first, so that rare kinds are met as often as others."""
    kind = source.randrange(len(KINDS))
    found = [frame for frame in range(world.shape.first, world.shape.slots) if world.model.kinds[frame] == kind]
    return source.choice(found) if found else any_frame(world, source)


def own_frame(world: World, slot: int, number: int, source: random.Random) -> int:
    """Frame ``number`` of those that are meant for the configuration in ``slot``, or any frame."""
    return world.shape.slots + slot * SLOT_SIZE + number if source.random() < 0.65 else contested_frame(world, source)


def create(world: World, source: random.Random) -> None:
    slot = source.randrange(world.shape.guests)
    if slot in world.model.guests and source.random() < 0.9:
        return
    base, variable = own_frame(world, slot, 0, source), own_frame(world, slot, 1, source)
    sca = own_frame(world, slot, 4, source)
    origin = source.choice((0, 0, 256) if world.shape.large_frames else (0, 3))
    asce, pages = (slot + 1) << 12 | 0x107, world.shape.pages
    space = MappedSpace(origin + pages)
    known = world.model.guests.get(slot)
    world.host.register_address_space(asce, space if known is None else known.space)
    block = CreateConfUvcb.call(
        Command.CREATE_SEC_CONF, conf_base_stor_origin=base * PAGE_SIZE, conf_stor_origin_virt=variable * PAGE_SIZE,
        guest_stor_origin=origin * PAGE_SIZE, guest_stor_len=pages * PAGE_SIZE, guest_sca=sca * PAGE_SIZE,
        guest_asce=asce,
    )  # fmt: skip
    kinds, area = world.model.kinds, range(sca, min(sca + _SCA_FRAMES, world.shape.top))
    for name, frame in ("create: base", base), ("create: variable", variable), ("create: control area", sca):
        world.meet(name, frame)
    if known is not None:
        world.expect(block, CreateConf.ASCE_IN_USE)
    elif not all(world.visible(frame) for frame in area):
        world.expect(block, CreateConf.SCA)
    elif base in area or variable in area or base == variable or kinds[base] != ORDINARY or kinds[variable] != ORDINARY:
        world.expect(block, CreateConf.DONATED)
    else:
        handle = CreateConfUvcb.unpack(world.expect(block, DONE)).guest_handle
        serial = world.firmware.configuration(handle).guest.serial
        assert serial > world.model.serial, "never given before"
        world.model.serial = serial
        world.model.guests[slot] = Guest(serial, slot, handle, asce, space, pages, origin, (base, variable))
        world.model.donate([base, variable])


def create_cpu(world: World, guest: Guest, source: random.Random) -> None:
    storage, sie = own_frame(world, guest.slot, 2, source), own_frame(world, guest.slot, 3, source)
    block = CreateCpuUvcb.call(
        Command.CREATE_SEC_CPU, guest_handle=guest.handle, stor_origin=storage * PAGE_SIZE, state_origin=sie * PAGE_SIZE
    )
    world.meet("create CPU: storage", storage, guest)
    world.meet("create CPU: state description", sie, guest)
    if guest.phase not in (Phase.CREATED, Phase.PARAMETERS, Phase.SECURE):
        world.expect(block, WRONG_PHASE)
    elif guest.cpu is not None:
        world.expect(block, CreateCpu.EXISTS)
    elif world.model.kinds[storage] != ORDINARY:
        world.expect(block, CreateCpu.STORAGE)
    elif not world.visible(sie) or sie == storage:
        world.expect(block, CreateCpu.STATE)
    else:
        guest.cpu = Cpu(CreateCpuUvcb.unpack(world.expect(block, DONE)).cpu_handle, storage, sie)
        world.model.donate([storage])


def destroy_cpu(world: World, guest: Guest, source: random.Random) -> None:
    cpu = guest.cpu
    if cpu is None:
        world.expect(HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=guest.handle), Generic.INVALID_CPU)
        return
    block = HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=cpu.handle)
    if cpu.running:
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    world.model.give_back([cpu.storage])
    guest.cpu = None


def destroy(world: World, guest: Guest, source: random.Random) -> None:
    block: HandleUvcb | DestroyConfFastUvcb = HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=guest.handle)
    if source.random() < 0.5:
        block = DestroyConfFastUvcb.call(Command.DESTROY_SEC_CONF_FAST, handle=guest.handle)
    if guest.cpu is not None and source.random() < 0.8:
        world.host.interrupt(guest.cpu.handle)
        guest.cpu.running = False
        destroy_cpu(world, guest, source)
    if guest.cpu is not None:
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    world.model.remove(guest)
    world.expect(block, Generic.INVALID_CONFIGURATION)


def set_parameters(world: World, guest: Guest, source: random.Random) -> None:
    address = any_frame(world, source) * PAGE_SIZE if source.random() < 0.15 else HEADER
    world.host.write(HEADER, IMAGE.header)
    block = SetParametersUvcb.call(
        Command.SET_SEC_CONF_PARAMS, guest_handle=guest.handle, sec_header_origin_virt=address,
        sec_header_len=len(IMAGE.header),
    )  # fmt: skip
    if address != HEADER:
        world.meet("set parameters", address // PAGE_SIZE, guest)
    if guest.phase is not Phase.CREATED:
        world.expect(block, WRONG_PHASE)
    elif address == HEADER:
        world.expect(block, DONE)
        guest.phase = Phase.PARAMETERS
    elif not world.visible(address // PAGE_SIZE):
        world.expect(block, SetParameters.ACCESS)
    else:
        world.expect(block, SetParameters.MAGIC)
        guest.phase = Phase.BROKEN


def verify(world: World, guest: Guest, source: random.Random) -> None:
    block = HandleUvcb.call(Command.VERIFY_IMG, handle=guest.handle)
    if guest.phase is not Phase.UNPACKING:
        world.expect(block, WRONG_PHASE)
        return
    rc, _, _ = world.issue(block)
    guest.phase = Phase.SECURE if rc == 1 else Phase.BROKEN
    assert (rc == 1) == (guest.unpacked == [True]), (hex(rc), guest.unpacked)


# ---------------------------------------------------------------- CPUs


def stop(world: World, guest: Guest, source: random.Random) -> None:
    """What a host does first to carry a reset through."""
    if guest.cpu is not None and guest.phase in RUNNING:
        leave(world, guest, source)
        stopped = CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=guest.cpu.handle, state=CpuState.STOPPED)
        world.expect(stopped, DONE)
        guest.cpu.state = CpuState.STOPPED


def set_state(world: World, guest: Guest, source: random.Random) -> None:
    cpu, state = guest.cpu, source.choice(STATES)
    if cpu is None:
        return
    if source.random() < 0.05:
        block = CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu.handle, state=4)
        world.expect(block, WRONG_PHASE if cpu.running else SetState.STATE)
        return
    block = CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu.handle, state=state)
    starts = state in STARTING
    if cpu.running or guest.phase not in ((Phase.SECURE,) if starts else RUNNING):
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    cpu.state = state
    guest.unshared &= not starts


def reset_cpu(world: World, guest: Guest, source: random.Random) -> None:
    command = source.choice((Command.CPU_RESET, Command.CPU_RESET_INITIAL, Command.CPU_RESET_CLEAR))
    if guest.cpu is None:
        world.expect(HandleUvcb.call(command, handle=0), Generic.INVALID_CPU)
        return
    block = HandleUvcb.call(command, handle=guest.cpu.handle)
    if guest.cpu.running or guest.phase is not Phase.SECURE:
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    guest.cpu.state = CpuState.STOPPED


def enter(world: World, guest: Guest, source: random.Random) -> None:
    cpu = guest.cpu
    if cpu is None:
        return
    found: object
    try:
        found = world.outcome(lambda: world.firmware.enter(guest.handle, cpu.handle, asce=guest.asce))
    except PrefixIntercept as intercept:
        found = intercept.addresses
    missing = tuple((guest.origin + page) * PAGE_SIZE for page in (0, 1) if not world.model.resident(guest, page))
    if guest.phase is not Phase.SECURE:
        assert found is Validity.STATE
    elif cpu.running:
        assert found is Validity.RUNNING
    elif cpu.state not in STARTING:
        assert found is Validity.STOPPED
    elif not world.visible(cpu.sie):
        assert found is Validity.STATE_DESCRIPTION
    elif found is Validity.TIMER:
        assert cpu.sie < world.shape.slots, "its frame holds something else by now"
    elif missing:
        assert found == missing
    elif cpu.state is CpuState.OPERATING_LOAD and guest.was_reset and world.model.access(guest, 0) is not None:
        assert found is world.model.access(guest, 0)
    else:
        assert not isinstance(found, Validity), found
        cpu.state, cpu.running = CpuState.OPERATING, True


def leave(world: World, guest: Guest, source: random.Random) -> None:
    if guest.cpu is not None:
        world.host.interrupt(guest.cpu.handle)
        guest.cpu.running = False


# ---------------------------------------------------------------- resets


def request_reset(world: World, guest: Guest, source: random.Random) -> None:
    try:
        world.firmware.request_reset(guest.handle)
    except UvcRefusal as refusal:
        assert refusal.answer is WRONG_PHASE
        assert guest.phase is not Phase.SECURE
        return
    assert guest.phase is Phase.SECURE
    guest.phase = Phase.RESETTING
    if guest.cpu is not None:
        guest.cpu.running = False


def unshare_all(world: World, guest: Guest, source: random.Random) -> None:
    block = HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=guest.handle)
    if guest.phase not in RUNNING or not guest.stopped:
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    world.model.unshare_all(guest)


def prepare_reset(world: World, guest: Guest, source: random.Random) -> None:
    block = HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle)
    if guest.phase not in RUNNING or not guest.stopped or not guest.unshared:
        world.expect(block, WRONG_PHASE)
        return
    world.expect(block, DONE)
    guest.was_reset, guest.phase = True, Phase.SECURE


def reset_machine(world: World, source: random.Random) -> None:
    world.expect(InitUvcb.call(Command.INIT_UV), Init.ALREADY)
    if source.random() < 0.03:
        world.uv.machine_reset()
        world.model.reset()
        world.initialise()
