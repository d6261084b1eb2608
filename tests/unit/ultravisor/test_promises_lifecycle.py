"""Observable promises 15 to 25: configurations, CPUs, donated storage."""

from __future__ import annotations

import dataclasses
import secrets

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.formats.uv_codes import RC_NEED_DESTROY, Command, CpuState, CreateConf, CreateCpu, Generic, PageCall
from zseal.formats.uvcb import (
    CpuStateUvcb,
    CreateConfUvcb,
    CreateCpuUvcb,
    DestroyConfFastUvcb,
    FrameUvcb,
    GuestPageUvcb,
    HandleUvcb,
    SetParametersUvcb,
    UnpackUvcb,
    UvcbHeader,
)
from zseal.hypervisor.uvcalls import CallFailed
from zseal.model.guest import ModelGuest
from zseal.model.image import seal_image
from zseal.model.machine import ModelMachine
from zseal.ultravisor import MappedSpace, PrefixIntercept, Settings, Validity, ValidityIntercept
from zseal.ultravisor.faults import Fault


def _rc(machine: ModelMachine, block: UvcbHeader) -> int:
    return machine.host.issue(block)[1].rc


def _create_block(machine: ModelMachine, **changes: int) -> CreateConfUvcb:
    settings = machine.ultravisor.settings
    asce = changes.get("guest_asce", 0x66107)
    machine.ultravisor.host.register_address_space(asce, MappedSpace(256))
    block = CreateConfUvcb.call(
        Command.CREATE_SEC_CONF,
        conf_base_stor_origin=machine.host.frames.take(settings.conf_base_storage >> PAGE_SHIFT) << PAGE_SHIFT,
        conf_stor_origin_virt=machine.host.frames.take(settings.variable_storage(MIB) >> PAGE_SHIFT) << PAGE_SHIFT,
        guest_stor_len=MIB,
        guest_sca=machine.host.frames.take(4) << PAGE_SHIFT,
        guest_asce=asce,
    )
    return dataclasses.replace(block, **changes)


def test_promise_15_round_trip_leaves_no_donated_memory(machine: ModelMachine) -> None:
    machine.host.initialise()
    before = machine.ultravisor.snapshot()
    image = seal_image([(0x10000, b"kernel")], [machine.public_key])
    configuration = machine.host.create(4 * MIB, 2)
    settings = machine.ultravisor.settings
    donated = settings.conf_base_storage + settings.variable_storage(4 * MIB) + 2 * settings.cpu_storage
    assert settings.variable_storage(4 * MIB) == 4 * 0x2000 + 0x10000
    assert machine.ultravisor.snapshot().donated_bytes == before.donated_bytes + donated
    machine.host.protect(configuration, image)
    machine.storage.write(configuration.variable_frames << PAGE_SHIFT, b"what firmware keeps there")
    machine.host.destroy(configuration)
    after = machine.ultravisor.snapshot()
    assert after.frames == before.frames
    assert after.donated_bytes == before.donated_bytes
    assert machine.ultravisor.host.read(configuration.variable_frames << PAGE_SHIFT, 64) == bytes(64)
    for address in range(0, 64 * MIB, MIB):
        machine.ultravisor.host.check(address, MIB)


