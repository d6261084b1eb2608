"""Ultravisor control blocks (UVCB), one layout a command, as arch/s390/include/asm/uv.h of Linux declares them.

All start with the 8-byte header; fields named ``*_virt`` are logical addresses of the issuer, every other address is
absolute. What no field covers is reserved: ignored on input and left untouched.
"""

from __future__ import annotations

from zseal.formats.layout import Layout, raw, u8, u16, u32, u64

HEADER_SIZE = 8
RC_OFFSET = 4  # rc and rrc lie together: two u16
QUI_MINIMUM = 0xA8
KEY_HASHES = 15


class UvcbHeader(Layout, size=HEADER_SIZE):
    """What every control block starts with."""

    length: int = u16(0x00, "length of the whole control block in bytes")
    command: int = u16(0x02, "command code")
    rc: int = u16(0x04, "response code (output)")
    rrc: int = u16(0x06, "response reason code (output)")


class QuiUvcb(UvcbHeader, size=0x120):
    """QUI: everything after the header is output."""

    inst_calls: bytes = raw(0x10, 32, "installed calls, bit n of the list is command bit n")
    uv_base_stor_len: int = u64(0x40, "bytes to donate at INIT_UV")
    conf_base_phys_stor_len: int = u64(0x50, "bytes per configuration, contiguous")
    conf_base_virt_stor_len: int = u64(0x58, "bytes per configuration, fixed part of the variable storage")
    conf_virt_var_stor_len: int = u64(0x60, "bytes per configuration and MiB of guest storage")
    cpu_stor_len: int = u64(0x68, "bytes per CPU")
    max_num_sec_conf: int = u32(0x7C, "largest number of configurations")
    max_guest_stor_addr: int = u64(0x80, "end of the largest guest address")
    max_guest_cpu_id: int = u16(0x9E, "largest CPU number")
    uv_feature_indications: int = u64(0xA0, "features")
    supp_se_hdr_versions: int = u64(0xB0, "bit n: header version (n+1)*0x100")
    supp_se_hdr_pcf: int = u64(0xB8, "supported plaintext control flags")
    conf_dump_storage_state_len: int = u64(0xC8, "bytes of dump storage state per MiB")
    conf_dump_finalize_len: int = u64(0xD0, "bytes of the dump completion area")
    supp_att_req_hdr_ver: int = u64(0xE0, "attestation request versions")
    supp_att_pflags: int = u64(0xE8, "attestation plaintext flags")
    supp_add_secret_req_ver: int = u64(0xF8, "add-secret request versions")
    supp_add_secret_pcf: int = u64(0x100, "add-secret plaintext flags")
    supp_secret_types: int = u64(0x108, "bit n: secret type n")
    max_assoc_secrets: int = u16(0x110, "largest number of association secrets")
    max_retr_secrets: int = u16(0x112, "largest number of retrievable secrets")


class QueryKeysUvcb(UvcbHeader, size=0x200):
    """QUERY_KEYS: hash 0 is the host key's, 1 the backup host key's, unused ones are zero."""

    key_hashes: bytes = raw(0x20, 32 * KEY_HASHES, "15 SHA-256 hashes of public keys (output)")


class InitUvcb(UvcbHeader, size=0x48):
    """INIT_UV."""

    stor_origin: int = u64(0x18, "host absolute address of the donated storage")
    stor_len: int = u64(0x20, "its length in bytes")


class CreateConfUvcb(UvcbHeader, size=0x80):
    """CREATE_SEC_CONF."""

    guest_handle: int = u64(0x18, "handle of the new configuration (output)")
    conf_base_stor_origin: int = u64(0x20, "host absolute address of the base storage")
    conf_stor_origin_virt: int = u64(0x28, "host logical address of the variable storage")
    flags: int = u16(0x36, "bit 15 allow AP instructions, bit 14 allow AP interruptions")
    guest_stor_origin: int = u64(0x38, "main storage origin (MSO)")
    guest_stor_len: int = u64(0x40, "bytes of guest storage")
    guest_sca: int = u64(0x48, "host absolute address of the extended system-control area")
    guest_asce: int = u64(0x50, "address-space-control element that maps guest absolute to host absolute")


class HandleUvcb(UvcbHeader, size=0x40):
    """The "no data" block: a configuration or CPU handle, for ten commands."""

    handle: int = u64(0x18, "configuration or CPU handle")


