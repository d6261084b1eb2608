"""Ultravisor control blocks (UVCB), one layout for each command, as arch/s390/include/asm/uv.h of Linux declares them.

All start with the 8-byte header. Fields named ``*_virt`` are logical addresses of the issuer, every other address is
absolute. Bytes that no field covers are reserved: ignored on input and left untouched.
"""

from __future__ import annotations

from typing import Self

from zseal.formats.layout import Layout, raw, u8, u16, u32, u64
from zseal.formats.uv_codes import Command

HEADER_SIZE = 8
RC_OFFSET = 4  # rc and rrc are adjacent: two u16
QUI_MINIMUM = 0xA8
KEY_HASHES = 15


class UvcbHeader(Layout, size=HEADER_SIZE):
    """The header with which every control block starts."""

    length: int = u16(0x00, "length of the whole control block in bytes", default=0)
    command: int = u16(0x02, "command code", default=0)
    rc: int = u16(0x04, "response code (output)", default=0)
    rrc: int = u16(0x06, "response reason code (output)", default=0)

    @classmethod
    def call(cls, command: Command, **fields: int) -> Self:
        """Return a control block for ``command`` with its length filled in."""
        return cls(length=cls.SIZE, command=command, **fields)


class QuiUvcb(UvcbHeader, size=0x120):
    """QUI: everything after the header is output."""

    inst_calls: bytes = raw(0x10, 32, "installed calls, bit n of the list is command bit n", default=bytes(32))
    uv_base_stor_len: int = u64(0x40, "bytes to donate at INIT_UV", default=0)
    conf_base_phys_stor_len: int = u64(0x50, "bytes per configuration, contiguous", default=0)
    conf_base_virt_stor_len: int = u64(0x58, "bytes per configuration, fixed part of the variable storage", default=0)
    conf_virt_var_stor_len: int = u64(0x60, "bytes per configuration and MiB of guest storage", default=0)
    cpu_stor_len: int = u64(0x68, "bytes per CPU", default=0)
    max_num_sec_conf: int = u32(0x7C, "largest number of configurations", default=0)
    max_guest_stor_addr: int = u64(0x80, "end of the largest guest address", default=0)
    max_guest_cpu_id: int = u16(0x9E, "largest CPU number", default=0)
    uv_feature_indications: int = u64(0xA0, "features", default=0)
    supp_se_hdr_versions: int = u64(0xB0, "bit n: header version (n+1)*0x100", default=0)
    supp_se_hdr_pcf: int = u64(0xB8, "supported plaintext control flags", default=0)
    conf_dump_storage_state_len: int = u64(0xC8, "bytes of dump storage state per MiB", default=0)
    conf_dump_finalize_len: int = u64(0xD0, "bytes of the dump completion area", default=0)
    supp_att_req_hdr_ver: int = u64(0xE0, "attestation request versions", default=0)
    supp_att_pflags: int = u64(0xE8, "attestation plaintext flags", default=0)
    supp_add_secret_req_ver: int = u64(0xF8, "add-secret request versions", default=0)
    supp_add_secret_pcf: int = u64(0x100, "add-secret plaintext flags", default=0)
    supp_secret_types: int = u64(0x108, "bit n: secret type n", default=0)
    max_assoc_secrets: int = u16(0x110, "largest number of association secrets", default=0)
    max_retr_secrets: int = u16(0x112, "largest number of retrievable secrets", default=0)


class QueryKeysUvcb(UvcbHeader, size=0x200):
    """QUERY_KEYS: hash 0 is the host key's, 1 the backup host key's, unused ones are zero."""

    key_hashes: bytes = raw(
        0x20, 32 * KEY_HASHES, "15 SHA-256 hashes of public keys (output)", default=bytes(32 * KEY_HASHES)
    )


class InitUvcb(UvcbHeader, size=0x48):
    """INIT_UV."""

    stor_origin: int = u64(0x18, "host absolute address of the donated storage", default=0)
    stor_len: int = u64(0x20, "its length in bytes", default=0)


class CreateConfUvcb(UvcbHeader, size=0x80):
    """CREATE_SEC_CONF."""

    guest_handle: int = u64(0x18, "handle of the new configuration (output)", default=0)
    conf_base_stor_origin: int = u64(0x20, "host absolute address of the base storage", default=0)
    conf_stor_origin_virt: int = u64(0x28, "host logical address of the variable storage", default=0)
    flags: int = u16(0x36, "bit 15 allow AP instructions, bit 14 allow AP interruptions", default=0)
    guest_stor_origin: int = u64(0x38, "main storage origin (MSO)", default=0)
    guest_stor_len: int = u64(0x40, "bytes of guest storage", default=0)
    guest_sca: int = u64(0x48, "host absolute address of the extended system-control area", default=0)
    guest_asce: int = u64(0x50, "address-space-control element that maps guest absolute to host absolute", default=0)