def test_promise_16_handles_are_checked(machine: ModelMachine, guest: ModelGuest) -> None:
    configuration, cpu = guest.handle, guest.configuration.cpus[0].handle
    by_configuration: list[tuple[UvcbHeader, str]] = [
        (DestroyConfFastUvcb.call(Command.DESTROY_SEC_CONF_FAST), "handle"),
        (CreateCpuUvcb.call(Command.CREATE_SEC_CPU), "guest_handle"),
        (GuestPageUvcb.call(Command.CONV_TO_SEC_STOR), "guest_handle"),
        (GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME), "guest_handle"),
        (GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED), "guest_handle"),
        (SetParametersUvcb.call(Command.SET_SEC_CONF_PARAMS), "guest_handle"),
        (UnpackUvcb.call(Command.UNPACK_IMG), "guest_handle"),
    ] + [
        (HandleUvcb.call(command), "handle")
        for command in (Command.DESTROY_SEC_CONF, Command.VERIFY_IMG, Command.PREPARE_RESET, Command.SET_UNSHARE_ALL)
    ]
    by_cpu: list[tuple[UvcbHeader, str]] = [(CpuStateUvcb.call(Command.CPU_SET_STATE, state=2), "cpu_handle")] + [
        (HandleUvcb.call(command), "handle")
        for command in (Command.DESTROY_SEC_CPU, Command.CPU_RESET, Command.CPU_RESET_INITIAL, Command.CPU_RESET_CLEAR)
    ]
    before = machine.ultravisor.snapshot().frames
    for wrong in (0, secrets.randbits(64), cpu):
        for block, field in by_configuration:
            assert _rc(machine, dataclasses.replace(block, **{field: wrong})) == 0x20
    for wrong in (0, secrets.randbits(64), configuration):
        for block, field in by_cpu:
            assert _rc(machine, dataclasses.replace(block, **{field: wrong})) == 0x21
    assert machine.ultravisor.snapshot().frames == before
    guest.stop()
    assert _rc(machine, HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=configuration)) == 0x20
    assert _rc(machine, HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=cpu)) == 0x21


def test_promise_17_cpu_creation_checks(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 1)
    storage, sie = machine.host.frames.take() << PAGE_SHIFT, machine.host.frames.take() << PAGE_SHIFT

    def rc(**changes: int) -> int:
        block = CreateCpuUvcb.call(
            Command.CREATE_SEC_CPU,
            guest_handle=configuration.handle,
            stor_origin=storage,
            num=1,
            state_origin=sie,
        )
        return _rc(machine, dataclasses.replace(block, **changes))

    before = machine.ultravisor.snapshot()
    assert rc(num=257) == CreateCpu.NUMBER.rc == 0x103
    assert rc(num=0) == CreateCpu.EXISTS.rc == 0x104
    donated = configuration.base_frame << PAGE_SHIFT
    for address in (machine.storage.size, 1 << 60, storage + 8, donated):
        assert rc(stor_origin=address) == CreateCpu.STORAGE.rc == 0x105
    machine.ultravisor.firmware.host_cpus.prefixes = (storage,)
    assert rc() == CreateCpu.PREFIX.rc == 0x106
    machine.ultravisor.firmware.host_cpus.prefixes = (0,)
    for address in (machine.storage.size - 256, 1 << 60, donated, storage, storage - 256):
        assert rc(state_origin=address) == CreateCpu.STATE.rc == 0x107
    assert machine.ultravisor.snapshot().frames == before.frames
    assert rc() == 1
    assert rc() == 0x104
    with pytest.raises(ProgramInterruption):
        machine.ultravisor.host.read(storage, 1)
    machine.ultravisor.host.read(sie, 512)


