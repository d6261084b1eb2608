"""Calls on configurations: create, destroy, set parameters, unpack, verify, reset."""

from __future__ import annotations

import contextlib
import secrets

import numpy as np

from zseal.arch.dat import ASCE_PRIVATE_SPACE, ASCE_REAL_SPACE
from zseal.arch.interruption import ProgramInterruption
from zseal.arch.sie import SCA_SIZE
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.xts import XtsPages
from zseal.errors import InputError
from zseal.formats.uv_codes import Command, CreateConf, Generic, PageCall, ResponseCode, SetParameters
from zseal.formats.uvcb import (
    CreateConfUvcb,
    DestroyConfFastUvcb,
    HandleUvcb,
    SetParametersUvcb,
    UnpackUvcb,
)
from zseal.ultravisor import sharing
from zseal.ultravisor.access import host_check
from zseal.ultravisor.configuration import Configuration, ConfigurationState
from zseal.ultravisor.donations import InUse, NotInStorage, contiguous, holds_prefix
from zseal.ultravisor.events import Level
from zseal.ultravisor.image.acceptance import AcceptedHeader, accept_header, check_digests
from zseal.ultravisor.image.unpacking import Unpacking
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.securestorage import GuestStorage
from zseal.ultravisor.settings import Feature
from zseal.ultravisor.state import DONE, HostMemory, MachineState, Reply, Request, UntranslatedMemory
from zseal.ultravisor.tables import Index

_ALLOW_AP, _ALLOW_AP_INTERRUPTIONS = 0x0001, 0x0002
_HANDLE_KIND = 0xC0


def _variable_frames(machine: MachineState, memory: HostMemory, origin: int, size: int) -> Index:
    """Translate the variable storage page by page: it is contiguous in the host's logical storage only."""
    if origin % PAGE_SIZE:
        raise UvcRefusal(CreateConf.BASE_ALIGNMENT)
    if size > machine.storage.size:
        raise UvcRefusal(Generic.INNER_TRANSLATION, detail="the variable storage is larger than the machine's storage")
    if isinstance(memory, UntranslatedMemory):
        with contextlib.suppress(ProgramInterruption):  # it may lie in several pieces
            memory.check_storage(origin, size)
            return contiguous(origin, size)
    try:
        pages = range(origin, origin + size, PAGE_SIZE)
        return np.array([memory.absolute(page, write=True) for page in pages], np.int64) >> PAGE_SHIFT
    except ProgramInterruption:
        raise UvcRefusal(Generic.INNER_TRANSLATION) from None


def _check_guest(machine: MachineState, block: CreateConfUvcb) -> None:
    limit = machine.settings.max_guest_address
    if block.guest_stor_origin >= limit or block.guest_stor_origin % PAGE_SIZE:
        raise UvcRefusal(CreateConf.ORIGIN)
    if block.guest_stor_origin + block.guest_stor_len > limit:
        raise UvcRefusal(CreateConf.END)
    if any(other.asce == block.guest_asce for other in machine.configurations.values()):
        raise UvcRefusal(CreateConf.ASCE_IN_USE)
    if not block.guest_asce & ASCE_PRIVATE_SPACE or block.guest_asce & ASCE_REAL_SPACE:
        raise UvcRefusal(CreateConf.ASCE)
    if block.guest_asce not in machine.spaces:
        raise UvcRefusal(CreateConf.ASCE, detail="no address space is known for it")
    allowed = (_ALLOW_AP if Feature.AP in machine.settings.features else 0) | (
        _ALLOW_AP_INTERRUPTIONS if Feature.AP_INTERRUPTIONS in machine.settings.features else 0
    )
    if block.flags & ~allowed or block.guest_stor_len % PAGE_SIZE or not block.guest_stor_len:
        raise UvcRefusal(CreateConf.FLAGS)