class HandleUvcb(UvcbHeader, size=0x40):
    """The "no data" block: a configuration or CPU handle, for ten commands."""

    handle: int = u64(0x18, "configuration or CPU handle", default=0)


class DestroyConfFastUvcb(UvcbHeader, size=0x48):
    """DESTROY_SEC_CONF_FAST."""

    handle: int = u64(0x18, "configuration handle", default=0)


class CreateCpuUvcb(UvcbHeader, size=0x60):
    """CREATE_SEC_CPU."""

    cpu_handle: int = u64(0x18, "handle of the new CPU (output)", default=0)
    guest_handle: int = u64(0x20, "configuration handle", default=0)
    stor_origin: int = u64(0x28, "host absolute address of the CPU's storage", default=0)
    num: int = u16(0x36, "CPU address", default=0)
    state_origin: int = u64(0x38, "host absolute address of the SIE state description", default=0)


class GuestPageUvcb(UvcbHeader, size=0x28):
    """Import, verify large frame and unpin: a page by its guest address."""

    guest_handle: int = u64(0x18, "configuration handle", default=0)
    gaddr: int = u64(0x20, "guest absolute address", default=0)


class FrameUvcb(UvcbHeader, size=0x20):
    """Export, destroy page and pin: a frame by its host address."""

    paddr: int = u64(0x18, "host absolute address", default=0)


class SetParametersUvcb(UvcbHeader, size=0x50):
    """SET_SEC_CONF_PARAMS."""

    guest_handle: int = u64(0x18, "configuration handle", default=0)
    sec_header_origin_virt: int = u64(0x20, "host logical address of the Secure Execution header", default=0)
    sec_header_len: int = u32(0x28, "its length in bytes", default=0)


class UnpackUvcb(UvcbHeader, size=0x50):
    """UNPACK_IMG."""

    guest_handle: int = u64(0x18, "configuration handle", default=0)
    gaddr: int = u64(0x20, "guest absolute address of the page", default=0)
    tweak_prefix: int = u64(0x28, "tweak prefix of the component", default=0)
    tweak_offset: int = u64(0x30, "byte offset of the page in its component", default=0)


class CpuStateUvcb(UvcbHeader, size=0x50):
    """CPU_SET_STATE."""

    cpu_handle: int = u64(0x18, "CPU handle", default=0)
    state: int = u8(0x27, "1 operating, 2 stopped, 3 check-stop, 5 operating after load", default=0)


class ShareUvcb(UvcbHeader, size=0x30):
    """Share and unshare."""

    paddr: int = u64(0x20, "guest absolute address of the page", default=0)


class AttestUvcb(UvcbHeader, size=0x188):
    """RETR_ATTEST."""

    arcb_addr_virt: int = u64(0x18, "guest logical address of the attestation request", default=0)
    cont_token: int = u64(0x20, "continuation token: 0 on the first call", default=0)
    user_data_len: int = u16(0x2E, "bytes of user data", default=0)
    user_data: bytes = raw(0x30, 256, "user data", default=bytes(256))
    meas_len: int = u32(0x13C, "bytes of the measurement area", default=0)
    meas_addr_virt: int = u64(0x140, "guest logical address of the measurement area", default=0)
    config_uid: bytes = raw(0x148, 16, "configuration unique ID (output)", default=bytes(16))
    add_data_len: int = u32(0x15C, "bytes of the additional-data area; as output, bytes used", default=0)
    add_data_addr_virt: int = u64(0x160, "guest logical address of the additional-data area", default=0)


class AddSecretUvcb(UvcbHeader, size=0x48):
    """ADD_SECRET."""

    request_addr_virt: int = u64(0x20, "guest logical address of the add-secret request", default=0)


class ListSecretsUvcb(UvcbHeader, size=0x48):
    """LIST_SECRETS."""

    start_index: int = u16(0x1E, "index to begin with", default=0)
    list_addr_virt: int = u64(0x20, "guest logical address of a page for the list", default=0)


class RetrieveSecretUvcb(UvcbHeader, size=0x48):
    """RETR_SECRET."""

    index: int = u16(0x18, "index of the secret", default=0)
    buffer_len: int = u32(0x1C, "bytes of the buffer", default=0)
    buffer_addr_virt: int = u64(0x20, "guest logical address of the buffer", default=0)