def test_promise_18_configuration_creation_checks(machine: ModelMachine) -> None:
    first = machine.host.create(MIB, 0)
    limit = machine.ultravisor.settings.max_guest_address
    good = _create_block(machine)
    sizes = {"base": machine.ultravisor.settings.conf_base_storage}
    before = machine.ultravisor.snapshot()
    for changes, answer in (
        ({"guest_stor_origin": limit}, CreateConf.ORIGIN),
        ({"guest_stor_origin": limit - PAGE_SIZE, "guest_stor_len": MIB}, CreateConf.END),
        ({"guest_stor_len": limit + PAGE_SIZE}, CreateConf.END),
        ({"guest_asce": first.asce}, CreateConf.ASCE_IN_USE),
        ({"guest_asce": 0x66007}, CreateConf.ASCE),
        ({"guest_asce": 0x66127}, CreateConf.ASCE),
        ({"guest_asce": 0x99107}, CreateConf.ASCE),
        ({"flags": 1}, CreateConf.FLAGS),
        ({"guest_stor_len": 0}, CreateConf.FLAGS),
        ({"guest_stor_len": MIB + 1}, CreateConf.FLAGS),
        ({"conf_base_stor_origin": machine.storage.size - sizes["base"] + PAGE_SIZE}, CreateConf.BASE_OUTSIDE),
        ({"conf_base_stor_origin": 1 << 60}, CreateConf.BASE_OUTSIDE),
        ({"conf_base_stor_origin": good.conf_base_stor_origin + 8}, CreateConf.BASE_ALIGNMENT),
        ({"conf_base_stor_origin": 0}, CreateConf.BASE_PREFIX),
        ({"conf_stor_origin_virt": 0}, CreateConf.VIRT_PREFIX),
        ({"conf_stor_origin_virt": good.conf_stor_origin_virt + 8}, CreateConf.BASE_ALIGNMENT),
        ({"conf_stor_origin_virt": 1 << 60}, Generic.INNER_TRANSLATION),
        ({"guest_sca": 0}, CreateConf.SCA_ZERO),
        ({"guest_sca": machine.storage.size - PAGE_SIZE}, CreateConf.SCA),
        ({"guest_sca": first.base_frame << PAGE_SHIFT}, CreateConf.SCA),
        ({"guest_sca": good.conf_base_stor_origin}, CreateConf.DONATED),
        ({"guest_sca": good.conf_base_stor_origin - 16384 + 8}, CreateConf.DONATED),
        ({"conf_base_stor_origin": first.base_frame << PAGE_SHIFT}, CreateConf.DONATED),
        ({"conf_stor_origin_virt": first.variable_frames << PAGE_SHIFT}, CreateConf.DONATED),
        ({"conf_stor_origin_virt": good.conf_base_stor_origin}, CreateConf.DONATED),
    ):
        answered = machine.host.issue(dataclasses.replace(good, **changes))[1]
        assert answered.rc == answer.rc, (changes, hex(answered.rc))
        assert answered.guest_handle == 0
    assert machine.ultravisor.snapshot() == dataclasses.replace(
        before,
        calls=machine.ultravisor.snapshot().calls,
        refused=machine.ultravisor.snapshot().refused,
    )
    assert _rc(machine, good) == 1


def test_a_creation_that_fails_half_way_has_to_be_destroyed(machine: ModelMachine) -> None:
    machine.host.initialise()
    block = _create_block(machine)
    before = machine.ultravisor.snapshot()
    machine.ultravisor.faults.add(Fault(Command.CREATE_SEC_CONF, CreateConf.FLAGS, half_done=True))
    cc, answer = machine.host.issue(block)
    assert (cc, answer.rc) == (1, RC_NEED_DESTROY | CreateConf.FLAGS.rc)
    assert machine.ultravisor.snapshot().configurations[0].state == "broken"
    header = SetParametersUvcb.call(Command.SET_SEC_CONF_PARAMS, guest_handle=answer.guest_handle)
    assert _rc(machine, header) == 3
    assert _rc(machine, HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=answer.guest_handle)) == 1
    assert machine.ultravisor.snapshot().frames == before.frames
    # the model host does the same by itself
    machine.ultravisor.faults.add(Fault(Command.CREATE_SEC_CONF, CreateConf.FLAGS, half_done=True))
    used = machine.host.frames.used
    with pytest.raises(CallFailed):
        machine.host.create(MIB)
    assert machine.ultravisor.snapshot().frames == before.frames
    assert machine.host.frames.used == used
    with pytest.raises(ValueError, match="half-way"):
        machine.ultravisor.faults.add(Fault(Command.CREATE_SEC_CPU, CreateCpu.STORAGE, half_done=True))


def test_many_configurations_end_at_the_limit(machine_keys: MachineKeys) -> None:
    machine = ModelMachine(keys=machine_keys, settings=Settings(max_configurations=2))
    machine.host.create(MIB)
    machine.host.create(MIB)
    with pytest.raises(CallFailed) as caught:
        machine.host.create(MIB)
    assert caught.value.rc == CreateConf.TOO_MANY.rc
    machine.close()


