"""Bundles: what goes in, what is refused, how they are renewed, and that verification works with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.unit.hostkeys.conftest import LISTS, NOW, PAST, Pki, pem
from zseal.errors import FormatError, InputError, OutputError
from zseal.hostkeys.bundle import Bundle
from zseal.hostkeys.describe import Role, State
from zseal.hostkeys.document import load_host_key_document
from zseal.hostkeys.loading import load_crls
from zseal.hostkeys.machine import Machine
from zseal.hostkeys.results import Reason
from zseal.hostkeys.trust import TrustMaterial

SITE = "http://crl.test"
PKI = Pki(
    signing={"points": (f"{SITE}/i.crl",)},
    intermediate={"points": (f"{SITE}/r.crl",)},
    host={"points": (f"{SITE}/s.crl",)},
)
EARLIER = NOW - timedelta(days=7)
LATER = NOW + timedelta(days=7)


def published(**changes: dict[str, Any]) -> Callable[[str], bytes]:
    """A site with the three CRLs, each with its ``changes``."""
    lists = Pki(**changes).crls
    bodies = dict(zip((f"{SITE}/r.crl", f"{SITE}/i.crl", f"{SITE}/s.crl"), lists, strict=True))

    def fetch(url: str) -> bytes:
        if url not in bodies:
            raise ConnectionRefusedError(url)
        return bodies[url].pem()

    return fetch


def no_network(url: str) -> bytes:
    raise ConnectionRefusedError(url)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The parts of the chain as files."""
    for name, certificate in PKI.parts.items():
        (tmp_path / f"{name}.crt").write_bytes(certificate.pem())
    for crl in PKI.crls:
        (tmp_path / crl.source).write_bytes(crl.pem())
    return tmp_path


def create(files: Path, fetch: Callable[[str], bytes] = no_network, **options: Any) -> Bundle:
    settings: dict[str, Any] = {
        "certificates": [files / "signing.crt", files / "intermediate.crt"],
        "host_key_documents": [files / "host.crt"],
        "root_ca": files / "root.crt",
        "fetch": fetch,
        "now": NOW,
    }
    bundle, _ = Bundle.create(files / "bundle", **(settings | options))
    return bundle


def verify(files: Path, **options: Any) -> bool:
    trust = TrustMaterial.load(bundle=files / "bundle", **options)
    return trust.check([PKI.document], offline=True, now=NOW).accepted


def states(bundle: Bundle, days: float = 0) -> list[State]:
    return [item.state for item in bundle.inventory(days=days, now=NOW)]


def test_fetched_bundle_verifies_offline(files: Path) -> None:
    bundle = create(files, published())
    assert len(bundle.crls) == 3
    assert set(states(bundle)) == {State.VALID}
    assert verify(files)


def test_bundle_from_files_verifies_offline(files: Path) -> None:
    lists = [files / crl.source for crl in PKI.crls]
    create(files, crls=lists, offline=True)
    assert verify(files)


def test_crls_beside_certificates_are_taken(files: Path) -> None:
    (files / "chained.pem").write_bytes(pem([*PKI.certificates, *PKI.crls]))
    create(files, certificates=[files / "chained.pem"], offline=True)
    assert verify(files)


def test_root_of_the_system_or_of_the_command_line(files: Path) -> None:
    create(files, published(), root_ca=None)
    assert not verify(files)
    assert verify(files, root_ca=files / "root.crt")


def test_missing_crls_are_told(files: Path) -> None:
    bundle, changes = Bundle.create(
        files / "bundle", certificates=[files / "signing.crt", files / "intermediate.crt"], offline=True, now=NOW
    )
    assert states(bundle).count(State.MISSING) == 3
    assert len([problem for problem in changes.problems if problem.startswith("no current CRL of")]) == 3
    missing = [item for item in bundle.inventory(days=0, now=NOW) if item.state is State.MISSING]
    assert {item.role for item in missing} == {Role.CRL}


def test_failed_downloads_are_problems_not_errors(files: Path) -> None:
    bundle = create(files)
    _, changes = bundle.update(fetch=no_network, now=NOW)
    assert any("crl.test/s.crl" in problem for problem in changes.problems)


def test_update_renews_crls_in_place(files: Path) -> None:
    bundle = create(files, published(signing_crl={"end": PAST}))
    assert not verify(files)
    assert State.EXPIRED in states(bundle)
    before = sorted(path.name for path in (files / "bundle" / "crls").iterdir())
    bundle, changes = bundle.update(fetch=published(signing_crl={"start": EARLIER}), now=NOW)
    assert verify(files)
    assert len(changes.written) == 1
    assert not changes.problems
    assert sorted(path.name for path in (files / "bundle" / "crls").iterdir()) == before
    assert bundle.update(fetch=published(), now=NOW)[1].written == ()


def test_older_crl_never_replaces_a_newer_one(files: Path) -> None:
    bundle = create(files, published(signing_crl={"start": EARLIER, "revoked": (4,)}))
    bundle.update(fetch=published(), crls=[files / "signing_crl.crl"], now=NOW)
    report = TrustMaterial.load(bundle=files / "bundle").check([PKI.document], offline=True, now=NOW)
    failure = report.documents[0].failure
    assert failure is not None
    assert failure.reason is Reason.REVOKED


