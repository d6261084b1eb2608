"""The table of installed calls, and the steps every UVC goes through."""

from __future__ import annotations

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import OperandMemory
from zseal.formats import uvcb
from zseal.formats.layout import Layout
from zseal.formats.uv_codes import RC_NEED_DESTROY, Answer, Command, Issuer
from zseal.formats.uv_codes import Generic as GenericAnswer
from zseal.ultravisor import calls_configuration as configuration
from zseal.ultravisor import calls_cpu as cpu
from zseal.ultravisor import calls_machine as machine_calls
from zseal.ultravisor import calls_storage as storage
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.events import Level
from zseal.ultravisor.faults import BUSY
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.state import Busy, Call, HostMemory, MachineState, Reply, Request, Row

_BLOCK_ALIGNMENT = 8
_EXECUTED = GenericAnswer.EXECUTED.rc
_BEFORE_INIT = (Command.QUI, Command.INIT_UV)


# code, list bit and issuer of each command stand in zseal.formats.uv_codes.Command
CALLS: tuple[Row, ...] = (
    Call(Command.QUI, uvcb.UvcbHeader, machine_calls.query, minimum=uvcb.QUI_MINIMUM),
    Call(Command.QUERY_KEYS, uvcb.QueryKeysUvcb, machine_calls.query_keys),
    Call(Command.INIT_UV, uvcb.InitUvcb, machine_calls.initialise),
    Call(Command.CREATE_SEC_CONF, uvcb.CreateConfUvcb, configuration.create),
    Call(Command.DESTROY_SEC_CONF, uvcb.HandleUvcb, configuration.destroy),
    Call(Command.DESTROY_SEC_CONF_FAST, uvcb.DestroyConfFastUvcb, configuration.destroy_fast),
    Call(Command.CREATE_SEC_CPU, uvcb.CreateCpuUvcb, cpu.create),
    Call(Command.DESTROY_SEC_CPU, uvcb.HandleUvcb, cpu.destroy),
    Call(Command.CONV_TO_SEC_STOR, uvcb.GuestPageUvcb, storage.import_page),
    Call(Command.CONV_FROM_SEC_STOR, uvcb.FrameUvcb, storage.export_page),
    Call(Command.DESTR_SEC_STOR, uvcb.FrameUvcb, storage.destroy_page),
    Call(Command.VERIFY_LARGE_FRAME, uvcb.GuestPageUvcb, storage.verify_large_frame),
    Call(Command.SET_SEC_CONF_PARAMS, uvcb.SetParametersUvcb, configuration.set_parameters),
    Call(Command.UNPACK_IMG, uvcb.UnpackUvcb, configuration.unpack),
    Call(Command.VERIFY_IMG, uvcb.HandleUvcb, configuration.verify),
    Call(Command.CPU_RESET, uvcb.HandleUvcb, cpu.reset),
    Call(Command.CPU_RESET_INITIAL, uvcb.HandleUvcb, cpu.initial_reset),
    Call(Command.PREPARE_RESET, uvcb.HandleUvcb, configuration.prepare_reset),
    Call(Command.CPU_RESET_CLEAR, uvcb.HandleUvcb, cpu.clear_reset),
    Call(Command.CPU_SET_STATE, uvcb.CpuStateUvcb, cpu.set_state),
    Call(Command.SET_UNSHARE_ALL, uvcb.HandleUvcb, configuration.unshare_all),
    Call(Command.PIN_PAGE_SHARED, uvcb.FrameUvcb, storage.pin_page),
    Call(Command.UNPIN_PAGE_SHARED, uvcb.GuestPageUvcb, storage.unpin_page),
    Call(Command.SET_SHARED_ACCESS, uvcb.ShareUvcb, storage.share_page),
    Call(Command.REMOVE_SHARED_ACCESS, uvcb.ShareUvcb, storage.unshare_page),
)


def installed_rows(issuer: Issuer, settings: Settings) -> dict[int, Row]:
    """Return the rows that ``issuer`` may use on a machine with ``settings``, by command code."""
    missing = settings.missing_calls
    return {row.command.value: row for row in CALLS if issuer in row.command.issuer and row.command not in missing}


