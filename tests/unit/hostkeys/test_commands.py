"""The commands ``zseal machine`` and ``zseal hostkey``: output, messages and exit codes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.hostkeys.conftest import Pki
from zseal.cli.main import main
from zseal.hostkeys.machine import Machine


@dataclass
class Result:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str


class Command:
    """Runs ``zseal``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(item) for item in arguments])
        out, err = self._capsys.readouterr()
        code = caught.value.code
        return Result(code if isinstance(code, int) else 0, out, err)


@pytest.fixture
def zseal(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Machine.create(tmp_path_factory.mktemp("machines") / "box").directory


def trust(box: Path) -> list[str]:
    """The options that make the documents of the machine acceptable."""
    crls = ",".join(str(box / f"{name}.crl") for name in ("signing-key", "intermediate-ca", "root-ca"))
    certificates = f"{box / 'signing-key.crt'},{box / 'intermediate-ca.crt'}"
    return ["-C", certificates, "--crl", crls, "--root-ca", str(box / "root-ca.crt"), "--offline"]


def test_machine_create_and_show(zseal: Command, tmp_path: Path) -> None:
    created = zseal("machine", "create", tmp_path / "m", "--name", "my box")
    assert created.code == 0
    assert "zseal software machine (not hardware)" in created.out
    shown = json.loads(zseal("machine", "show", tmp_path / "m", "--format", "json").out)
    machine = Machine.load(tmp_path / "m")
    assert shown["name"] == "my box"
    assert shown["host_key_hash"] == machine.host_key_hashes[0].hex()
    assert all(Path(shown[key]).is_file() for key in shown if key.endswith(("document", "_ca", "signing_key")))
    assert zseal("machine", "show", tmp_path / "m", "--format", "key-hashes").out == machine.key_hashes_file()
    assert shown["host_key_hash"] in zseal("machine", "show", tmp_path / "m").out
    again = zseal("machine", "create", tmp_path / "m")
    assert (again.code, again.out) == (1, "")
    assert again.err == f"error: {tmp_path / 'm'}: it exists; choose a directory that does not exist yet\n"


def test_machine_crl_revokes(zseal: Command, tmp_path: Path) -> None:
    box = Machine.create(tmp_path / "box").directory
    assert zseal("machine", "crl", box, "--revoke", box / "host-key.crt").code == 0
    result = zseal("hostkey", "verify", "-k", box / "host-key.crt", *trust(box))
    assert result.code == 1
    assert "rule revocation: the host key was revoked" in result.err


def test_verify_accepts(zseal: Command, box: Path) -> None:
    documents = ["-k", f"{box / 'host-key.crt'},{box / 'backup-host-key.crt'}", "-k", str(box / "host-key.crt")]
    result = zseal("hostkey", "verify", *documents, *trust(box))
    assert result.code == 0
    assert result.out.count(": accepted\n") == 3
    assert result.err.count("the key of a software machine, not of hardware") == 3
    quiet = zseal("hostkey", "verify", "-q", *documents, *trust(box))
    assert (quiet.code, quiet.out) == (0, "")


def test_verify_refuses_and_says_which_rule_and_what_to_do(zseal: Command, box: Path) -> None:
    options = [item for item in trust(box) if item != "--offline"][:-2]  # without the root
    result = zseal("hostkey", "verify", "--offline", "-k", box / "host-key.crt", *options)
    assert result.code == 1
    assert f"{box / 'host-key.crt'}: REFUSED" in result.out
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {box / 'host-key.crt'}: host-key document refused, rule chain: ")
    assert line.endswith("if you want that, name its root with --root-ca")


def test_every_refused_document_has_its_own_line(zseal: Command, box: Path, tmp_path: Path) -> None:
    documents: list[str | Path] = []
    for curve in ("p256", "p384"):
        (tmp_path / curve).write_bytes(Pki(host={"key": f"{curve}:h"}).parts["host"].pem())
        documents += ["-k", tmp_path / curve]
    result = zseal("hostkey", "verify", "-q", "-k", box / "host-key.crt", *documents, *trust(box))
    assert (result.code, result.out) == (1, "")
    refused = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in refused] == [str(tmp_path / "p256"), str(tmp_path / "p384")]
    assert all("rule key-type" in line and "; give the host-key document of the machine" in line for line in refused)


