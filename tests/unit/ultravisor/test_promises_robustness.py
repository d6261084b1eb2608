"""Observable promises 95 to 98: hostile control blocks, injected answers, tampering at scale, many threads."""

from __future__ import annotations

import random
import resource
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.ultravisor.invariants import tables_agree
from tests.waiting import PATIENCE
from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.engine.memory import SharedMemory
from zseal.formats.uv_codes import Command, Generic, Issuer, PageCall, Share, find_response_code
from zseal.formats.uvcb import (
    CreateConfUvcb,
    FrameUvcb,
    GuestPageUvcb,
    HandleUvcb,
    InitUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UvcbHeader,
)
from zseal.hypervisor.storage import HostStorage
from zseal.model.guest import ModelGuest
from zseal.model.host import HostError
from zseal.model.image import seal_image
from zseal.model.machine import ModelMachine
from zseal.model.pager import GuestKilledError
from zseal.ultravisor import EventLog, Level, MappedSpace, Settings, Ultravisor, UvcRefusal, ValidityIntercept
from zseal.ultravisor.calls.table import CALLS
from zseal.ultravisor.faults import BUSY, PARTIAL, Fault
from zseal.ultravisor.pagecrypto import PageSealer
from zseal.ultravisor.state import Row

PAGE = 0x30000


def _documented(command: int, rc: int, rrc: int) -> bool:
    if command not in set(Command):
        return rc in (Generic.INVALID_COMMAND.rc, Generic.INVALID_LENGTH.rc)
    return find_response_code(Command(command), rc, rrc) is not None


INTERESTING = [
    0,
    1,
    8,
    PAGE_SIZE - 1,
    PAGE_SIZE,
    MIB,
    2 << 30,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    (1 << 64) - PAGE_SIZE,
]


def _fuzzed(row: Row | None, source: random.Random, known: list[int]) -> bytes:
    size = source.choice([row.layout.SIZE if row and row.minimum is None else 0x120] * 6 + [source.randrange(0x240)])
    command = int(row.command) if row else source.randrange(0x10000)
    body = bytearray(source.randbytes(max(size, 8)) if source.random() < 0.3 else max(size, 8))
    if row is not None:
        for spec in row.layout.FIELDS.values():
            if spec.offset >= 8 and spec.offset + spec.size <= len(body) and spec.integer:
                value = source.choice([*INTERESTING, *known, source.getrandbits(8 * spec.size)])
                body[spec.offset : spec.offset + spec.size] = (value % (1 << 8 * spec.size)).to_bytes(spec.size, "big")
    body[:8] = UvcbHeader(length=size, command=command).pack()
    return bytes(body)


@pytest.mark.parametrize("seed", range(6))
def test_promise_95_fuzzed_control_blocks_get_documented_answers(machine: ModelMachine, seed: int) -> None:
    """Random lengths, addresses beyond memory, overlapping donated areas, handles of every kind; host and guest."""
    source = random.Random(seed)
    guests = [ModelGuest(machine) for _ in range(2)]
    for guest in guests:
        guest.start()
        guest.write(PAGE, b"secret of a guest" * 20)
        guest.share(PAGE + PAGE_SIZE)
    known = [machine.storage.size, machine.storage.size - 8]
    for guest in guests:
        configuration = guest.configuration
        known += [guest.handle, configuration.asce, *(cpu.handle for cpu in configuration.cpus)]
        known += [frame << PAGE_SHIFT for frame in (configuration.base_frame, configuration.variable_frames)]
        known += [configuration.space.resolve(page) << PAGE_SHIFT for page in (0x10, 0x30, 0x31)]
        machine.ultravisor.host.register_address_space(configuration.asce + 0x100000, configuration.space)
        known.append(configuration.asce + 0x100000)
    free = machine.host.frames.take(64) << PAGE_SHIFT
    known += [free, free + 8, free + 32 * PAGE_SIZE]
    uv, block = machine.ultravisor, 0x4000
    for _ in range(1500):
        row = source.choice([*CALLS, None])
        data = _fuzzed(row, source, known)
        if row is not None and row.command.issuer is Issuer.GUEST:
            _fuzz_guest(source.choice(guests), data)
            continue
        address = source.choice([block] * 12 + [block + 4, PAGE_SIZE * 5 - 8, machine.storage.size - 16, 1 << 60])
        try:
            uv.host.write(address, data)
        except ProgramInterruption:
            continue
        try:
            cc = uv.host.call(address)
        except ProgramInterruption:
            continue
        try:
            answer = UvcbHeader.unpack(uv.host.read(address, 8))
        except ProgramInterruption:
            continue  # the call itself donated or secured the page of its block
        assert (cc == 0) == (answer.rc == 1)
        assert _documented(answer.command, answer.rc, answer.rrc), answer
    tables_agree(machine.ultravisor)


