"""Reading certificates and CRLs: every form a file may have, and hostile ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpora import replay
from tests.fuzz.hostkey_targets import TARGETS, blocks, file, judged, trust
from tests.unit.hostkeys.conftest import LISTS, Pki, common, pem
from zseal.errors import FormatError, InputError
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.document import HostKeyDocument, load_host_key_document, load_host_key_documents
from zseal.hostkeys.loading import MAX_FILE, MAX_OBJECTS, load_crls, load_objects, load_root, parse_objects
from zseal.hostkeys.truststore import system_roots

PKI = Pki(host={"points": ("http://crl.test/a", "http://crl.test/b")})
HOST, ROOT_CERTIFICATE = PKI.parts["host"], PKI.parts["root"]
CRL = PKI.crls[2]
KEY = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n"
OBJECTS: list[Certificate | Crl] = [*PKI.parts.values(), *PKI.crls]
VALID = [item.raw.public_bytes(form) for item in OBJECTS for form in (Encoding.PEM, Encoding.DER)]
PEM_PARTS = [
    *(f"-----{word} {label}-----".encode() for word in ("BEGIN", "END") for label in ("CERTIFICATE", "X509 CRL")),
    *(b"\n", b"\r", b" ", b"MAA=", b"=", b"-----", b"\x30"),
]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
def test_both_encodings(tmp_path: Path, form: Encoding) -> None:
    document = load_host_key_document(write(tmp_path / "hk", HOST.raw.public_bytes(form)))
    assert document.certificate.raw == HOST.raw
    assert document.unused == 0
    assert len(load_crls(write(tmp_path / "crl", CRL.raw.public_bytes(form)))) == 1


def test_first_certificate_is_the_document(tmp_path: Path) -> None:
    path = write(tmp_path / "hk", KEY + pem([CRL, HOST, ROOT_CERTIFICATE]) + KEY)
    document = load_host_key_document(path)
    assert document.certificate.raw == HOST.raw
    assert document.unused == 1
    assert [item.source for item in load_host_key_documents([path, path])] == [str(path)] * 2


def test_pem_with_text_around_and_windows_lines(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + pem([HOST]).replace(b"\n", b"\r\n") + b"Subject: host\r\n" + pem([ROOT_CERTIFICATE, CRL])
    objects = load_objects(write(tmp_path / "all.pem", text))
    assert (len(objects.certificates), len(objects.crls), len(objects.all)) == (2, 1, 3)
    old_label = pem([HOST]).replace(b" CERTIFICATE-", b" X509 CERTIFICATE-")
    assert len(parse_objects(old_label, "x").certificates) == 1


def test_der_with_pem_words_in_it_and_pem_that_begins_like_der() -> None:
    odd = Pki(host={"subject": common("-----BEGIN CERTIFICATE-----")}).parts["host"]
    assert parse_objects(odd.raw.public_bytes(Encoding.DER), "x").certificates[0].raw == odd.raw
    assert len(parse_objects(b"0 is not the beginning\n" + pem([HOST]), "x").certificates) == 1


def test_long_names_are_cut() -> None:
    long = Pki(host={"subject": x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "7" * 1000, _validate=False)])})
    assert len(long.parts["host"].label) < 200


@pytest.mark.parametrize("data", [b"", b"text\n", KEY, pem([CRL])], ids=["empty", "text", "key", "CRL"])
def test_files_without_certificate(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "file", data)
    reason = ": it is a private key; keep it secret, and" if data == KEY else ";"
    with pytest.raises(InputError, match=rf"file: no certificate in it{reason} give"):
        load_host_key_document(path)
    with pytest.raises(InputError, match=rf"file: no certificate in it{reason} give"):
        load_root(path)


@pytest.mark.parametrize("data", [b"", b"text\n", KEY])
def test_files_with_nothing_of_use(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="no certificate and no CRL in it"):
        load_objects(write(tmp_path / "file", data))


def test_files_without_crl(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CRL in it"):
        load_crls(write(tmp_path / "file", pem([HOST])))
    with pytest.raises(InputError, match="cannot read the CRL: No such file"):
        load_crls(tmp_path / "missing")


def damaged() -> dict[str, bytes]:
    good = pem([HOST])
    return {
        "no end": good.replace(b"-----END CERTIFICATE-----", b""),
        "other end": good.replace(b"END CERTIFICATE", b"END X509 CRL"),
        "begins twice": good.replace(b"-----END CERTIFICATE-----", b"-----BEGIN CERTIFICATE-----"),
        "no base64": good.replace(b"M", b"!"),
        "padding": good.replace(b"-----\nMII", b"-----\nMI"),
        "cut": HOST.raw.public_bytes(Encoding.DER)[:-1],
        "trailing": HOST.raw.public_bytes(Encoding.DER) + b"\0",
        "not DER": b"\x30\x80\0\0",
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files(name: str) -> None:
    with pytest.raises(FormatError, match="file: damaged"):
        parse_objects(damaged()[name], "file")


def test_number_and_size_are_limited(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="more than 1000"):
        parse_objects(pem([ROOT_CERTIFICATE]) * (MAX_OBJECTS + 1), "file")
    path = tmp_path / "big"
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE + 1)
    with pytest.raises(InputError, match="too large"):
        load_objects(path)


def test_only_p521_gives_a_host_key() -> None:
    assert len(HostKeyDocument(HOST, "hk").key_hash) == 32
    for name in ("rsa2048:h", "p256:h", "ed25519:h"):
        document = HostKeyDocument(Pki(host={"key": name}).parts["host"], "hk")
        with pytest.raises(InputError, match=r"hk: the document contains .* key.*P-521"):
            _ = document.public_key


def test_system_roots_follow_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(write(tmp_path / "roots.pem", pem([ROOT_CERTIFICATE]) * 2 + b"junk")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert [root.raw for root in system_roots()] == [ROOT_CERTIFICATE.raw]
    folder = tmp_path / "hashed"
    folder.mkdir()
    write(folder / "0123abcd.0", pem([PKI.parts["intermediate"]]))
    write(folder / "0123abcd.1", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    write(folder / "README", pem([HOST]))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    assert {root.raw for root in system_roots()} == {ROOT_CERTIFICATE.raw, PKI.parts["intermediate"].raw}
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert system_roots() == ()


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_random_bytes(data: bytes) -> None:
    file(data)


@settings(deadline=None)
@given(st.lists(st.sampled_from(PEM_PARTS)))
def test_random_pem(parts: list[bytes]) -> None:
    blocks(b"".join(parts))
    file(b"".join(parts))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_certificates_and_crls(data: st.DataObject) -> None:
    encoded = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(encoded) - 1))
        if data.draw(st.booleans()):
            encoded[position] = data.draw(st.integers(0, 255))
        else:
            length = data.draw(st.integers(0, 8))
            encoded[position : position + length] = data.draw(st.binary(max_size=8))
    file(bytes(encoded))


def test_what_fuzzing_found_stays_harmless() -> None:
    assert replay("hostkeys", TARGETS) > 50


def test_undamaged_ones_are_used_too() -> None:
    assert judged(trust()).accepted
    for data in VALID:
        file(data)
    assert replace(LISTS["root_crl"]).crl("x").complete