def test_promise_19_destroy_needs_all_cpus_gone(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 2)
    destroy = HandleUvcb.call(Command.DESTROY_SEC_CONF, handle=configuration.handle)
    for cpu in list(configuration.cpus):
        assert _rc(machine, destroy) == 3
        fast = DestroyConfFastUvcb.call(Command.DESTROY_SEC_CONF_FAST, handle=configuration.handle)
        assert _rc(machine, fast) == 3
        machine.host.destroy_cpu(configuration, cpu)
    assert _rc(machine, destroy) == 1


def test_promise_20_wrong_order_is_refused(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 1)
    handle, cpu = configuration.handle, configuration.cpus[0]
    image = seal_image([(0x10000, b"kernel")], [machine.public_key])
    part = image.components[0]
    machine.host.load(configuration, part.address, part.stored)
    unpack = UnpackUvcb.call(Command.UNPACK_IMG, guest_handle=handle, gaddr=part.address, tweak_prefix=part.prefix)
    verify = HandleUvcb.call(Command.VERIFY_IMG, handle=handle)
    start = CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu.handle, state=CpuState.OPERATING_LOAD)
    later: list[UvcbHeader] = [
        start,
        GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=handle, gaddr=0),
        GuestPageUvcb.call(Command.VERIFY_LARGE_FRAME, guest_handle=handle, gaddr=0),
        GuestPageUvcb.call(Command.UNPIN_PAGE_SHARED, guest_handle=handle, gaddr=0),
        HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=handle),
        HandleUvcb.call(Command.PREPARE_RESET, handle=handle),
        HandleUvcb.call(Command.CPU_RESET, handle=cpu.handle),
    ]

    def refused(*blocks: UvcbHeader) -> None:
        for block in (*blocks, *later):
            assert _rc(machine, block) == 3, block
        with pytest.raises(ValidityIntercept) as caught:
            machine.ultravisor.firmware.enter(handle, cpu.handle, asce=configuration.asce)
        assert caught.value.reason is Validity.STATE
        with pytest.raises(ValidityIntercept):
            machine.ultravisor.firmware.guest_read(handle, 0, 8)

    refused(unpack, verify)
    machine.host.set_parameters(configuration, image.header)
    refused(verify)
    with pytest.raises(CallFailed) as caught:
        machine.host.set_parameters(configuration, image.header)
    assert caught.value.rc == 3
    machine.host.call(unpack)
    refused()
    machine.host.call(verify)
    assert _rc(machine, unpack) == _rc(machine, verify) == 3
    with pytest.raises(ValidityIntercept) as validity:
        machine.ultravisor.firmware.enter(handle, cpu.handle, asce=configuration.asce)
    assert validity.value.reason is Validity.STOPPED
    machine.host.call(start)
    with pytest.raises(PrefixIntercept) as prefix:
        machine.ultravisor.firmware.enter(handle, cpu.handle, asce=configuration.asce)
    for address in prefix.value.addresses:
        machine.host.map_page(configuration, address >> PAGE_SHIFT)
        machine.host.uv.import_run(handle, address, PAGE_SIZE)
    entered = machine.ultravisor.firmware.enter(handle, cpu.handle, asce=configuration.asce)
    assert entered.registers.psw.address == part.address
    for reason, arguments in (
        (Validity.RUNNING, (handle, cpu.handle)),
        (Validity.CPU, (handle, handle)),
        (Validity.CONFIGURATION, (cpu.handle, cpu.handle)),
    ):
        with pytest.raises(ValidityIntercept) as validity:
            machine.ultravisor.firmware.enter(*arguments, asce=configuration.asce)
        assert validity.value.reason is reason
    # a running CPU is neither destroyed nor reset
    assert _rc(machine, HandleUvcb.call(Command.DESTROY_SEC_CPU, handle=cpu.handle)) == 3
    assert _rc(machine, HandleUvcb.call(Command.CPU_RESET, handle=cpu.handle)) == 3