class DestroyConfFastUvcb(UvcbHeader, size=0x48):
    """DESTROY_SEC_CONF_FAST."""

    handle: int = u64(0x18, "configuration handle")


class CreateCpuUvcb(UvcbHeader, size=0x60):
    """CREATE_SEC_CPU."""

    cpu_handle: int = u64(0x18, "handle of the new CPU (output)")
    guest_handle: int = u64(0x20, "configuration handle")
    stor_origin: int = u64(0x28, "host absolute address of the CPU's storage")
    num: int = u16(0x36, "CPU address")
    state_origin: int = u64(0x38, "host absolute address of the SIE state description")


class GuestPageUvcb(UvcbHeader, size=0x28):
    """Import, verify large frame and unpin: a page by its guest address."""

    guest_handle: int = u64(0x18, "configuration handle")
    gaddr: int = u64(0x20, "guest absolute address")


class FrameUvcb(UvcbHeader, size=0x20):
    """Export, destroy page and pin: a frame by its host address."""

    paddr: int = u64(0x18, "host absolute address")


class SetParametersUvcb(UvcbHeader, size=0x50):
    """SET_SEC_CONF_PARAMS."""

    guest_handle: int = u64(0x18, "configuration handle")
    sec_header_origin_virt: int = u64(0x20, "host logical address of the Secure Execution header")
    sec_header_len: int = u32(0x28, "its length in bytes")


class UnpackUvcb(UvcbHeader, size=0x50):
    """UNPACK_IMG."""

    guest_handle: int = u64(0x18, "configuration handle")
    gaddr: int = u64(0x20, "guest absolute address of the page")
    tweak_prefix: int = u64(0x28, "tweak prefix of the component")
    tweak_offset: int = u64(0x30, "byte offset of the page in its component")


class CpuStateUvcb(UvcbHeader, size=0x50):
    """CPU_SET_STATE."""

    cpu_handle: int = u64(0x18, "CPU handle")
    state: int = u8(0x27, "1 operating, 2 stopped, 3 check-stop, 5 operating after load")


class DumpStorageStateUvcb(UvcbHeader, size=0x50):
    """DUMP_CONF_STOR_STATE."""

    config_handle: int = u64(0x18, "configuration handle")
    dump_area_virt: int = u64(0x20, "host logical address of the output")
    gaddr: int = u64(0x28, "guest absolute address, a multiple of 1 MiB")


class DumpCpuUvcb(UvcbHeader, size=0x50):
    """DUMP_CPU."""

    cpu_handle: int = u64(0x18, "CPU handle")
    dump_area_virt: int = u64(0x20, "host logical address of the output")


class DumpCompleteUvcb(UvcbHeader, size=0x50):
    """DUMP_COMPLETE."""

    config_handle: int = u64(0x18, "configuration handle")
    dump_area_virt: int = u64(0x20, "host logical address of the output")


class ShareUvcb(UvcbHeader, size=0x30):
    """Share and unshare."""

    paddr: int = u64(0x20, "guest absolute address of the page")


class AttestUvcb(UvcbHeader, size=0x188):
    """RETR_ATTEST."""

    arcb_virt: int = u64(0x18, "guest logical address of the attestation request")
    cont_token: int = u64(0x20, "continuation token")
    user_data_len: int = u16(0x2E, "bytes of user data")
    user_data: bytes = raw(0x30, 256, "user data")
    meas_len: int = u32(0x13C, "bytes of the measurement area")
    meas_virt: int = u64(0x140, "guest logical address of the measurement area")
    config_uid: bytes = raw(0x148, 16, "configuration unique id (output)")
    add_data_len: int = u32(0x15C, "bytes of the additional-data area; output: bytes used")
    add_data_virt: int = u64(0x160, "guest logical address of the additional-data area")


class AddSecretUvcb(UvcbHeader, size=0x48):
    """ADD_SECRET."""

    addr_virt: int = u64(0x20, "guest logical address of the request")


class ListSecretsUvcb(UvcbHeader, size=0x48):
    """LIST_SECRETS."""

    start_idx: int = u16(0x1E, "index of the first secret wanted")
    list_virt: int = u64(0x20, "guest logical address of the list, one page")


class RetrieveSecretUvcb(UvcbHeader, size=0x48):
    """RETR_SECRET."""

    secret_idx: int = u16(0x18, "index of the secret")
    buf_size: int = u32(0x1C, "bytes of the buffer")
    buf_virt: int = u64(0x20, "guest logical address of the buffer")
