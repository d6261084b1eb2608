"""What Linux 6.12 (arch/s390/kernel/uv.c) shows of an ultravisor's answers below /sys/firmware/uv."""

from __future__ import annotations

from zseal.formats.uvcb import QueryKeysUvcb, QuiUvcb

_PAGE = 4096


def _hexadecimal(value: int) -> str:
    return f"{value:x}\n"  # %lx: no prefix, no leading zeros


def sysfs(information: QuiUvcb, *, guest: bool, keys: QueryKeysUvcb | None = None) -> dict[str, str]:
    """Return the content of every file; ``keys`` where the kernel found QUERY_KEYS among the installed calls."""
    calls = information.inst_calls
    files = {
        "prot_virt_guest": f"{int(guest)}\n",
        "prot_virt_host": f"{int(not guest)}\n",
        "query/facilities": "".join(
            _hexadecimal(int.from_bytes(calls[at : at + 8], "big")) for at in range(0, len(calls), 8)
        ),
        "query/feature_indications": _hexadecimal(information.uv_feature_indications),
        "query/max_cpus": f"{information.max_guest_cpu_id + 1}\n",
        "query/max_guests": f"{information.max_num_sec_conf}\n",
        "query/max_address": _hexadecimal(-(-information.max_guest_stor_addr // _PAGE) * _PAGE),
        "query/supp_se_hdr_ver": _hexadecimal(information.supp_se_hdr_versions),
        "query/supp_se_hdr_pcf": _hexadecimal(information.supp_se_hdr_pcf),
        "query/dump_storage_state_len": _hexadecimal(information.conf_dump_storage_state_len),
        "query/dump_finalize_len": _hexadecimal(information.conf_dump_finalize_len),
        "query/uv_query_dump_cpu_len": _hexadecimal(information.cpu_stor_len),
        "query/supp_att_req_hdr_ver": _hexadecimal(information.supp_att_req_hdr_ver),
        "query/supp_att_pflags": _hexadecimal(information.supp_att_pflags),
        "query/supp_add_secret_req_ver": _hexadecimal(information.supp_add_secret_req_ver),
        "query/supp_add_secret_pcf": _hexadecimal(information.supp_add_secret_pcf),
        "query/supp_secret_types": _hexadecimal(information.supp_secret_types),
        "query/max_secrets": f"{information.max_assoc_secrets}\n",
    }
    if keys is not None:
        hashes = [keys.key_hashes[at : at + 32].hex() + "\n" for at in range(0, len(keys.key_hashes), 32)]
        files |= {"keys/host_key": hashes[0], "keys/backup_host_key": hashes[1], "keys/all": "".join(hashes)}
    return files