def test_crl_number_decides_between_lists_of_one_second(files: Path) -> None:
    bundle = create(files, published(signing_crl={"extra": ((x509.CRLNumber(7), False),)}))
    revoking = {"extra": ((x509.CRLNumber(8), False),), "revoked": (4,)}
    assert len(bundle.update(fetch=published(signing_crl=revoking), now=NOW)[1].written) == 1
    assert not verify(files)


def test_foreign_crls_stay_out(files: Path) -> None:
    foreign = files / "foreign.crl"
    foreign.write_bytes(Pki(signing_crl={"signer": "p256:x"}).crls[2].pem())
    with pytest.raises(InputError, match=r"foreign\.crl: the CRL is not signed by any certificate of the bundle"):
        create(files, crls=[foreign], offline=True)
    assert not (files / "bundle").exists()
    assert not list(files.glob(".bundle*"))
    bundle = create(files, published(signing_crl={"signer": "p256:x"}))
    assert len(bundle.crls) == 2


def test_renewed_signing_key_beside_the_old(files: Path) -> None:
    create(files, published())
    renewed = Pki(
        signing={"key": "p256:s2", "serial": 30},
        host={"signer": "p256:s2", "key": "p521:h2"},
        signing_crl={"signer": "p256:s2"},
    )
    (files / "new.crt").write_bytes(renewed.parts["signing"].pem())
    (files / "new.crl").write_bytes(renewed.crls[2].pem())
    bundle, _ = Bundle.load(files / "bundle").update(
        certificates=[files / "new.crt"], crls=[files / "new.crl"], offline=True, now=NOW
    )
    assert len(bundle.signing_keys) == 2
    trust = TrustMaterial.load(bundle=files / "bundle")
    assert trust.check([PKI.document, renewed.document], offline=True, now=NOW).accepted


def test_expiry_within_days(files: Path) -> None:
    bundle = create(files, published(root_crl={"end": LATER}))
    assert set(states(bundle, days=6)) == {State.VALID}
    assert states(bundle, days=8).count(State.EXPIRING) == 1


def test_unfit_input(files: Path) -> None:
    with pytest.raises(InputError, match="none of the certificates is an IBM Z signing key"):
        create(files, certificates=[files / "intermediate.crt"])
    (files / "p256.crt").write_bytes(Pki(host={"key": "p256:h"}).parts["host"].pem())
    with pytest.raises(InputError, match="P-521"):
        create(files, host_key_documents=[files / "p256.crt"])
    assert not (files / "bundle").exists()
    create(files)
    with pytest.raises(OutputError, match="it exists"):
        create(files)
    with pytest.raises(OutputError, match="No such file"):
        Bundle.create(files / "missing" / "bundle", certificates=[files / "signing.crt"])


def test_directories_that_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no bundle\.json"):
        Bundle.load(tmp_path)
    for text in ("", "[]", "{}", '{"format": 2}'):
        (tmp_path / "bundle.json").write_text(text)
        with pytest.raises(FormatError, match="not the description of a bundle"):
            Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps({"format": 1}))
    assert Bundle.load(tmp_path).certificates == ()
    (tmp_path / "certificates").write_text("a file")
    with pytest.raises(InputError, match="cannot read"):
        Bundle.load(tmp_path)


def test_damaged_file_in_a_bundle_is_named(files: Path) -> None:
    create(files, published())
    (files / "bundle" / "crls" / "z.crl").write_bytes(b"\x30\x03\x02\x01")
    with pytest.raises(InputError, match=r"z\.crl: "):
        Bundle.load(files / "bundle")


def test_interrupted_update_leaves_a_bundle(files: Path) -> None:
    create(files, published())
    (files / "bundle" / "crls" / ".x.crl.0123.part").write_bytes(b"half")
    assert verify(files)


def test_software_machines_root_does_not_come_in(files: Path) -> None:
    machine = Machine.create(files / "box")
    names = ("signing-key", "intermediate-ca")
    settings: dict[str, Any] = {
        "certificates": [machine.directory / f"{name}.crt" for name in names],
        "crls": [machine.directory / f"{name}.crl" for name in (*names, "root-ca")],
        "offline": True,
    }
    root = machine.directory / "root-ca.crt"
    with pytest.raises(InputError, match="root of a software machine"):
        Bundle.create(files / "bundle", root_ca=root, **settings)
    bundle, changes = Bundle.create(files / "bundle", **settings)
    assert len(bundle.crls) == 3
    assert changes.problems == ()
    (files / "bundle" / "root-ca.crt").write_bytes(root.read_bytes())
    with pytest.raises(InputError, match="root of a software machine"):
        Bundle.load(files / "bundle")


def test_one_file_for_each_issuer(files: Path) -> None:
    create(files, published(), crls=[files / crl.source for crl in PKI.crls])
    issuers = [load_crls(path)[0].issuer for path in (files / "bundle" / "crls").iterdir()]
    assert len(issuers) == len(set(issuers)) == len(LISTS)


def test_machine_serves_as_bundle_with_its_root_named(files: Path) -> None:
    directory = Machine.create(files / "box").directory
    document = load_host_key_document(directory / "host-key.crt")
    named = TrustMaterial.load(bundle=directory, root_ca=directory / "root-ca.crt")
    assert named.check([document], offline=True).accepted
    assert not TrustMaterial.load(bundle=directory).check([document], offline=True).accepted
    with pytest.raises(InputError, match="this is a software machine, not a bundle"):
        Bundle.load(directory).update(offline=True)
