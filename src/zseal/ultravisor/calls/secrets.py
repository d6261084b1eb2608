"""Calls on a guest's secret store: add, list, lock, retrieve.

The codes are public; the order of the checks of ADD_SECRET follows that of attestation.
"""

from __future__ import annotations

from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.extension_secret import derive_extension_secret
from zseal.crypto.request import OpenedRequest
from zseal.formats.add_secret_request import (
    EXTENSION_SECRET_SIZE,
    MAGIC,
    SECRET_ID_SIZE,
    AddSecretFlags,
    AddSecretPart,
    SecretHeader,
    SecretType,
    fits,
)
from zseal.formats.header_tags import HeaderTags
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import TAG_SIZE, RequestHeader
from zseal.formats.se_header import SecretFlags
from zseal.formats.uv_codes import AddSecret, Generic, ListSecrets, LockSecrets, RetrieveSecret
from zseal.formats.uvcb import AddSecretUvcb, HandleUvcb, ListSecretsUvcb, RetrieveSecretUvcb
from zseal.secret import Secret
from zseal.ultravisor.calls.guest_request import check_designation, check_writable, fetch_request, open_for, read_guest
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.events import Level
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import DONE, MachineState, Reply, Request


def add(machine: MachineState, call: Request[AddSecretUvcb]) -> Reply:
    """ADD_SECRET: a request that is refused changes nothing and leaves no trace in the store's hash."""
    guest, memory, address = call.guest, call.memory, call.uvcb.request_addr_virt
    store = guest.secret_store
    if store.locked:
        raise UvcRefusal(AddSecret.LOCKED)
    check_designation(memory)
    fixed = read_guest(memory, address, AddSecretPart.SIZE, AddSecret.ACCESS)
    header, part = RequestHeader.unpack(fixed), AddSecretPart.unpack(fixed)
    _check_request(machine, header, part)
    at = AddSecretPart.SIZE + KeySlot.SIZE * header.nks
    secret = SecretHeader.unpack(read_guest(memory, address + at, SecretHeader.SIZE, AddSecret.ACCESS))
    kind = _kind(machine, guest, secret)
    id_size = SECRET_ID_SIZE if kind.has_id else 0
    size = at + SecretHeader.SIZE + id_size + secret.length + EXTENSION_SECRET_SIZE + TAG_SIZE
    if header.rql != size or header.sea != secret.length + EXTENSION_SECRET_SIZE:
        raise UvcRefusal(AddSecret.SIZE)
    request = fetch_request(memory, address, header, AddSecret.ACCESS)
    if not request.authenticated.startswith(MAGIC):
        raise UvcRefusal(AddSecret.DECRYPTION, detail="not an add-secret request")
    opened = open_for(machine, guest, request, AddSecretPart.SIZE, part.customer_key, AddSecret.DECRYPTION)
    extension = Secret(opened.plaintext.view()[secret.length :])
    _check_binding(guest, part, extension)
    _check_room(machine, guest, kind)
    secret_id = request.authenticated[at + SecretHeader.SIZE :]
    machine.undo.fields(guest)
    machine.undo.fields(store)
    _carry_out(machine, guest, kind, secret_id, opened, secret.length, AddSecretFlags(part.flags))
    store.record(request.tag, extension)
    machine.note(Level.INFO, "secret added", configuration=guest.guest.serial, type=kind.name)
    return DONE


def _check_request(machine: MachineState, header: RequestHeader, part: AddSecretPart) -> None:
    settings = machine.settings
    if header.version not in settings.add_secret_versions:
        raise UvcRefusal(AddSecret.VERSION, detail=f"version {header.version:#x}")
    if not header.nks:
        raise UvcRefusal(AddSecret.SLOTS)
    if unknown := part.flags & ~settings.add_secret_flags:
        raise UvcRefusal(AddSecret.FLAGS, detail=f"flags {unknown:#018x}")


def _kind(machine: MachineState, guest: Configuration, secret: SecretHeader) -> SecretType:
    """Return the type of the secret; raises UvcRefusal unless machine and guest take it, in this length."""
    try:
        kind = SecretType(secret.type)
    except ValueError:
        raise UvcRefusal(AddSecret.TYPE, detail=f"type {secret.type:#x}") from None
    if kind not in machine.settings.secret_types:
        raise UvcRefusal(AddSecret.TYPE, detail=f"{kind.text} on this machine")
    assert guest.accepted is not None  # noqa: S101 - a guest that issues calls has an accepted header
    if kind is SecretType.UPDATE_CCK and SecretFlags.CCK_UPDATE not in guest.accepted.scf:
        raise UvcRefusal(AddSecret.TYPE, detail="the image does not allow updates of its communication key")
    if not fits(kind, secret.length):
        raise UvcRefusal(AddSecret.LENGTH, detail=f"{secret.length} bytes")
    return kind


