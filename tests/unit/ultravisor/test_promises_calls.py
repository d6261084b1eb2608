"""Observable promises 1 to 13: the instruction, QUI and INIT_UV."""

from __future__ import annotations

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import MASK_64BIT, PROBLEM_STATE, Psw
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys, key_hash
from zseal.formats.uv_codes import Command, Generic, Init, Issuer
from zseal.formats.uvcb import (
    CreateConfUvcb,
    HandleUvcb,
    InitUvcb,
    QueryKeysUvcb,
    QuiUvcb,
    SetParametersUvcb,
    ShareUvcb,
    UvcbHeader,
)
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor import Feature, Settings
from zseal.ultravisor.calls.table import CALLS
from zseal.ultravisor.dispatch import check_instruction
from zseal.ultravisor.state import Row

HOST_CALLS = [row for row in CALLS if Issuer.HOST in row.command.issuer]
UVC = bytes.fromhex("b9a40002")


def _raw(command: int, length: int) -> bytes:
    return UvcbHeader(length=length, command=command).pack().ljust(length, b"\0")


def _issue(machine: ModelMachine, data: bytes, address: int = 0x5000) -> tuple[int, int, bytes]:
    machine.ultravisor.host.write(address, data)
    cc = machine.ultravisor.host.call(address)
    after = machine.ultravisor.host.read(address, len(data))
    return cc, UvcbHeader.unpack(after).rc, after


@pytest.mark.parametrize("code", [*(int(command) for command in Command), 0x4242])
def test_promise_01_uvc_in_problem_state_is_refused(machine: ModelMachine, code: int) -> None:
    block = _raw(code, 0x40)
    machine.ultravisor.host.write(0x5000, block)
    with pytest.raises(ProgramInterruption) as caught:
        check_instruction(UVC, Psw(MASK_64BIT | PROBLEM_STATE, 0))
    assert caught.value.code is ProgramCode.PRIVILEGED_OPERATION
    assert machine.ultravisor.host.read(0x5000, len(block)) == block


@pytest.mark.parametrize("instruction", ["b9a41002", "b9a40102", "b9a4ff02"])
def test_promise_02_non_zero_m_fields_are_refused(instruction: str) -> None:
    with pytest.raises(ProgramInterruption) as caught:
        check_instruction(bytes.fromhex(instruction), Psw(MASK_64BIT, 0))
    assert caught.value.code is ProgramCode.SPECIFICATION


def test_instruction_checks_pass_and_name_the_register() -> None:
    assert check_instruction(UVC, Psw(MASK_64BIT, 0)) == 2


def test_promise_03_unreadable_block_interrupts_and_stores_nothing(machine: ModelMachine, guest: ModelGuest) -> None:
    uv = machine.ultravisor
    secure = guest.configuration.space.resolve(0x10) << PAGE_SHIFT
    own = machine.host.frames.take(2)
    for address, code in (
        (machine.storage.size, ProgramCode.ADDRESSING),
        (secure, ProgramCode.SECURE_STORAGE_ACCESS),
        (own * PAGE_SIZE + 4, ProgramCode.SPECIFICATION),
    ):
        with pytest.raises(ProgramInterruption) as caught:
            uv.host.call(address)
        assert caught.value.code is code
    # the header fits its page, the tail reaches into a secure one
    tail = secure - 8
    block = _raw(Command.QUI, 0x120)[:8]
    uv.firmware.storage.write(tail, block)
    with pytest.raises(ProgramInterruption) as caught:
        uv.host.call(tail)
    assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
    assert uv.firmware.storage.read(tail, 8) == block
    # a guest's block in a page its host does not map
    with pytest.raises(ProgramInterruption) as caught:
        uv.firmware.guest_call(guest.handle, 0x80000)
    assert caught.value.code is ProgramCode.PAGE_TRANSLATION


def test_promise_04_unknown_command(machine: ModelMachine, guest: ModelGuest) -> None:
    cc, rc, after = _issue(machine, _raw(0x4242, 0x40))
    assert (cc, rc) == (1, 2)
    assert after[6:] == _raw(0x4242, 0x40)[6:]
    cc, answer = guest.issue(UvcbHeader(length=8, command=0x4242))
    assert (cc, answer.rc) == (1, 2)


@pytest.mark.parametrize(
    "row", [row for row in HOST_CALLS if row.command is not Command.QUI], ids=lambda r: r.command.name
)
def test_promise_05_host_commands_are_unknown_to_a_guest(guest: ModelGuest, row: Row) -> None:
    command = row.command
    cc, answer = guest.issue(HandleUvcb.call(command, handle=guest.handle))
    assert (cc, answer.rc) == (1, Generic.INVALID_COMMAND.rc)
    assert not _bit(guest.machine.ultravisor.query(Issuer.GUEST).inst_calls, command.bit)


