"""The steps of every UVC; :mod:`zseal.ultravisor.calls` has the commands."""

from __future__ import annotations

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import Psw
from zseal.arch.storage import OperandMemory
from zseal.formats import uvcb
from zseal.formats.layout import Layout
from zseal.formats.uv_codes import RC_NEED_DESTROY, Command, ResponseCode
from zseal.formats.uv_codes import Generic as AnyCommand
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.events import Level
from zseal.ultravisor.faults import BUSY
from zseal.ultravisor.refusal import OutOfMemoryError, UvcRefusal
from zseal.ultravisor.state import Busy, HostMemory, MachineState, Reply, Request, Row

_BLOCK_ALIGNMENT = 8
_EXECUTED = AnyCommand.EXECUTED.rc
_BEFORE_INIT = (Command.QUI, Command.INIT_UV)


def check_instruction(instruction: bytes, psw: Psw) -> int:
    """Check the 4 bytes of a UVC before it is carried out; return the number of the register (R2) with the address.

    Raises ProgramInterruption: privileged operation in the problem state, specification if an M field is not zero.
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
    ProgramInterruption, with nothing stored, if the block is misaligned or not accessible, and non-secure storage
    access if a guest has to wait for its host to import a page;
    OutOfMemoryError, with nothing changed.
    """
    if address % _BLOCK_ALIGNMENT:
        raise ProgramInterruption(ProgramCode.SPECIFICATION, address)
    try:
        return _execute(machine, address, memory, host, caller)
    except MemoryError:
        raise OutOfMemoryError from None


def _execute(
    machine: MachineState, address: int, memory: OperandMemory, host: HostMemory | None, caller: Configuration | None
) -> int:
    memory.check(address, uvcb.HEADER_SIZE, write=True)
    header = uvcb.UvcbHeader.unpack(memory.read(address, uvcb.HEADER_SIZE))
    memory.check(address, header.length, write=True)
    row = (machine.host_rows if caller is None else machine.guest_rows).get(header.command)
    try:
        row = _permitted(machine, caller, row, header.length)
        machine.calls[header.command] += 1
        fault = machine.faults.take(row.command)
        if isinstance(fault, ResponseCode):
            raise UvcRefusal(fault)
        if fault is not None:
            return fault
        size = row.layout.SIZE if row.minimum is None else uvcb.HEADER_SIZE
        block = row.layout.unpack(memory.read(address, size))
        with machine.whole():
            reply = row.handler(machine, Request(block, memory, host, caller, header.length))
            rc = reply.answer.rc | (RC_NEED_DESTROY if reply.need_destroy else 0)
            _store(memory, address, rc, reply.answer.rrc or 0, row=row, reply=reply)
        if machine.log.level <= Level.DEBUG:
            machine.log.add(Level.DEBUG, row.command.name, **_page_details(block, caller))
    except Busy:
        return BUSY
    except UvcRefusal as refusal:
        rc = refusal.rc
        if row is not None:
            machine.refused[header.command] += 1
        machine.log.add(Level.WARNING, "call refused", command=header.command, rc=rc, rrc=refusal.rrc)
        _store(memory, address, rc, refusal.rrc)
    return 0 if rc == _EXECUTED else 1


def _page_details(block: Layout, caller: Configuration | None) -> dict[str, int | str]:
    """Return the log's fields for a call: its issuer and its page."""
    details: dict[str, int | str] = {} if caller is None else {"configuration": caller.guest.serial}
    for name in ("gaddr", "paddr"):
        if name in block.FIELDS:
            details[name] = int(getattr(block, name))
    return details


def _permitted(machine: MachineState, caller: Configuration | None, row: Row | None, length: int) -> Row:
    if length < uvcb.HEADER_SIZE:
        raise UvcRefusal(AnyCommand.INVALID_LENGTH)
    if row is None:
        raise UvcRefusal(AnyCommand.INVALID_COMMAND)
    if caller is None and machine.base is None and row.command not in _BEFORE_INIT:
        raise UvcRefusal(AnyCommand.INVALID_STATE, detail="the ultravisor is not initialised")
    if not row.fits(length):
        raise UvcRefusal(AnyCommand.INVALID_LENGTH)
    return row


def _store(
    memory: OperandMemory, address: int, rc: int, rrc: int, *, row: Row | None = None, reply: Reply | None = None
) -> None:
    """Store the outputs, rc and rrc last."""
    try:
        if reply is not None and reply.raw:
            memory.write(address + reply.raw_offset, reply.raw)
        if reply is not None and row is not None:
            for name, value in reply.fields.items():
                spec = row.layout.FIELDS[name]
                data = value if isinstance(value, bytes) else value.to_bytes(spec.size, "big")
                memory.write(address + spec.offset, data)
        memory.write(address + uvcb.RC_OFFSET, rc.to_bytes(2, "big") + rrc.to_bytes(2, "big"))
    except ProgramInterruption:
        # The call itself made the block's page inaccessible to the caller. It succeeded, as the condition code shows.
        return