def _check_binding(guest: Configuration, part: AddSecretPart, extension: Secret) -> None:
    """Raise UvcRefusal unless the request is for this image, this instance, and has the right extension secret."""
    assert guest.accepted is not None  # noqa: S101 - likewise
    if part.tags != HeaderTags.of(guest.accepted.header).pack():
        raise UvcRefusal(AddSecret.CANNOT_ADD, detail="it is for another image")
    if any(part.cuid) and part.cuid != guest.uid:
        raise UvcRefusal(AddSecret.CANNOT_ADD, detail="it is for another instance")
    expected = guest.secret_store.extension_secret
    if SecretFlags.CCK_EXTENSION_SECRET in guest.accepted.scf:
        expected = derive_extension_secret(guest.accepted.cck, guest.accepted.tag)
    if expected is not None and expected != extension:
        raise UvcRefusal(AddSecret.CANNOT_ADD, detail="its extension secret is another")


def _check_room(machine: MachineState, guest: Configuration, kind: SecretType) -> None:
    settings, store = machine.settings, guest.secret_store
    if kind.stored:
        limit = settings.max_retrievable_secrets if kind.retrievable else settings.max_association_secrets
        if store.count(retrievable=kind.retrievable) >= limit:
            raise UvcRefusal(AddSecret.FULL)


def _carry_out(
    machine: MachineState,
    guest: Configuration,
    kind: SecretType,
    secret_id: bytes,
    opened: OpenedRequest,
    length: int,
    flags: AddSecretFlags,
) -> None:
    value = Secret(opened.plaintext.view()[:length])
    machine.undo.step(value.wipe)
    opened.plaintext.wipe()
    if AddSecretFlags.DISABLE_DUMP in flags:
        guest.secret_store.dump_disabled = True
    if kind is SecretType.UPDATE_CCK:
        machine.undo.afterwards(guest.replace_communication_key(value).wipe)
    elif kind.stored:
        guest.secret_store.add(kind, secret_id, value)


def list_page(machine: MachineState, call: Request[ListSecretsUvcb]) -> Reply:
    """LIST_SECRETS: a page of entries from the given index on; rc 0100 if more follow."""
    memory, address = call.memory, call.uvcb.list_addr_virt
    check_designation(memory)
    check_writable(memory, address, PAGE_SIZE, ListSecrets.ACCESS)
    listed = call.guest.secret_store.page(call.uvcb.start_index)
    memory.write(address, listed.pack().ljust(PAGE_SIZE, b"\0"))
    return Reply(answer=Generic.MORE_DATA if listed.next_index else Generic.EXECUTED)


def lock(machine: MachineState, call: Request[HandleUvcb]) -> Reply:
    """LOCK_SECRETS: until the guest is gone."""
    store = call.guest.secret_store
    if store.locked:
        raise UvcRefusal(LockSecrets.ALREADY)
    machine.undo.fields(store)
    store.locked = True
    machine.note(Level.INFO, "secret store locked", configuration=call.guest.guest.serial)
    return DONE


def retrieve(machine: MachineState, call: Request[RetrieveSecretUvcb]) -> Reply:
    """RETR_SECRET."""
    block, store, memory = call.uvcb, call.guest.secret_store, call.memory
    if not store.stored:
        raise UvcRefusal(RetrieveSecret.EMPTY)
    if block.index >= len(store.stored):
        raise UvcRefusal(RetrieveSecret.INDEX)
    secret = store.stored[block.index]
    if not secret.type.retrievable:
        raise UvcRefusal(RetrieveSecret.TYPE)
    if block.buffer_len < secret.entry.length:
        raise UvcRefusal(RetrieveSecret.BUFFER)
    check_designation(memory)
    check_writable(memory, block.buffer_addr_virt, secret.entry.length, RetrieveSecret.ACCESS)
    memory.write(block.buffer_addr_virt, store.retrieved(secret))
    return DONE