def _fuzz_guest(guest: ModelGuest, data: bytes) -> None:
    uv = guest.machine.ultravisor
    try:
        uv.firmware.guest_write(guest.handle, 0x1000, data)
        cc = uv.firmware.guest_call(guest.handle, 0x1000)
        answer = UvcbHeader.unpack(uv.firmware.guest_read(guest.handle, 0x1000, 8))
    except (ProgramInterruption, UvcRefusal, ValidityIntercept):
        return  # fuzzing the host took the guest's page or the guest itself
    assert (cc == 0) == (answer.rc == 1)
    # the list of secrets may have been stored over the block itself
    assert _documented(int.from_bytes(data[2:4], "big"), answer.rc, answer.rrc)


def test_promise_96_busy_and_partial_are_handled_by_callers(machine: ModelMachine) -> None:
    for command in Command:
        if command.issuer is Issuer.HOST:
            machine.ultravisor.faults.add(Fault(command, BUSY, times=2))
            machine.ultravisor.faults.add(Fault(command, PARTIAL))
    guest = ModelGuest(machine, limit=5)
    guest.start()
    for page in range(0x30, 0x40):
        guest.write(page << PAGE_SHIFT, b"%d" % page)
    for page in range(0x30, 0x40):
        assert guest.read(page << PAGE_SHIFT, 2) == b"%d" % page
    machine.ultravisor.faults.add(Fault(Command.SET_SHARED_ACCESS, BUSY, times=5))
    guest.share(PAGE)
    guest.stop()
    assert machine.ultravisor.snapshot().frames["secure"] == 0
    with pytest.raises(ValueError, match="condition codes 2"):
        machine.ultravisor.faults.add(Fault(Command.QUI, 1))


def test_busy_leaves_the_control_block_as_it_is(machine: ModelMachine) -> None:
    machine.host.initialise()
    block = FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=0)
    machine.ultravisor.faults.add(Fault(Command.CONV_FROM_SEC_STOR, BUSY, skip=1))
    assert machine.host.issue(block)[0] == 0
    assert machine.host.issue(block) == (2, block)
    assert machine.host.issue(block)[0] == 0


def test_promise_76_a_failed_share_ends_the_guest(machine: ModelMachine, guest: ModelGuest) -> None:
    machine.ultravisor.faults.add(Fault(Command.SET_SHARED_ACCESS, Share.ADDRESS))
    with pytest.raises(GuestKilledError, match="System security cannot be guaranteed"):
        guest.share(PAGE)


def test_promise_97_rogue_inner_pointers_leak_nothing(machine: ModelMachine, guest: ModelGuest) -> None:
    other = machine.host.create(MIB, 0)
    guest.write(PAGE, b"IBMSecEx")
    for address in (
        guest.configuration.space.resolve(PAGE >> PAGE_SHIFT) << PAGE_SHIFT,
        guest.configuration.base_frame << PAGE_SHIFT,
        2 << 30,
    ):
        block = SetParametersUvcb.call(
            Command.SET_SEC_CONF_PARAMS,
            guest_handle=other.handle,
            sec_header_origin_virt=address,
            sec_header_len=640,
        )
        before = machine.ultravisor.snapshot().frames
        assert machine.host.issue(block)[1].rc == 0x103
        assert machine.ultravisor.snapshot().frames == before


def test_promise_23_at_most_one_guest_is_set_aside(machine: ModelMachine) -> None:
    first, second = ModelGuest(machine), ModelGuest(machine)
    with pytest.raises(HostError, match="no guest is set aside"):
        machine.host.finish_aside()
    machine.host.set_aside(first.configuration)
    with pytest.raises(HostError, match="already set aside"):
        machine.host.set_aside(second.configuration)
    machine.host.finish_aside()
    machine.host.set_aside(second.configuration)
    machine.host.finish_aside()
    assert machine.ultravisor.snapshot().frames["secure"] == 0


def test_a_guest_is_set_aside_without_fast_destroy(machine_keys: MachineKeys) -> None:
    settings = Settings(disabled_calls=frozenset({Command.DESTROY_SEC_CONF_FAST}))
    machine = ModelMachine(keys=machine_keys, settings=settings)
    guest = ModelGuest(machine)
    guest.start()
    guest.write(PAGE, b"secret")
    machine.host.set_aside(guest.configuration)
    other = ModelGuest(machine)  # the next guest need not wait
    other.start()
    machine.host.finish_aside()
    assert [each.serial for each in machine.ultravisor.snapshot().configurations] == [2]
    other.stop()
    frames = machine.ultravisor.snapshot().frames
    assert (frames["secure"], frames["donated"] * PAGE_SIZE) == (0, settings.uv_base_storage)
    machine.close()