def test_verify_json(zseal: Command, box: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "p256.crt"
    wrong.write_bytes(Pki(host={"key": "p256:h"}).parts["host"].pem())
    result = zseal("hostkey", "verify", "--format", "json", "-k", box / "host-key.crt", "-k", wrong, *trust(box))
    assert result.code == 1
    report = json.loads(result.out)
    assert report["accepted"] is False
    good, bad = report["documents"]
    assert list(good) == list(bad)
    assert good["accepted"] and good["software"] and good["failure"] is None
    assert [check["rule"] for check in good["checks"]][-1] == "revocation"
    assert len(good["chain"]) == 3
    assert bad["failure"]["reason"] == "wrong-key-type"
    assert (bad["failure"]["openssl_code"], bad["host_key_hash"]) == (None, None)


def test_usage_errors(zseal: Command, box: Path) -> None:
    document = ["-k", str(box / "host-key.crt")]
    certificate = ["--cert", str(box / "signing-key.crt")]
    for arguments in (
        certificate,
        document,
        [*document, *certificate, "--no-verify"],
        [*document, "--bundle", "x", "--no-verify"],
        [*document, *certificate, "--root-ca", "a", "--root-ca", "b"],
        [*document, *certificate, "--unknown"],
    ):
        result = zseal("hostkey", "verify", *arguments)
        assert (result.code, result.out) == (2, ""), arguments
        assert result.err
    for command in (["status"], ["show"], ["bundle", "create", "x"], ["bundle", "show"]):
        assert zseal("hostkey", *command).code == 2


def test_no_verify_only_reads(zseal: Command, box: Path, tmp_path: Path) -> None:
    result = zseal("hostkey", "verify", "--no-verify", "-k", box / "host-key.crt", "--crl", "ignored", "--offline")
    assert result.code == 0
    assert "not verified" in result.err
    wrong = tmp_path / "p256.crt"
    wrong.write_bytes(Pki(host={"key": "p256:h"}).parts["host"].pem())
    assert "P-521" in zseal("hostkey", "verify", "--no-verify", "-k", wrong).err


def test_unreadable_files_are_named(zseal: Command, box: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("what")
    for option, place in (("-k", "host-key document"), ("-C", "certificate file"), ("--crl", "CRL")):
        result = zseal("hostkey", "verify", "-k", box / "host-key.crt", *trust(box), option, tmp_path / "missing")
        assert result.code == 1
        assert f"error: {tmp_path / 'missing'}: cannot read the {place}: No such file" in result.err
        refused = zseal("hostkey", "verify", "-k", box / "host-key.crt", *trust(box), option, garbage)
        assert refused.code == 1
        assert f"error: {garbage}: no " in refused.err


def test_file_name_with_comma(zseal: Command, box: Path, tmp_path: Path) -> None:
    odd = tmp_path / "host,key.crt"
    odd.write_bytes((box / "host-key.crt").read_bytes())
    assert zseal("hostkey", "verify", "-k", odd, *trust(box)).code == 0


def test_show(zseal: Command, box: Path) -> None:
    files = [box / "host-key.crt", box / "root-ca.crt", box / "signing-key.crt", box / "signing-key.crl"]
    shown = json.loads(zseal("hostkey", "show", *files, "--format", "json").out)
    assert [item["kind"] for item in shown] == ["host-key document", "root CA", "signing key", "CRL"]
    assert shown[0]["host_key_hash"] == Machine.load(box).host_key_hashes[0].hex()
    assert shown[1]["host_key_hash"] is None or len(shown[1]["host_key_hash"]) == 64
    text = zseal("hostkey", "show", *files).out
    assert shown[0]["host_key_hash"] in text
    assert f"{files[0]}: host-key document of a software machine" in text


def test_bundle_and_status(zseal: Command, box: Path, tmp_path: Path) -> None:
    bundle, options = tmp_path / "bundle", trust(box)
    without_root = [*options[:4], "--offline"]
    assert zseal("hostkey", "bundle", "create", bundle, *without_root).code == 0
    verified = zseal(
        "hostkey",
        "verify",
        "-k",
        box / "host-key.crt",
        "--bundle",
        bundle,
        "--root-ca",
        box / "root-ca.crt",
        "--offline",
    )
    assert verified.code == 0
    assert zseal("hostkey", "verify", "-k", box / "host-key.crt", "--bundle", bundle, "--offline").code == 1
    assert zseal("hostkey", "status", "--bundle", bundle).code == 0
    assert zseal("hostkey", "status", "--bundle", bundle, "--days", "99999").code == 1
    assert "trusted roots: those of the system" in zseal("hostkey", "bundle", "show", bundle).out
    shown = json.loads(zseal("hostkey", "bundle", "show", bundle, "--format", "json").out)
    assert {item["kind"] for item in shown["items"]} == {"signing key", "intermediate CA", "CRL"}
    updated = zseal("hostkey", "bundle", "update", bundle, "-k", box / "host-key.crt", "--offline")
    assert updated.code == 0
    assert "written: host-keys/host-key-" in updated.out
    assert zseal("hostkey", "bundle", "create", bundle, *without_root).code == 1
    assert "it has no bundle.json" in zseal("hostkey", "bundle", "show", tmp_path).err


def test_status_of_files(zseal: Command, box: Path, tmp_path: Path) -> None:
    result = zseal("hostkey", "status", box / "host-key.crt", box / "root-ca.crl", "--format", "json")
    assert result.code == 0
    items = json.loads(result.out)
    assert [item["state"] for item in items] == ["valid", "valid"]
    assert items[0]["days_left"] > 9000
    expired = tmp_path / "old.crt"
    old = datetime(2021, 1, 1, tzinfo=UTC)
    expired.write_bytes(Pki(host={"end": old}).parts["host"].pem())
    result = zseal("hostkey", "status", expired, "--days", "0")
    assert result.code == 1
    assert result.out.startswith("expired       2021-01-01")


def sorted_into_directories(box: Path, at: Path) -> Path:
    """The files of a machine in the directories in which relying parties keep them."""
    for directory, names in {
        "certs": ["signing-key.crt", "intermediate-ca.crt"],
        "crls": ["signing-key.crl", "intermediate-ca.crl", "root-ca.crl"],
        "hkds": ["host-key.crt"],
    }.items():
        (at / directory).mkdir()
        (at / directory / "README").write_text("not a certificate")
        for name in names:
            (at / directory / name).write_bytes((box / name).read_bytes())
    return at


def test_directories_of_certificates_lists_and_documents_are_taken_whole(
    zseal: Command, box: Path, tmp_path: Path
) -> None:
    at = sorted_into_directories(box, tmp_path)
    given: list[str | Path] = [
        "-C",
        at / "certs",
        "--crl",
        at / "crls",
        "-k",
        at / "hkds",
        "--root-ca",
        box / "root-ca.crt",
        "--offline",
    ]
    verified = zseal("hostkey", "verify", *given)
    assert verified.code == 0
    assert f"{at / 'hkds' / 'host-key.crt'}: accepted" in verified.out
    created = zseal("hostkey", "bundle", "create", at / "bundle", *given[:6], "--offline")
    assert created.code == 0
    shown = json.loads(zseal("hostkey", "bundle", "show", at / "bundle", "--format", "json").out)
    assert {item["kind"] for item in shown["items"]} >= {"signing key", "intermediate CA", "CRL"}


def test_all_in_one_directory_is_sorted_out(zseal: Command, box: Path, tmp_path: Path) -> None:
    at = sorted_into_directories(box, tmp_path)
    for path in (at / "crls").glob("*.crl"):
        path.rename(at / "certs" / path.name)
    given: list[str | Path] = ["-C", at / "certs", "-k", at / "hkds", "--root-ca", box / "root-ca.crt", "--offline"]
    assert zseal("hostkey", "verify", *given).code == 0
    assert zseal("hostkey", "verify", *given, "--crl", at / "certs").code == 0


def test_a_directory_without_any_certificate_is_named(zseal: Command, box: Path, tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "README").write_text("nothing")
    failed = zseal("hostkey", "verify", "-k", box / "host-key.crt", "-C", tmp_path / "certs", "--offline")
    assert failed.code == 1
    assert f"{tmp_path / 'certs'}: no file in it ends in .crt" in failed.err
    (tmp_path / "certs" / "signing-key.crt").write_bytes((box / "signing-key.crt").read_bytes())
    failed = zseal("hostkey", "verify", "-k", box / "host-key.crt", *trust(box), "--crl", tmp_path / "certs")
    assert failed.code == 1
    assert "no CRL in it" in failed.err
