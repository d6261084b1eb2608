"""The published verification cases: outcome of every one as recorded from the reference verifier."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import paths
from zseal.errors import InputError
from zseal.hostkeys.document import load_host_key_documents
from zseal.hostkeys.results import HostKeyVerificationError, Reason
from zseal.hostkeys.trust import TrustMaterial

VECTORS = paths.VECTORS / "hostkeys"
CASES: list[dict[str, Any]] = json.loads((VECTORS / "cases.json").read_text())
SERVER = "http://127.0.0.1:8765/"

REASONS = {
    "HKD_WEAK_KEY": Reason.WEAK_KEY,
    "NO_SIGNING_KEY": Reason.NO_SIGNING_KEY,
    "SEVERAL_SIGNING_KEYS": Reason.SEVERAL_SIGNING_KEYS,
    "CHAIN": Reason.CHAIN,
    "HKD_NOT_YET_VALID": Reason.NOT_YET_VALID,
    "HKD_EXPIRED": Reason.EXPIRED,
    "HKD_AKID": Reason.OTHER_SIGNING_KEY,
    "HKD_SIGNATURE": Reason.BAD_SIGNATURE,
    "NO_VALID_CRL": Reason.NO_VALID_CRL,
    "HKD_REVOKED": Reason.REVOKED,
}
FILE_ERRORS = {
    "HKD_FILE_UNREADABLE": "cannot read the host-key document",
    "HKD_FILE_EMPTY": "no certificate in it",
    "CERT_FILE_UNREADABLE": "cannot read the certificate",
    "CRL_FILE_UNREADABLE": "(no CRL in it|cannot read the CRL)",
    "ROOT_FILE_UNREADABLE": "(no certificate in it|cannot read the root)",
}
# where zseal is stricter than the reference verifier, on purpose
STRICTER = {
    "HKD hk_rsa2048.crt": Reason.WRONG_KEY_TYPE,
    "HKD hk_p256.crt": Reason.WRONG_KEY_TYPE,
    "HKD is the signing key": Reason.WRONG_KEY_TYPE,
}
STRICTER_FILES = {"-C file garbage": "no certificate and no CRL in it"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published")
    with tarfile.open(VECTORS / "pki.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "pki"


def server(pki: Path) -> Callable[[str], bytes]:
    def fetch(url: str) -> bytes:
        if not url.startswith(SERVER):
            raise ConnectionRefusedError(url)
        name = url.removeprefix(SERVER)
        path = pki / ("sk.crl" if name == "redir" else name)
        return path.read_bytes() if path.exists() else b"<html>404</html>"

    return fetch


def test_all_cases_are_here() -> None:
    assert len(CASES) == 124


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_published_case(case: dict[str, Any], pki: Path) -> None:
    expect = case["expect"]
    file_error = STRICTER_FILES.get(case["name"], FILE_ERRORS.get(expect))

    def verify() -> None:
        documents = load_host_key_documents(pki / name for name in case["hkds"])
        trust = TrustMaterial.load(
            certificates=[pki / name for name in case["certs"]],
            crls=[pki / name for name in case["crls"]],
            root_ca=pki / case["root_ca"] if case["root_ca"] else None,
        )
        trust.verify(documents, offline=case["offline"], fetch=server(pki))

    if file_error:
        with pytest.raises(InputError, match=file_error):
            verify()
        return
    reason = STRICTER.get(case["name"], REASONS.get(expect))
    if reason is None:
        assert expect == "OK"
        verify()
        return
    with pytest.raises(HostKeyVerificationError) as caught:
        verify()
    failure = caught.value.failure
    assert failure.reason is reason
    assert (failure.code, failure.level) == (case.get("openssl_code"), case.get("level"))