def _exported(pages: int) -> tuple[PageSealer, NDArray[np.int64], NDArray[np.uint64], bytes, bytearray, bytes]:
    sealer = PageSealer()
    plain = secrets.token_bytes(pages * PAGE_SIZE)
    numbers, counters = np.arange(pages), np.full(pages, 7, np.uint64)
    data, tags = sealer.seal(plain, numbers, counters)
    return sealer, numbers, counters, plain, bytearray(data), tags


def test_tamper_matrix_on_a_thousand_pages(machine: ModelMachine) -> None:
    """Every kind of corruption on 1,000 pages: all refused, one by one, and the good pages come back."""
    count = 1024
    guest = ModelGuest(machine, memory=8 * MIB)
    guest.start()
    uv, first = machine.ultravisor, machine.host.frames.take(count)
    guest.configuration.space.map_run(256, first, count)
    uv.host.import_run(guest.handle, MIB, count * PAGE_SIZE)
    plain = secrets.token_bytes(count * PAGE_SIZE)
    uv.firmware.guest_write(guest.handle, MIB, plain)
    address, length = first << PAGE_SHIFT, count * PAGE_SIZE
    uv.host.export_run(address, length)
    older = uv.host.read(address, length)
    uv.host.import_run(guest.handle, MIB, length)
    uv.host.export_run(address, length)
    good = uv.host.read(address, length)
    other = ModelGuest(machine, memory=8 * MIB)
    other.start()
    foreign_frame = machine.host.frames.take(count)
    other.configuration.space.map_run(256, foreign_frame, count)
    uv.host.import_run(other.handle, MIB, length)
    uv.firmware.guest_write(other.handle, MIB, plain)
    uv.host.export_run(foreign_frame << PAGE_SHIFT, length)
    foreign = uv.host.read(foreign_frame << PAGE_SHIFT, length)

    def page(data: bytes, number: int) -> bytes:
        return data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]

    def flipped(number: int) -> bytes:
        data = bytearray(page(good, number))
        data[(number * 37) % PAGE_SIZE] ^= 1 << number % 8
        return bytes(data)

    kinds: dict[str, Callable[[int], bytes]] = {
        "flipped bit": flipped,
        "swapped": lambda number: page(good, number ^ 1),
        "another address": lambda number: page(good, (number + 300) % count),
        "replayed": lambda number: page(older, number),
        "another guest": lambda number: page(foreign, number),
        "dropped": lambda _: bytes(PAGE_SIZE),
        "garbage": lambda _: secrets.token_bytes(PAGE_SIZE),
    }
    for name, corrupt in kinds.items():
        for number in range(count):
            at = address + (number << PAGE_SHIFT)
            bad = corrupt(number)
            uv.host.write(at, bad)
            with pytest.raises(UvcRefusal) as caught:
                uv.host.import_run(guest.handle, MIB + (number << PAGE_SHIFT), PAGE_SIZE)
            assert caught.value.answer is PageCall.INTEGRITY, name
            assert uv.host.read(at, PAGE_SIZE) == bad, name
        uv.host.write(address, good)
    uv.host.import_run(guest.handle, MIB, length)
    assert uv.firmware.guest_read(guest.handle, MIB, length) == plain
    assert len(uv.log.events(level=Level.ERROR)) == len(kinds) * count


def test_no_false_alarm_on_a_hundred_thousand_imports(machine: ModelMachine) -> None:
    count, rounds = 1000, 100
    guest = ModelGuest(machine, memory=8 * MIB)
    guest.start()
    first = machine.host.frames.take(count)
    guest.configuration.space.map_run(256, first, count)
    machine.ultravisor.host.import_run(guest.handle, MIB, count * PAGE_SIZE)
    content = secrets.token_bytes(count * PAGE_SIZE)
    machine.ultravisor.firmware.guest_write(guest.handle, MIB, content)
    for _ in range(rounds):
        machine.ultravisor.host.export_run(first << PAGE_SHIFT, count * PAGE_SIZE)
        machine.ultravisor.host.import_run(guest.handle, MIB, count * PAGE_SIZE)
    assert machine.ultravisor.firmware.guest_read(guest.handle, MIB, count * PAGE_SIZE) == content
    counters = machine.ultravisor.firmware.configuration(guest.handle).guest.pages.counter[256 : 256 + count]
    assert np.all(counters == rounds)