def test_promise_21_verify_failure_is_final(machine: ModelMachine) -> None:
    image = seal_image([(0x10000, b"kernel")], [machine.public_key])
    part = image.components[0]
    flipped = bytearray(part.stored)
    flipped[100] ^= 1
    broken = dataclasses.replace(image, components=(dataclasses.replace(part, stored=bytes(flipped)),))
    configuration = machine.host.create(MIB, 1)
    with pytest.raises(CallFailed) as caught:
        machine.host.protect(configuration, broken)
    assert (caught.value.rc, caught.value.rrc) == (0x102, 0x1B)
    cpu = configuration.cpus[0]
    with pytest.raises(CallFailed) as caught:
        machine.host.set_state(cpu, CpuState.OPERATING_LOAD)
    assert caught.value.rc == 3
    for block in (
        HandleUvcb.call(Command.VERIFY_IMG, handle=configuration.handle),
        GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=configuration.handle, gaddr=0x10000),
    ):
        assert _rc(machine, block) == 3
    with pytest.raises(CallFailed):
        machine.host.set_parameters(configuration, image.header)
    machine.host.destroy(configuration)
    assert machine.ultravisor.host.read(0, 64 * MIB).find(b"kernel") < 0


def test_promise_22_destroy_fast_returns_resources_at_once(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    guest.write(0x30000, b"left over")
    frame = guest.configuration.space.resolve(0x30)
    before = machine.ultravisor.snapshot().donated_bytes
    machine.host.destroy(guest.configuration, fast=True, keep_pages=True)
    assert machine.ultravisor.snapshot().donated_bytes < before
    ModelGuest(machine).start()  # takes the very same donated frames
    with pytest.raises(ProgramInterruption) as caught:
        machine.ultravisor.host.read(frame << PAGE_SHIFT, 9)
    assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
    machine.host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame << PAGE_SHIFT))
    assert b"left over" not in machine.ultravisor.host.read(frame << PAGE_SHIFT, PAGE_SIZE)
    other = guest.configuration.space.resolve(0x10)
    machine.host.call(FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=other << PAGE_SHIFT))
    assert machine.ultravisor.host.read(other << PAGE_SHIFT, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_promise_24_donated_storage_of_a_failed_destroy_is_never_reused(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 1)
    cpu = configuration.cpus[0]
    machine.ultravisor.faults.add(Fault(Command.DESTROY_SEC_CPU, Generic.INVALID_CPU))
    with pytest.raises(CallFailed):
        machine.host.destroy(configuration)
    with pytest.raises(ProgramInterruption):
        machine.ultravisor.host.read(cpu.storage_frame << PAGE_SHIFT, 1)
    other = machine.host.create(MIB, 1)
    assert other.cpus[0].storage_frame != cpu.storage_frame
    block = _create_block(machine, conf_base_stor_origin=configuration.base_frame << PAGE_SHIFT)
    assert _rc(machine, block) == CreateConf.DONATED.rc


def test_promise_25_many_configurations_are_isolated(machine: ModelMachine) -> None:
    guests = [ModelGuest(machine) for _ in range(4)]
    for number, guest in enumerate(guests):
        guest.start()
        guest.write(0x30000, b"guest %d" % number)
    for number, guest in enumerate(guests):
        assert guest.read(0x30000, 7) == b"guest %d" % number
    first, second = guests[:2]
    frame = first.configuration.space.resolve(0x30)
    machine.host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=frame << PAGE_SHIFT))
    stolen = machine.ultravisor.host.read(frame << PAGE_SHIFT, PAGE_SIZE)
    target = second.configuration.space.resolve(0x30)
    machine.host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=target << PAGE_SHIFT))
    machine.ultravisor.host.write(target << PAGE_SHIFT, stolen)
    answer = machine.host.issue(
        GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=second.handle, gaddr=0x30000)
    )[1]
    assert (answer.rc, answer.rrc) == (PageCall.INTEGRITY.rc, PageCall.INTEGRITY.rrc)
    assert first.read(0x30000, 7) == b"guest 0"


