"""Requests that a guest hands to the ultravisor: fetching them from its storage, and opening them."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.dat import ASCE_REAL_SPACE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import OperandMemory
from zseal.crypto.request import OpenedRequest, open_request
from zseal.errors import VerificationError
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import TAG_SIZE, Request, RequestHeader
from zseal.formats.se_header import PlainFlags
from zseal.formats.uv_codes import Generic, ResponseCode
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import MachineState

_TRANSLATION = frozenset(
    {
        ProgramCode.SEGMENT_TRANSLATION,
        ProgramCode.PAGE_TRANSLATION,
        ProgramCode.TRANSLATION_SPECIFICATION,
        ProgramCode.ASCE_TYPE,
        ProgramCode.REGION_FIRST_TRANSLATION,
        ProgramCode.REGION_SECOND_TRANSLATION,
        ProgramCode.REGION_THIRD_TRANSLATION,
    }
)


def check_designation(memory: OperandMemory) -> None:
    """Raise UvcRefusal (rc 0030) if the guest's home address space is a real space."""
    if memory.designation is not None and memory.designation & ASCE_REAL_SPACE:
        raise UvcRefusal(Generic.REAL_SPACE)


def _refusal(error: ProgramInterruption, memory: OperandMemory, access: ResponseCode) -> UvcRefusal | None:
    """Return how an address that cannot be used is refused; None for an exception that is the guest's or host's."""
    if memory.designation is not None:  # with DAT off a translation exception is the host's, whose page is missing
        if error.code in _TRANSLATION:
            return UvcRefusal(Generic.INNER_TRANSLATION)
        if error.code is ProgramCode.ADDRESSING:
            return UvcRefusal(Generic.INNER_ADDRESS)
    if error.code in (ProgramCode.ADDRESSING, ProgramCode.PROTECTION):
        return UvcRefusal(access)
    return None


def read_guest(memory: OperandMemory, address: int, length: int, access: ResponseCode) -> bytes:
    """Return ``length`` bytes of guest storage; raises UvcRefusal (``access``, 0031, 0032), or what the host mends."""
    try:
        return memory.read(address, length)
    except ProgramInterruption as error:
        refusal = _refusal(error, memory, access)
        if refusal is None:
            raise
        raise refusal from error


def check_writable(memory: OperandMemory, address: int, length: int, access: ResponseCode) -> None:
    """Raise what a store to guest storage would raise, as :func:`read_guest` does, without making it."""
    try:
        memory.check(address, length, write=True)
    except ProgramInterruption as error:
        refusal = _refusal(error, memory, access)
        if refusal is None:
            raise
        raise refusal from error


def fetch_request(memory: OperandMemory, address: int, header: RequestHeader, access: ResponseCode) -> Request:
    """Return the request at ``address``, whose lengths were checked."""
    data = read_guest(memory, address, header.rql, access)
    end = header.rql - header.sea - TAG_SIZE
    return Request(data[:end], data[end:-TAG_SIZE], data[-TAG_SIZE:])


def slots_of(request: Request, offset: int) -> Sequence[KeySlot]:
    """Return the key slots of a request whose lengths were checked."""
    return request.slots(offset)


def open_for(
    machine: MachineState,
    guest: Configuration,
    request: Request,
    offset: int,
    customer_key: bytes,
    answer: ResponseCode,
) -> OpenedRequest:
    """Open a request with this machine's host keys; raises UvcRefusal with ``answer``.

    The backup host key counts if the guest's image allows backup keys.
    """
    keys: list[ec.EllipticCurvePrivateKey] = [machine.keys.host]
    accepted = guest.accepted
    if machine.keys.backup is not None and accepted is not None and PlainFlags.BACKUP_KEYS in accepted.pcf:
        keys.append(machine.keys.backup)
    try:
        return open_request(request, request.slots(offset), customer_key, keys)
    except VerificationError as error:
        raise UvcRefusal(answer, detail=error.message) from error