@pytest.mark.parametrize("command", [c for c in Command if c.issuer is Issuer.GUEST], ids=lambda c: c.name)
def test_promise_06_guest_commands_are_unknown_to_the_host(machine: ModelMachine, command: Command) -> None:
    machine.host.initialise()
    cc, rc, _ = _issue(machine, _raw(command, 0x48))
    assert (cc, rc) == (1, 2)
    assert not _bit(machine.ultravisor.query().inst_calls, command.bit)


def _bit(mask: bytes, bit: int) -> bool:
    return bool(mask[bit // 8] & 0x80 >> bit % 8)


@pytest.mark.parametrize("disabled", [(), (Command.SET_SHARED_ACCESS,), (Command.REMOVE_SHARED_ACCESS,)])
def test_promise_07_share_and_unshare_bits_are_equal(machine_keys: MachineKeys, disabled: tuple[Command, ...]) -> None:
    machine = ModelMachine(keys=machine_keys, settings=Settings(disabled_calls=frozenset(disabled)))
    for issuer in (Issuer.HOST, Issuer.GUEST):
        mask = machine.ultravisor.query(issuer).inst_calls
        assert _bit(mask, 8) == _bit(mask, 9) == (issuer is Issuer.GUEST and not disabled)
    machine.close()


def test_large_frames_are_verified_where_the_feature_is(machine_keys: MachineKeys) -> None:
    machine = ModelMachine(keys=machine_keys, settings=Settings(features=Feature.MISC))
    machine.host.initialise()
    assert not _bit(machine.ultravisor.query().inst_calls, Command.VERIFY_LARGE_FRAME.bit)
    assert _issue(machine, _raw(Command.VERIFY_LARGE_FRAME, 0x28))[1] == 2
    machine.close()


def test_promise_08_qui_length_rules(machine: ModelMachine) -> None:
    cc, rc, _ = _issue(machine, _raw(Command.QUI, 0xA0))
    assert (cc, rc) == (1, 5)
    full = machine.ultravisor.query().pack()
    for length in (0xA8, 0xB0, 0x118):
        filled = _raw(Command.QUI, length)[:8] + b"\xee" * (length - 8)
        cc, rc, after = _issue(machine, filled + b"\xdd" * 64)
        assert (cc, rc) == (1, 0x100)
        assert after[8:0x10] == b"\xee" * 8, "reserved bytes stay the caller's"
        assert after[0x10:length] == full[0x10:length]
        assert after[length:] == b"\xdd" * 64
    for length in (0x120, 0x200):
        cc, rc, after = _issue(machine, _raw(Command.QUI, length)[:8] + b"\xee" * (length - 8))
        assert (cc, rc) == (0, 1)
        assert after[8:0x10] == b"\xee" * 8
        assert after[0x10:0x120] == full[0x10:]
        assert after[0x120:] == b"\xee" * (length - 0x120)


def test_promise_09_qui_bits_match_what_works(machine: ModelMachine, guest: ModelGuest) -> None:
    lengths = {row.command: row.minimum or row.layout.SIZE for row in CALLS}
    for command in Command:
        if command is Command.QUI:
            continue
        _, rc, _ = _issue(machine, _raw(command, lengths.get(command, 0x48)))
        assert (rc == 2) == (not _bit(machine.ultravisor.query().inst_calls, command.bit)), command.name
        block = UvcbHeader(length=lengths.get(command, 0x48), command=command)
        guest.write(0x1000, bytes(0x400))
        _, answer = guest.issue(block)
        assert (answer.rc == 2) == (not _bit(machine.ultravisor.query(Issuer.GUEST).inst_calls, command.bit)), (
            command.name
        )
    assert _bit(machine.ultravisor.query().inst_calls, 0)
    assert _bit(machine.ultravisor.query(Issuer.GUEST).inst_calls, 0)


def test_promise_10_before_init_only_qui_and_init_work(machine: ModelMachine) -> None:
    for row in HOST_CALLS:
        if row.command not in (Command.QUI, Command.INIT_UV):
            _, rc, _ = _issue(machine, _raw(row.command, row.layout.SIZE))
            assert rc == 3, row.command.name
    assert _issue(machine, _raw(Command.QUI, 0x120))[:2] == (0, 1)
    assert machine.ultravisor.snapshot().frames["donated"] == 0


def test_promise_11_init_checks(machine: ModelMachine) -> None:
    size = machine.ultravisor.settings.uv_base_storage
    top = machine.storage.size

    def rc(origin: int, length: int = size) -> int:
        return machine.host.issue(InitUvcb.call(Command.INIT_UV, stor_origin=origin, stor_len=length))[1].rc

    assert rc(0x7FF00000) == Init.BELOW_2G.rc == 0x108
    assert rc(2 << 30, size - PAGE_SIZE) == rc(2 << 30, size + MIB) == rc(2 << 30, 0) == Init.LENGTH.rc
    assert rc(top) == rc(1 << 62) == Init.ORIGIN.rc
    assert rc(top - size + MIB) == Init.END.rc
    assert rc((2 << 30) + PAGE_SIZE) != 1
    machine.ultravisor.firmware.host_cpus.others_stopped = False
    assert rc(2 << 30) == Init.CPUS_RUNNING.rc
    machine.ultravisor.firmware.host_cpus.others_stopped = True
    machine.ultravisor.firmware.host_cpus.prefixes = (0, (2 << 30) + 0x10000)
    assert rc(2 << 30) == Init.PREFIX.rc
    machine.ultravisor.firmware.host_cpus.prefixes = (0,)
    assert machine.ultravisor.snapshot().frames["donated"] == 0
    assert rc(2 << 30) == 1
    assert rc(2 << 30) == Init.ALREADY.rc


def test_promise_12_donated_base_storage_is_unreachable(machine: ModelMachine) -> None:
    uv, size = machine.ultravisor, machine.ultravisor.settings.uv_base_storage
    uv.host.write(2 << 30, b"\xaa" * PAGE_SIZE)
    machine.host.initialise()
    for address in (2 << 30, (2 << 30) + size - 1):
        for access in (lambda at: uv.host.read(at, 1), lambda at: uv.host.write(at, b"x")):
            with pytest.raises(ProgramInterruption) as caught:
                access(address)
            assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
            assert caught.value.teid == (address & ~0xFFF) | 4
    with pytest.raises(ProgramInterruption):
        uv.host.view(2 << 30, PAGE_SIZE)
    uv.machine_reset()
    assert uv.host.read(2 << 30, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert not uv.initialised
    assert not any(count for state, count in uv.snapshot().frames.items() if state != "non_secure")
    machine.host.initialise()


def test_promise_13_inner_address_errors_use_rc(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB)
    for address, length in ((1 << 50, 640), (machine.storage.size - 320, 640)):
        block = SetParametersUvcb.call(
            Command.SET_SEC_CONF_PARAMS,
            guest_handle=configuration.handle,
            sec_header_origin_virt=address,
            sec_header_len=length,
        )
        assert machine.host.issue(block)[1].rc == 0x103
    create = CreateConfUvcb.call(
        Command.CREATE_SEC_CONF,
        conf_base_stor_origin=machine.host.frames.take(256) << PAGE_SHIFT,
        conf_stor_origin_virt=1 << 50,
        guest_stor_len=MIB,
        guest_sca=machine.host.frames.take(4) << PAGE_SHIFT,
        guest_asce=0x77107,
    )
    machine.ultravisor.host.register_address_space(0x77107, configuration.space)
    assert machine.host.issue(create)[1].rc == 0x31


def test_query_keys_lists_host_and_backup_hash(machine: ModelMachine) -> None:
    machine.host.initialise()
    hashes = machine.host.call(QueryKeysUvcb.call(Command.QUERY_KEYS)).key_hashes
    assert machine.keys.backup is not None
    assert hashes[:32] == key_hash(machine.keys.host.public_key())
    assert hashes[32:64] == key_hash(machine.keys.backup.public_key())
    assert hashes[64:] == bytes(13 * 32)


def test_qui_of_a_default_machine(machine: ModelMachine) -> None:
    info = machine.ultravisor.query()
    assert info.inst_calls[:3].hex() == "ff1fff"
    assert info.uv_base_stor_len == 98 * MIB
    assert info.supp_se_hdr_versions == 1 << 63
    assert info.supp_se_hdr_pcf & 0x300050E3 == 0x300050E3
    assert info.max_guest_cpu_id == 256
    guest = machine.ultravisor.query(Issuer.GUEST)
    assert guest.inst_calls[:2].hex() == "80c0"


def test_wrong_lengths_are_refused_for_every_command(machine: ModelMachine, guest: ModelGuest) -> None:
    for row in CALLS:
        if row.command is Command.QUI:
            continue
        for length in (8, row.layout.SIZE - 8, row.layout.SIZE + 8):
            if Issuer.HOST in row.command.issuer:
                assert _issue(machine, _raw(row.command, length))[:2] == (1, 5), row.command.name
            else:
                _, answer = guest.issue(UvcbHeader(length=length, command=row.command))
                assert answer.rc == 5, row.command.name
    for length in (0, 7):
        assert _issue(machine, UvcbHeader(length=length, command=Command.QUI).pack())[:2] == (1, 5)
    assert ShareUvcb.SIZE == 0x30
    assert QuiUvcb.SIZE == 0x120