def test_cpu_resets_clear_what_they_should(machine: ModelMachine, guest: ModelGuest) -> None:
    cpu = guest.configuration.cpus[0]
    secure = machine.ultravisor.firmware.configuration(guest.handle).cpus[0]

    def fill() -> None:
        machine.ultravisor.firmware.leave(cpu.handle)
        secure.registers.general[3] = 7
        secure.registers.control[0] = 7
        secure.registers.prefix = 0x8000
        secure.state = CpuState.OPERATING

    fill()
    machine.host.call_handle(Command.CPU_RESET, cpu.handle)
    assert (secure.state, secure.registers.general[3], secure.registers.prefix) == (CpuState.STOPPED, 7, 0x8000)
    fill()
    machine.host.call_handle(Command.CPU_RESET_INITIAL, cpu.handle)
    assert (secure.registers.general[3], secure.registers.control[0], secure.registers.prefix) == (7, 0xE0, 0)
    fill()
    machine.host.call_handle(Command.CPU_RESET_CLEAR, cpu.handle)
    assert secure.registers.general[3] == 0
    assert secure.registers.control[14] == 0xC2000000


@pytest.mark.parametrize("state", [0, 4, 6, 255])
def test_unknown_cpu_states_are_refused(machine: ModelMachine, guest: ModelGuest, state: int) -> None:
    cpu = guest.configuration.cpus[0].handle
    machine.ultravisor.firmware.leave(cpu)
    assert _rc(machine, CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu, state=state)) == 0x101


def test_promise_49_reset_inside_the_guest_ends_sharing_and_keeps_everything_else(
    machine: ModelMachine, guest: ModelGuest
) -> None:
    uv = machine.ultravisor
    guest.write(0x30000, b"stays")
    guest.write(0, bytes.fromhex("0008000080012340"))
    guest.share(0x30000, 2 * PAGE_SIZE)
    shared = guest.configuration.space.resolve(0x30)
    uid = uv.firmware.configuration(guest.handle).uid
    uv.firmware.request_reset(guest.handle)
    cpu = guest.configuration.cpus[0]
    with pytest.raises(ValidityIntercept):
        uv.firmware.enter(guest.handle, cpu.handle, asce=guest.configuration.asce)
    for block in (
        HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle),
        HandleUvcb.call(Command.SET_UNSHARE_ALL, handle=guest.handle),
        HandleUvcb.call(Command.CPU_RESET_CLEAR, handle=cpu.handle),
        CpuStateUvcb.call(Command.CPU_SET_STATE, cpu_handle=cpu.handle, state=CpuState.OPERATING_LOAD),
    ):
        assert _rc(machine, block) == 3
    machine.host.set_state(cpu, CpuState.STOPPED)
    assert _rc(machine, HandleUvcb.call(Command.PREPARE_RESET, handle=guest.handle)) == 3
    machine.host.reset(guest.configuration)
    psw = guest.start()
    assert psw.address == 0x12340
    assert uv.host.page_counts(guest.handle)["shared"] == 0
    with pytest.raises(ProgramInterruption):
        uv.host.read(shared << PAGE_SHIFT, 5)
    assert guest.read(0x30000, 5) == b"stays"
    assert uv.firmware.configuration(guest.handle).uid == uid


def test_promise_50_after_destruction_the_same_image_starts_anew(machine: ModelMachine) -> None:
    image = seal_image([(0x10000, b"kernel")], [machine.public_key])
    first = ModelGuest(machine, image=image)
    first.start()
    first.write(0x40000, b"of the first life")
    frame = first.configuration.space.resolve(0x40)
    uid = machine.ultravisor.firmware.configuration(first.handle).uid
    first.stop()
    assert machine.ultravisor.host.read(frame << PAGE_SHIFT, 17) == bytes(17)
    second = ModelGuest(machine, image=image)
    second.start()
    assert second.read(0x40000, 17) == bytes(17)
    assert machine.ultravisor.firmware.configuration(second.handle).uid != uid


def test_hot_plugged_cpus_are_protected(machine: ModelMachine, guest: ModelGuest) -> None:
    cpu = machine.host.create_cpu(guest.configuration, 5)
    assert machine.ultravisor.firmware.configuration(guest.handle).cpus[5].state is CpuState.STOPPED
    machine.host.set_state(cpu, CpuState.OPERATING)
    machine.ultravisor.firmware.enter(guest.handle, cpu.handle, asce=guest.configuration.asce)
