"""Observable promises 73 and 74: what Linux shows below /sys/firmware/uv, in a guest and in a host."""

from __future__ import annotations

from pathlib import Path

from tests.unit.ultravisor.sysfs import sysfs
from zseal.crypto.keyexchange import key_hash
from zseal.formats.uv_codes import Command, Issuer
from zseal.formats.uvcb import QueryKeysUvcb, QuiUvcb
from zseal.model.machine import ModelMachine
from zseal.readiness.source import CapturedHost
from zseal.readiness.uv_info import HostInfo, SeStatus, read_host_info, to_text
from zseal.ultravisor.calls.table import CALLS


def _read(root: Path, files: dict[str, str]) -> HostInfo:
    for name, content in files.items():
        file = root / "sys/firmware/uv" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return read_host_info(CapturedHost(root))


def test_promise_73_sysfs_of_a_guest_has_the_exact_formats(tmp_path: Path, machine: ModelMachine) -> None:
    files = sysfs(machine.ultravisor.query(Issuer.GUEST), guest=True)
    assert files["query/facilities"] == "80c0000f40000000\n0\n0\n0\n"
    assert files["query/max_address"] == "800000000000\n"
    assert (files["query/max_cpus"], files["query/max_guests"]) == ("257\n", "8388607\n")
    assert files["query/supp_se_hdr_ver"] == "8000000000000000\n"
    assert not any(name.startswith("keys/") for name in files)
    assert to_text(_read(tmp_path, files)).startswith("Secure Execution guest\n")


def test_promise_74_sysfs_of_a_host_and_installed_calls_agree(tmp_path: Path, machine: ModelMachine) -> None:
    machine.host.initialise()
    information = machine.host.call(QuiUvcb.call(Command.QUI))
    keys = machine.host.call(QueryKeysUvcb.call(Command.QUERY_KEYS))
    found = _read(tmp_path, sysfs(information, guest=False, keys=keys))
    assert found.status is SeStatus.HOST
    assert int(found.raw["facilities"].split()[0], 16) == int.from_bytes(information.inst_calls[:8], "big")
    installed = sorted((row.command for row in CALLS if Issuer.HOST in row.command.issuer), key=lambda call: call.bit)
    titles = found.sections[0].entries
    assert titles is not None
    assert [title.lower() for title in titles] == [command.title.lower() for command in installed]
    assert found.key_hashes["host_key"] == key_hash(machine.public_key).hex()