def check_instruction(instruction: bytes, psw: Psw) -> int:
    """Check the 4 bytes of a UVC before it is carried out; return the number of the register (R2) with the address.

    Raises ProgramInterruption: privileged operation in the problem state, specification where an M field is not zero.
    """
    if psw.problem_state:
        raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
    if instruction[2]:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    return instruction[3] & 15


def execute(
    machine: MachineState,
    address: int,
    memory: OperandMemory,
    *,
    host: HostMemory | None = None,
    caller: Configuration | None = None,
) -> int:
    """Carry out the UVC whose control block is at logical ``address`` of ``memory``; return the condition code.

    ``caller`` is the guest that issues it; ``host`` is the same memory for a call of the host. Raises
    ProgramInterruption, with nothing stored, where the block is misaligned or not accessible, and non-secure storage
    access where a guest has to wait for its host to import a page.
    """
    if address % _BLOCK_ALIGNMENT:
        raise ProgramInterruption(ProgramCode.SPECIFICATION, address)
    memory.check(address, uvcb.HEADER_SIZE, write=True)
    header = uvcb.UvcbHeader.unpack(memory.read(address, uvcb.HEADER_SIZE))
    memory.check(address, header.length, write=True)
    row = (machine.host_rows if caller is None else machine.guest_rows).get(header.command)
    reply, rc, rrc = Reply(), 0, 0
    try:
        row = _permitted(machine, caller, row, header.length)
        machine.calls[header.command] += 1
        fault = machine.faults.take(row.command)
        if isinstance(fault, Answer):
            raise UvcRefusal(fault)
        if fault is not None:
            return fault
        size = row.layout.SIZE if row.minimum is None else uvcb.HEADER_SIZE
        block = row.layout.unpack(memory.read(address, size))
        reply = row.handler(machine, Request(block, memory, host, caller, header.length))
        rc, rrc = reply.answer.rc | (RC_NEED_DESTROY if reply.need_destroy else 0), reply.answer.rrc or 0
        if machine.log.level <= Level.DEBUG:
            machine.log.add(Level.DEBUG, row.command.name, **_page_details(block, caller))
    except Busy:
        return BUSY
    except UvcRefusal as refusal:
        rc, rrc = refusal.rc, refusal.rrc
        if row is not None:
            machine.refused[header.command] += 1
        machine.log.add(Level.WARNING, "call refused", command=header.command, rc=rc, rrc=rrc)
    _store(memory, address, row, reply, rc, rrc)
    return 0 if rc == _EXECUTED else 1


def _page_details(block: Layout, caller: Configuration | None) -> dict[str, int | str]:
    """What the log says of a call that was done: who issued it, and for which page."""
    details: dict[str, int | str] = {} if caller is None else {"configuration": caller.guest.serial}
    for name in ("gaddr", "paddr"):
        if name in block.FIELDS:
            details[name] = int(getattr(block, name))
    return details


def _permitted(machine: MachineState, caller: Configuration | None, row: Row | None, length: int) -> Row:
    if length < uvcb.HEADER_SIZE:
        raise UvcRefusal(GenericAnswer.INVALID_LENGTH)
    if row is None:
        raise UvcRefusal(GenericAnswer.INVALID_COMMAND)
    if caller is None and machine.base is None and row.command not in _BEFORE_INIT:
        raise UvcRefusal(GenericAnswer.INVALID_STATE, detail="the ultravisor is not initialised")
    if not row.fits(length):
        raise UvcRefusal(GenericAnswer.INVALID_LENGTH)
    return row


def _store(memory: OperandMemory, address: int, row: Row | None, reply: Reply, rc: int, rrc: int) -> None:
    """Store the outputs, rc and rrc last."""
    try:
        if reply.raw:
            memory.write(address + uvcb.HEADER_SIZE, reply.raw)
        if row is not None:
            for name, value in reply.fields.items():
                spec = row.layout.FIELDS[name]
                data = value if isinstance(value, bytes) else value.to_bytes(spec.size, "big")
                memory.write(address + spec.offset, data)
        memory.write(address + uvcb.RC_OFFSET, rc.to_bytes(2, "big") + rrc.to_bytes(2, "big"))
    except ProgramInterruption:
        # The call itself took the block's page out of the caller's reach. It was done, and the condition code says so.
        return
