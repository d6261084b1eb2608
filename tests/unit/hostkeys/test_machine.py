"""Software machines: what is created, that its documents verify, and that they never pass for hardware."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from zseal.crypto.keyexchange import key_hash
from zseal.errors import FormatError, InputError, OutputError
from zseal.hostkeys.document import load_host_key_document
from zseal.hostkeys.loading import load_objects
from zseal.hostkeys.machine import Machine
from zseal.hostkeys.results import HostKeyVerificationError, Reason
from zseal.hostkeys.software import MARK
from zseal.hostkeys.trust import TrustMaterial

CRLS = ("signing-key.crl", "intermediate-ca.crl", "root-ca.crl")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "box", name="test box")


def trust(machine: Machine, *, root: bool = True) -> TrustMaterial:
    directory = machine.directory
    return TrustMaterial.load(
        certificates=[directory / "signing-key.crt", directory / "intermediate-ca.crt"],
        crls=[directory / name for name in CRLS],
        root_ca=directory / "root-ca.crt" if root else None,
    )


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> Path:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    return path


@pytest.mark.parametrize("name", ["host-key.crt", "backup-host-key.crt"])
def test_documents_pass_the_verification_with_the_root_named(machine: Machine, name: str) -> None:
    document = load_host_key_document(machine.directory / name)
    report = trust(machine).verify([document], offline=True)
    assert report.documents[0].software
    assert len(report.documents[0].chain) == 3


def test_nothing_trusts_the_root_unless_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    # not even where somebody made it a trusted root of the system
    monkeypatch.setenv("SSL_CERT_FILE", str(machine.directory / "root-ca.crt"))
    document = load_host_key_document(machine.directory / "host-key.crt")
    with pytest.raises(HostKeyVerificationError) as caught:
        trust(machine, root=False).verify([document], offline=True)
    assert caught.value.failure.code == 20


def test_every_certificate_says_that_it_is_no_hardware(machine: Machine) -> None:
    for path in machine.directory.glob("*.crt"):
        (certificate,) = load_objects(path).certificates
        assert MARK in certificate.subject_text
        assert MARK in certificate.issuer_text
        assert certificate.software


def test_keys_are_private(machine: Machine) -> None:
    assert stat.S_IMODE(machine.directory.stat().st_mode) == 0o700
    keys = list(machine.directory.rglob("*.pem"))
    assert len(keys) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert "PRIVATE" not in repr(machine)


def test_load_gives_what_create_gave(machine: Machine) -> None:
    loaded = Machine.load(machine.directory)
    assert loaded.name == "test box"
    assert loaded.created == machine.created
    assert loaded.host_key_hashes == machine.host_key_hashes
    assert loaded.host_key_document == machine.host_key_document
    assert loaded.keys.backup is not None
    assert key_hash(loaded.keys.host.public_key()) == machine.host_key_hashes[0]


def test_key_hashes_file_is_as_the_kernel_writes_it(machine: Machine) -> None:
    lines = machine.key_hashes_file().splitlines()
    assert len(lines) == 15
    assert [bytes.fromhex(line) for line in lines[:2]] == list(machine.host_key_hashes)
    assert set(lines[2:]) == {"0" * 64}


@pytest.mark.parametrize(
    "form",
    [
        (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8),
        (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL),
        (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8),
    ],
)
def test_takes_an_existing_host_key(
    tmp_path: Path, form: tuple[serialization.Encoding, serialization.PrivateFormat]
) -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    path = tmp_path / "key"
    path.write_bytes(key.private_bytes(*form, serialization.NoEncryption()))
    machine = Machine.create(tmp_path / "box", host_key=path)
    assert machine.host_key_hashes[0] == key_hash(key.public_key())
    assert machine.host_key_document.public_key() == key.public_key()


def test_unfit_host_keys(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    p521 = ec.generate_private_key(ec.SECP521R1())
    for path, message in (
        (tmp_path / "missing", "cannot read the private key"),
        (garbage, "not a private key"),
        (write_key(tmp_path / "p256", ec.generate_private_key(ec.SECP256R1())), "secp256r1; a host key is on"),
        (write_key(tmp_path / "rsa", rsa.generate_private_key(65537, 2048)), "not an elliptic-curve key"),
        (write_key(tmp_path / "locked", p521, b"secret"), "is encrypted"),
    ):
        with pytest.raises(InputError, match=message):
            Machine.create(tmp_path / "box", host_key=path)
    same = write_key(tmp_path / "same", p521)
    with pytest.raises(InputError, match="the backup host key is the host key"):
        Machine.create(tmp_path / "box", host_key=same, backup_host_key=same)
    assert not (tmp_path / "box").exists()
    assert not list(tmp_path.glob(".box*"))


def test_refuses_an_existing_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it exists"):
        Machine.create(tmp_path)
    with pytest.raises(OutputError, match="No such file"):
        Machine.create(tmp_path / "missing" / "box")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 65, "trailing "])
def test_refuses_unfit_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a machine's name has"):
        Machine.create(tmp_path / "box", name=name)


def test_crl_url_is_in_the_certificates(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http"):
        Machine.create(tmp_path / "box", crl_url="file:///etc")
    machine = Machine.create(tmp_path / "box", crl_url="http://crl.example/box/")
    document = load_host_key_document(machine.directory / "host-key.crt")
    assert document.certificate.distribution_points == ("http://crl.example/box/signing-key.crl",)


def test_dates_follow_the_clock_given(tmp_path: Path) -> None:
    moment = datetime(2020, 2, 29, 12, 30, 15, 999, tzinfo=UTC)
    machine = Machine.create(tmp_path / "box", now=moment)
    assert machine.created == moment.replace(microsecond=0)
    assert machine.host_key_document.not_valid_before_utc < moment
    assert machine.host_key_document.not_valid_after_utc.year >= 2049


def test_directories_that_are_no_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no machine\.json"):
        Machine.load(tmp_path)
    for text in ("", "[]", "{}", '{"kind": 1, "format": 1}', "[" * 50000):
        (tmp_path / "machine.json").write_text(text)
        with pytest.raises(FormatError, match=r"machine\.json: "):
            Machine.load(tmp_path)


def test_document_of_another_key(tmp_path: Path) -> None:
    machine, other = Machine.create(tmp_path / "one"), Machine.create(tmp_path / "two")
    (machine.directory / "host-key.crt").write_bytes((other.directory / "host-key.crt").read_bytes())
    with pytest.raises(InputError, match="does not match the host key next to it"):
        Machine.load(machine.directory)
    (machine.directory / "host-key.crt").write_bytes(b"")
    with pytest.raises(FormatError, match="not a certificate"):
        Machine.load(machine.directory)


def test_machine_without_backup_key(tmp_path: Path) -> None:
    machine = Machine.create(tmp_path / "box")
    (machine.directory / "backup-host-key.pem").unlink()
    loaded = Machine.load(machine.directory)
    assert loaded.keys.backup is None
    assert len(loaded.host_key_hashes) == 1


def test_crls_can_revoke_and_run_out(tmp_path: Path) -> None:
    machine = Machine.create(tmp_path / "box")
    documents = [load_host_key_document(machine.directory / name) for name in ("host-key.crt", "backup-host-key.crt")]

    def reasons() -> list[str | None]:
        reports = trust(machine).check(documents, offline=True).documents
        return [report.failure.reason if report.failure else None for report in reports]

    machine.reissue_crls(revoke=[machine.host_key_document])
    assert reasons() == [Reason.REVOKED, None]
    machine.reissue_crls(days=-1)
    assert reasons() == [Reason.CHAIN, Reason.CHAIN]
    machine.reissue_crls(days=2)
    assert reasons() == [None, None]
    numbers = {crl.number for name in CRLS for crl in load_objects(machine.directory / name).crls}
    assert numbers == {4}


def test_other_machines_certificates_are_not_revoked(tmp_path: Path, machine: Machine) -> None:
    other = Machine.create(tmp_path / "box")
    before = (other.directory / "signing-key.crl").read_bytes()
    with pytest.raises(InputError, match="did not issue"):
        other.reissue_crls(revoke=[machine.host_key_document])
    assert (other.directory / "signing-key.crl").read_bytes() == before


def test_description_is_json(machine: Machine) -> None:
    assert json.loads((machine.directory / "machine.json").read_text())["kind"] == MARK