def _offered(machine: MachineState, call: Request[CreateConfUvcb]) -> Index:
    """Return the frames offered as base and variable storage; all checks are done except whether they are in use."""
    block, prefixes = call.uvcb, machine.host_cpus.prefixes
    base = contiguous(block.conf_base_stor_origin, machine.settings.conf_base_storage)
    if block.conf_base_stor_origin + machine.settings.conf_base_storage > machine.storage.size:
        raise UvcRefusal(CreateConf.BASE_OUTSIDE)
    if block.conf_base_stor_origin % PAGE_SIZE:
        raise UvcRefusal(CreateConf.BASE_ALIGNMENT)
    if holds_prefix(base, prefixes):
        raise UvcRefusal(CreateConf.BASE_PREFIX)
    size = machine.settings.variable_storage(block.guest_stor_len)
    variable = _variable_frames(machine, call.host_memory, block.conf_stor_origin_virt, size)
    if int(variable.max()) >= machine.storage.size >> PAGE_SHIFT:
        raise UvcRefusal(Generic.INNER_ADDRESS)
    if holds_prefix(variable, prefixes):
        raise UvcRefusal(CreateConf.VIRT_PREFIX)
    if not block.guest_sca:
        raise UvcRefusal(CreateConf.SCA_ZERO)
    offered = np.concatenate((base, variable))
    try:
        machine.storage.view(block.guest_sca, SCA_SIZE).release()
        host_check(machine.secure, block.guest_sca, SCA_SIZE)
    except ProgramInterruption:
        raise UvcRefusal(CreateConf.SCA) from None
    if np.isin(contiguous(block.guest_sca, SCA_SIZE), offered).any():
        raise UvcRefusal(CreateConf.DONATED, detail="the system-control area is part of it")
    return offered


def create(machine: MachineState, call: Request[CreateConfUvcb]) -> Reply:
    """CREATE_SEC_CONF."""
    block = call.uvcb
    _check_guest(machine, block)
    offered = _offered(machine, call)
    if len(machine.configurations) >= machine.settings.max_configurations:
        raise UvcRefusal(CreateConf.TOO_MANY)
    serial = machine.new_serial()
    try:
        donation = machine.ledger.donate(offered, serial)
    except NotInStorage:
        raise UvcRefusal(CreateConf.BASE_OUTSIDE) from None
    except InUse:
        raise UvcRefusal(CreateConf.DONATED) from None
    guest = GuestStorage(
        serial,
        origin=block.guest_stor_origin >> PAGE_SHIFT,
        pages=block.guest_stor_len >> PAGE_SHIFT,
        space=machine.spaces[block.guest_asce],
        undo=machine.undo,
        blank_states=machine.blank_states,
    )
    machine.secure.attach(guest)
    configuration = Configuration(
        handle=machine.new_handle(_HANDLE_KIND),
        guest=guest,
        asce=block.guest_asce,
        sca=block.guest_sca,
        uid=secrets.token_bytes(16),
        donation=donation,
    )
    machine.undo.entry(machine.configurations, configuration.handle)
    machine.configurations[configuration.handle] = configuration
    machine.note(Level.INFO, "configuration created", configuration=serial, bytes=block.guest_stor_len)
    fields = {"guest_handle": configuration.handle}
    failure = machine.faults.take(Command.CREATE_SEC_CONF, half_done=True)
    if isinstance(failure, ResponseCode):
        configuration.state = ConfigurationState.BROKEN  # it is new: nothing of it would be left
        machine.note(Level.WARNING, "creation failed half-way", configuration=serial, rc=failure.rc)
        return Reply(fields, answer=failure, need_destroy=True)
    return Reply(fields)


def _destroy(machine: MachineState, handle: int) -> None:
    configuration = machine.configuration(handle)
    if configuration.cpus:
        raise UvcRefusal(Generic.INVALID_STATE, detail=f"it still has {len(configuration.cpus)} CPUs")
    machine.secure.detach(configuration.guest)
    machine.ledger.give_back(configuration.donation)
    machine.undo.entry(machine.configurations, handle)
    del machine.configurations[handle]
    machine.undo.afterwards(configuration.wipe)
    machine.note(Level.INFO, "configuration destroyed", configuration=configuration.guest.serial)


