"""Calls about the machine itself: QUI, QUERY_KEYS, INIT_UV."""

from __future__ import annotations

from collections.abc import Iterable

from zseal.arch.storage import MIB
from zseal.crypto.keyexchange import key_hash
from zseal.formats.uv_codes import Command, Generic, Init, Issuer
from zseal.formats.uvcb import InitUvcb, QueryKeysUvcb, QuiUvcb, UvcbHeader
from zseal.ultravisor.donations import InUse, NotInStorage, contiguous, holds_prefix
from zseal.ultravisor.events import Level
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import DONE, MachineState, Reply, Request
from zseal.ultravisor.tables import MACHINE

_TWO_GIB = 2 << 30


def installed_calls(commands: Iterable[Command]) -> bytes:
    """Return the 32-byte list that has the bit of each of ``commands`` on."""
    words = sum(1 << (255 - command.bit) for command in commands)
    return words.to_bytes(32, "big")


def version_mask(versions: tuple[int, ...]) -> int:
    """Return the mask with bit n on for version (n + 1) * 0x100."""
    return sum(1 << (64 - (version >> 8)) for version in versions)


def query_information(machine: MachineState, issuer: Issuer) -> QuiUvcb:
    """Return what QUI reports to a host or a guest."""
    settings = machine.settings
    rows = machine.host_rows if issuer is Issuer.HOST else machine.guest_rows
    return QuiUvcb(
        inst_calls=installed_calls(row.command for row in rows.values()),
        uv_base_stor_len=settings.uv_base_storage,
        conf_base_phys_stor_len=settings.conf_base_storage,
        conf_base_virt_stor_len=settings.conf_virtual_base,
        conf_virt_var_stor_len=settings.conf_virtual_per_mib,
        cpu_stor_len=settings.cpu_storage,
        max_num_sec_conf=settings.max_configurations,
        max_guest_stor_addr=settings.max_guest_address,
        max_guest_cpu_id=settings.max_cpu_number,
        uv_feature_indications=settings.features,
        supp_se_hdr_versions=version_mask(settings.header_versions),
        supp_se_hdr_pcf=settings.plaintext_flags,
        supp_att_req_hdr_ver=version_mask(settings.attestation_versions),
        supp_att_pflags=settings.attestation_flags,
        supp_add_secret_req_ver=version_mask(settings.add_secret_versions),
        supp_add_secret_pcf=settings.add_secret_flags,
        supp_secret_types=sum(1 << (63 - kind) for kind in settings.secret_types),
        max_assoc_secrets=settings.max_association_secrets,
        max_retr_secrets=settings.max_retrievable_secrets,
    )


def query(machine: MachineState, call: Request[UvcbHeader]) -> Reply:
    """QUI: as much as fits the caller's block; rc 0100 if that is not all."""
    issuer = Issuer.HOST if call.caller is None else Issuer.GUEST
    information = query_information(machine, issuer).pack()
    answer = Generic.EXECUTED if call.length >= QuiUvcb.SIZE else Generic.MORE_DATA
    first = QuiUvcb.FIELDS["inst_calls"].offset  # the reserved bytes before it keep the caller's values
    return Reply(raw=information[first : call.length], raw_offset=first, answer=answer)


def query_keys(machine: MachineState, call: Request[QueryKeysUvcb]) -> Reply:
    """QUERY_KEYS: the hashes with which key slots name this machine's host keys."""
    keys = [machine.keys.host] + ([machine.keys.backup] if machine.keys.backup else [])
    hashes = b"".join(key_hash(key.public_key()) for key in keys)
    return Reply(fields={"key_hashes": hashes.ljust(QueryKeysUvcb.FIELDS["key_hashes"].size, b"\0")})


def initialise(machine: MachineState, call: Request[InitUvcb]) -> Reply:
    """INIT_UV: take the base storage."""
    block, storage = call.uvcb, machine.storage
    if machine.initialised:
        raise UvcRefusal(Init.ALREADY)
    if not machine.host_cpus.others_stopped:
        raise UvcRefusal(Init.CPUS_RUNNING)
    if block.stor_len != machine.settings.uv_base_storage:
        raise UvcRefusal(Init.LENGTH)
    if block.stor_origin < _TWO_GIB:
        raise UvcRefusal(Init.BELOW_2G)
    if block.stor_origin >= storage.size:
        raise UvcRefusal(Init.ORIGIN)
    if block.stor_origin + block.stor_len > storage.size:
        raise UvcRefusal(Init.END)
    if block.stor_origin % MIB:
        raise UvcRefusal(Init.ALIGNMENT)
    frames = contiguous(block.stor_origin, block.stor_len)
    if holds_prefix(frames, machine.host_cpus.prefixes):
        raise UvcRefusal(Init.PREFIX)
    machine.undo.fields(machine)
    try:
        machine.base = machine.ledger.donate(frames, MACHINE)
    except (NotInStorage, InUse):
        raise UvcRefusal(Init.END) from None
    machine.note(Level.INFO, "ultravisor initialised", origin=block.stor_origin, length=block.stor_len)
    return DONE