def test_single_pages_and_runs_agree(machine: ModelMachine) -> None:
    """What a run exported comes back page by page, and the other way round."""
    guest = ModelGuest(machine, memory=4 * MIB)
    guest.start()
    uv, first, count = machine.ultravisor, machine.host.frames.take(300), 300
    guest.configuration.space.map_run(256, first, count)
    uv.host.import_run(guest.handle, MIB, count * PAGE_SIZE)
    content = secrets.token_bytes(count * PAGE_SIZE)
    uv.firmware.guest_write(guest.handle, MIB, content)
    uv.host.export_run(first << PAGE_SHIFT, count * PAGE_SIZE)
    for number in range(count):
        machine.host.call(
            GuestPageUvcb.call(Command.CONV_TO_SEC_STOR, guest_handle=guest.handle, gaddr=MIB + number * PAGE_SIZE)
        )
    assert uv.firmware.guest_read(guest.handle, MIB, count * PAGE_SIZE) == content
    for number in range(count):
        machine.host.call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=(first + number) << PAGE_SHIFT))
    uv.host.import_run(guest.handle, MIB, count * PAGE_SIZE)
    assert uv.firmware.guest_read(guest.handle, MIB, count * PAGE_SIZE) == content


def test_sealed_pages_differ_from_run_to_run() -> None:
    sealer, numbers, counters, plain, data, tags = _exported(8)

    def opened(data: bytearray, numbers: NDArray[np.int64], counters: NDArray[np.uint64]) -> bytes:
        target = bytearray(len(data))
        good = sealer.open(memoryview(data), numbers, counters, tags, memoryview(target))
        assert target[good * PAGE_SIZE :] == bytes(len(target) - good * PAGE_SIZE)
        return bytes(target[: good * PAGE_SIZE])

    assert opened(data, numbers, counters) == plain
    again, other_tags = sealer.seal(plain, numbers, counters + np.uint64(1))
    assert again != data
    assert other_tags != tags
    assert opened(data, numbers, counters + np.uint64(1)) == b""
    assert opened(data, numbers[::-1].copy(), counters) == b""
    broken = bytearray(data)
    broken[5 * PAGE_SIZE] ^= 1
    assert opened(broken, numbers, counters) == plain[: 5 * PAGE_SIZE]
    assert PageSealer().open(memoryview(data), numbers, counters, tags, memoryview(bytearray(len(data)))) == 0


@pytest.mark.parametrize("guests", [1, 3])
def test_promise_98_concurrent_calls_keep_the_tables_consistent(machine_keys: MachineKeys, guests: int) -> None:
    """Four CPUs share, unshare, page and write at once, on one guest and on several; nothing is lost or stuck."""
    machine = ModelMachine(keys=machine_keys, log=EventLog(level=Level.ERROR))
    running = [ModelGuest(machine, memory=4 * MIB) for _ in range(guests)]
    area = 64
    for guest in running:
        guest.start()
        frame = machine.host.frames.take(4 * area)
        guest.configuration.space.map_run(256, frame, 4 * area)
        machine.ultravisor.host.import_run(guest.handle, MIB, 4 * area * PAGE_SIZE)
    failures: list[BaseException] = []

    def cpu(guest: ModelGuest, number: int) -> None:
        source, uv = random.Random(number), machine.ultravisor
        base = 256 + number * area
        block = (base << PAGE_SHIFT) + 64
        values = dict.fromkeys(range(1, area), 0)
        try:
            for turn in range(400):
                page = base + source.randrange(1, area)
                gaddr = page << PAGE_SHIFT
                action = source.randrange(4)
                if action == 0:
                    values[page - base] = turn
                    uv.firmware.guest_write(guest.handle, gaddr, turn.to_bytes(8, "big"))
                elif action == 1:
                    frame = guest.configuration.space.resolve(page)
                    uv.host.export_run(frame << PAGE_SHIFT, PAGE_SIZE)
                    uv.host.import_run(guest.handle, gaddr, PAGE_SIZE)
                else:
                    command = Command.SET_SHARED_ACCESS if action == 2 else Command.REMOVE_SHARED_ACCESS
                    uv.firmware.guest_write(guest.handle, block, ShareUvcb.call(command, paddr=gaddr).pack())
                    assert uv.firmware.guest_call(guest.handle, block) == 0
                found = uv.firmware.guest_read(guest.handle, gaddr, 8)
                assert int.from_bytes(found, "big") == values[page - base]
                if turn % 50 == 0:
                    uv.snapshot()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=cpu, args=(guest, number), daemon=True) for guest in running for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive(), "a deadlock"
    assert not failures, failures[0]
    tables_agree(machine.ultravisor)
    for guest in running:
        for number in range(4):
            assert machine.ultravisor.firmware.guest_read(guest.handle, (256 + number * area) << PAGE_SHIFT, 1) == b"\0"
    machine.close()


