"""RETR_ATTEST: measures the guest that asks for it.

The order of the checks is the one that a public conformance test observes on hardware.
"""

from __future__ import annotations

from zseal.crypto.measurement import Measured
from zseal.formats.attestation_request import (
    ADDITIONAL_SIZES,
    HMAC_SHA_512,
    MAX_USER_DATA,
    MEASUREMENT_KEY_SIZE,
    MEASUREMENT_SIZE,
    NONCE_SIZE,
    AttestationFlags,
    AttestationPart,
    additional_size,
)
from zseal.formats.header_tags import HeaderTags
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import TAG_SIZE, RequestHeader
from zseal.formats.uv_codes import Attest
from zseal.formats.uvcb import AttestUvcb
from zseal.secret import Secret
from zseal.ultravisor.calls.guest_request import check_designation, check_writable, fetch_request, open_for, read_guest
from zseal.ultravisor.configuration import Configuration
from zseal.ultravisor.events import Level
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import MachineState, Reply, Request

FIRMWARE_STATE = b"software ultravisor (zseal), not hardware".ljust(320, b"\0")
"""What attestation reports as the state of this machine's firmware; IBM's service knows none like it."""


def _check_request(machine: MachineState, header: RequestHeader, part: AttestationPart) -> AttestationFlags:
    settings, flags = machine.settings, AttestationFlags(part.flags)
    if header.version not in settings.attestation_versions:
        raise UvcRefusal(Attest.VERSION, detail=f"version {header.version:#x}")
    if not header.nks:
        raise UvcRefusal(Attest.SLOTS)
    if unknown := int(flags) & ~settings.attestation_flags:
        raise UvcRefusal(Attest.FLAG, detail=f"flags {unknown:#018x}")
    if part.mai != HMAC_SHA_512:
        raise UvcRefusal(Attest.ALGORITHM)
    if header.sea != MEASUREMENT_KEY_SIZE + (NONCE_SIZE if AttestationFlags.NONCE in flags else 0):
        raise UvcRefusal(Attest.ENCRYPTED_SIZE)
    if header.rql != AttestationPart.SIZE + KeySlot.SIZE * header.nks + header.sea + TAG_SIZE:
        raise UvcRefusal(Attest.LENGTH)
    return flags


def retrieve_attestation(machine: MachineState, call: Request[AttestUvcb]) -> Reply:
    """RETR_ATTEST."""
    block, guest, memory = call.uvcb, call.guest, call.memory
    if block.cont_token:
        raise UvcRefusal(Attest.TOKEN)
    if block.user_data_len > MAX_USER_DATA:
        raise UvcRefusal(Attest.USER_DATA)
    check_designation(memory)
    fixed = read_guest(memory, block.arcb_addr_virt, AttestationPart.SIZE, Attest.REQUEST_ACCESS)
    header, part = RequestHeader.unpack(fixed), AttestationPart.unpack(fixed)
    flags = _check_request(machine, header, part)
    if block.meas_len < MEASUREMENT_SIZE:
        raise UvcRefusal(Attest.MEASUREMENT_SIZE)
    size = additional_size(flags)
    if block.add_data_len < size:
        raise UvcRefusal(Attest.ADDITIONAL_SIZE)
    request = fetch_request(memory, block.arcb_addr_virt, header, Attest.REQUEST_ACCESS)
    opened = open_for(machine, guest, request, AttestationPart.SIZE, part.customer_key, Attest.DECRYPTION)
    check_writable(memory, block.meas_addr_virt, MEASUREMENT_SIZE, Attest.MEASUREMENT_ACCESS)
    if size:
        check_writable(memory, block.add_data_addr_virt, size, Attest.ADDITIONAL_ACCESS)
    additional = _additional(guest, flags, opened.phkh)
    key = Secret(opened.plaintext.view()[:MEASUREMENT_KEY_SIZE])
    nonce = Secret(opened.plaintext.view()[MEASUREMENT_KEY_SIZE:]) if AttestationFlags.NONCE in flags else None
    opened.plaintext.wipe()
    user_data = block.user_data[: block.user_data_len]
    measured = Measured(tags=_tags(guest), cuid=guest.uid, user_data=user_data, nonce=nonce, additional=additional)
    memory.write(block.meas_addr_virt, measured.measure(key))
    if additional:
        memory.write(block.add_data_addr_virt, additional)
    key.wipe()
    machine.note(Level.INFO, "guest attested", configuration=guest.guest.serial, flags=int(flags))
    return Reply(fields={"config_uid": guest.uid, "add_data_len": len(additional)})


def _tags(guest: Configuration) -> HeaderTags:
    assert guest.accepted is not None  # noqa: S101 - a guest that issues calls has an accepted header
    return HeaderTags.of(guest.accepted.header)


def _additional(guest: Configuration, flags: AttestationFlags, phkh: bytes) -> bytes:
    assert guest.accepted is not None  # noqa: S101 - likewise
    values = {
        AttestationFlags.IMAGE_PHKH: guest.accepted.host_key_hash,
        AttestationFlags.ATTESTATION_PHKH: phkh,
        AttestationFlags.SECRET_STORE_HASH: guest.secret_store.hash,
        AttestationFlags.FIRMWARE_STATE: FIRMWARE_STATE,
    }
    return b"".join(values[flag] for flag in ADDITIONAL_SIZES if flag in flags)