def destroy(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """DESTROY_SEC_CONF: leftover pages stay secure until they are exported or destroyed one by one."""
    _destroy(machine, call.uvcb.handle)
    return DONE


def destroy_fast(machine: MachineState, call: Request[DestroyConfFastUvcb]) -> Reply:
    """DESTROY_SEC_CONF_FAST: the same here, because neither waits for pages."""
    _destroy(machine, call.uvcb.handle)
    return DONE


def set_parameters(machine: MachineState, call: Request[SetParametersUvcb]) -> Reply:
    """SET_SEC_CONF_PARAMS: read the SE header, which the host keeps unchanged."""
    block = call.uvcb
    configuration = machine.configuration(block.guest_handle, ConfigurationState.CREATED)
    if block.sec_header_len > machine.settings.max_header_size:
        raise UvcRefusal(SetParameters.HEADER_SIZE, detail=f"{block.sec_header_len} bytes")
    try:
        data = call.memory.read(block.sec_header_origin_virt, block.sec_header_len)
    except ProgramInterruption:
        raise UvcRefusal(SetParameters.ACCESS) from None
    machine.undo.fields(configuration)
    try:
        accepted = accept_header(data, machine.keys, settings=machine.settings)
        machine.undo.step(accepted.wipe)
        configuration.unpacking = Unpacking(_image_cipher(accepted), machine.unpacked_ahead(data))
    except UvcRefusal:
        configuration.state = ConfigurationState.BROKEN
        raise
    configuration.accepted = accepted
    configuration.state = ConfigurationState.PARAMETERS
    machine.note(
        Level.INFO,
        "header accepted",
        configuration=configuration.guest.serial,
        pages=accepted.digests.nep,
        pcf=int(accepted.pcf),
    )
    return DONE


def _image_cipher(accepted: AcceptedHeader) -> XtsPages | None:
    try:
        return accepted.cipher()
    except InputError as error:
        accepted.wipe()
        raise UvcRefusal(SetParameters.RESERVED, detail=error.message) from error


def unpack_run(machine: MachineState, handle: int, gaddr: int, length: int, *, prefix: int, offset: int) -> None:
    """UNPACK_IMG for every page of ``length`` bytes at guest absolute ``gaddr``; ``offset`` is that of the first.

    Unlike the calls on single pages it takes the address without the main storage origin: the image was sealed for it.
    """
    configuration = machine.configuration(handle, ConfigurationState.PARAMETERS, ConfigurationState.UNPACKING)
    guest, unpacking = configuration.guest, configuration.unpacking
    first = guest.absolute_page(gaddr)
    if first is None or length % PAGE_SIZE or not 0 < length >> PAGE_SHIFT <= guest.pages.count - first:
        raise UvcRefusal(PageCall.OUTSIDE)
    assert unpacking is not None  # noqa: S101 - set with the state PARAMETERS
    machine.undo.fields(configuration)
    try:
        machine.secure.unpack_run(guest, first, length >> PAGE_SHIFT, prefix=prefix, offset=offset, unpacking=unpacking)
    finally:
        if unpacking.begun:
            configuration.state = ConfigurationState.UNPACKING


def unpack(machine: MachineState, call: Request[UnpackUvcb]) -> Reply:
    """UNPACK_IMG: one page of a component; the order of calls is the order of the digests."""
    block = call.uvcb
    unpack_run(
        machine,
        block.guest_handle,
        block.gaddr,
        PAGE_SIZE,
        prefix=block.tweak_prefix,
        offset=block.tweak_offset,
    )
    return DONE


def verify(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """VERIFY_IMG: after a mismatch the configuration can only be destroyed."""
    configuration = machine.configuration(call.uvcb.handle, ConfigurationState.UNPACKING)
    accepted, unpacking = configuration.accepted, configuration.unpacking
    assert accepted is not None and unpacking is not None  # noqa: S101 - set with the state PARAMETERS
    serial = configuration.guest.serial
    machine.undo.fields(configuration)
    configuration.unpacking = None
    machine.undo.afterwards(unpacking.wipe)
    machine.undo.afterwards(accepted.image_key.wipe)
    try:
        check_digests(accepted, unpacking.digested.values())
    except UvcRefusal as refusal:
        configuration.state = ConfigurationState.BROKEN
        machine.note(Level.ERROR, "image not verified", configuration=serial, reason=refusal.answer.name)
        raise
    configuration.state = ConfigurationState.SECURE
    machine.note(Level.INFO, "image verified", configuration=serial)
    return DONE


def unshare_all(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """SET_UNSHARE_ALL: with all CPUs stopped, nothing stays shared."""
    configuration = _resettable(machine, call.uvcb.handle)
    machine.undo.fields(configuration)
    count = sharing.unshare_all(machine.secure, configuration.guest)
    configuration.unshared = True
    machine.note(Level.INFO, "unshared all", configuration=configuration.guest.serial, pages=count)
    return DONE


def prepare_reset(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """PREPARE_RESET: after unsharing; the next CPU that loads starts at guest absolute 0."""
    configuration = _resettable(machine, call.uvcb.handle)
    if not configuration.unshared:
        raise UvcRefusal(Generic.INVALID_STATE, detail="unshare all pages first")
    machine.undo.fields(configuration)
    configuration.was_reset = True
    configuration.state = ConfigurationState.SECURE
    machine.note(Level.INFO, "reset prepared", configuration=configuration.guest.serial)
    return DONE


def _resettable(machine: MachineState, handle: int) -> Configuration:
    configuration = machine.configuration(handle, ConfigurationState.SECURE, ConfigurationState.RESETTING)
    if not configuration.stopped:
        raise UvcRefusal(Generic.INVALID_STATE, detail="stop all CPUs first")
    return configuration