def _resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_64_gib_guest_costs_what_it_uses(machine_keys: MachineKeys) -> None:
    """Its tables are at most 1 % of it, and nothing of them is allocated before it is touched."""
    machine = ModelMachine(keys=machine_keys, memory=2048 * MIB - 8 * MIB)
    machine.host.initialise()
    size, before = 64 << 30, _resident()
    guest = machine.host.create(size)
    assert _resident() - before < 64 * MIB  # a tenth of what the tables will take once all of it is used
    pages = machine.ultravisor.firmware.configuration(guest.handle).guest.pages
    table = machine.ultravisor._machine.secure.frames
    per_page = sum(array.nbytes for array in (pages.state, pages.frame, pages.counter, pages.tag)) / pages.count
    per_frame = sum(array.nbytes for array in (table.state, table.owner, table.page)) / table.count
    assert pages.count == size // PAGE_SIZE
    assert per_page + per_frame <= PAGE_SIZE / 100
    machine.host.destroy(guest)
    machine.close()


def test_storage_with_a_hole_counts_as_not_mapped_there(machine_keys: MachineKeys) -> None:
    """As in the QEMU engine: guest RAM, nothing, then the hypervisor's own memory."""
    ram = SharedMemory(4 * MIB)
    storage = HostStorage(ram, 128 * MIB)
    uv = Ultravisor(storage, machine_keys)
    base = storage.base

    def call(block: UvcbHeader) -> UvcbHeader:
        storage.write(base + 120 * MIB, block.pack())
        uv.host.call(base + 120 * MIB)
        return type(block).unpack(storage.read(base + 120 * MIB, type(block).SIZE))

    assert call(InitUvcb.call(Command.INIT_UV, stor_origin=base, stor_len=98 * MIB)).rc == 1
    space = MappedSpace(256)
    uv.host.register_address_space(0x1107, space)
    conf = call(
        CreateConfUvcb.call(
            Command.CREATE_SEC_CONF,
            conf_base_stor_origin=base + 100 * MIB,
            conf_stor_origin_virt=base + 102 * MIB,
            guest_stor_len=MIB,
            guest_sca=base + 104 * MIB,
            guest_asce=0x1107,
        )
    )
    assert isinstance(conf, CreateConfUvcb)
    image = seal_image([(0, b"kernel")], [machine_keys.host.public_key()])
    storage.write(base + 121 * MIB, image.header)
    parameters = SetParametersUvcb.call(
        Command.SET_SEC_CONF_PARAMS,
        guest_handle=conf.guest_handle,
        sec_header_origin_virt=base + 121 * MIB,
        sec_header_len=len(image.header),
    )
    assert call(parameters).rc == 1
    space.map_run(0, 1024 - 16, 32)  # half in RAM, half where nothing is
    part = image.components[0]
    with pytest.raises(UvcRefusal) as caught:
        uv.host.unpack_run(conf.guest_handle, 20 * PAGE_SIZE, PAGE_SIZE, prefix=part.prefix)
    assert caught.value.answer is PageCall.NOT_MAPPED
    storage.write((1024 - 16) * PAGE_SIZE, part.stored)
    uv.host.unpack_run(conf.guest_handle, 0, PAGE_SIZE, prefix=part.prefix)
    assert call(HandleUvcb.call(Command.VERIFY_IMG, handle=conf.guest_handle)).rc == 1
    with pytest.raises(UvcRefusal) as caught:
        uv.host.import_run(conf.guest_handle, 0, 32 * PAGE_SIZE)
    assert (caught.value.answer, caught.value.done) == (PageCall.NOT_MAPPED, 16)
    space.map_run(64, 1024 - 32, 16)
    space.map_run(80, 1024, 16)
    assert uv.firmware.adopt_all(conf.guest_handle) == 16
    for address in (5 * MIB, base - PAGE_SIZE):
        with pytest.raises(ProgramInterruption):
            uv.host.read(address, 1)
        assert call(FrameUvcb.call(Command.CONV_FROM_SEC_STOR, paddr=address)).rc == PageCall.OUTSIDE.rc
    assert uv.host.page_counts(conf.guest_handle)["private"] == 32
    storage.close()
    ram.close()
