"""What people hand in for a host-key document: another certificate, an old one, another shape, text for a name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from tests.unit.hostkeys.conftest import CA_USAGE, LISTS, NOW, Issued, Pki, common, key, signing_name
from zseal import Guest, Machine, TrustMaterial, ZsealError, lint_domain, load_host_key_document, read_image, testguest
from zseal.cli.main import main
from zseal.errors import InputError
from zseal.hostkeys.document import load_host_key_documents, newest_of_each_key
from zseal.hostkeys.loading import load_crls, load_objects, parse_objects
from zseal.hostkeys.results import HostKeyRule, Reason
from zseal.inspection import inspect

PKI = Pki()
PEM = PKI.parts["host"].pem()
DER = PKI.parts["host"].raw.public_bytes(Encoding.DER)
CRL = LISTS["signing_crl"].crl("x").raw.public_bytes(Encoding.DER)


def private_key() -> str:
    return key("p521:h").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certificate(path: Path, *, ca: bool, usage: tuple[str, ...] | None) -> Path:
    made = Issued(common("x"), common("x"), "p521:x", "p521:x", ca=ca, usage=usage)
    path.write_bytes(made.certificate(str(path)).pem())
    return path


@pytest.fixture
def zseal(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (ended.value.code if isinstance(ended.value.code, int) else 0), capsys.readouterr().err

    return run


# --- another certificate ---


@pytest.fixture
def others(tmp_path: Path) -> dict[str, Path]:
    signing = Issued(signing_name(), common("x"), "p521:s", "p521:x").certificate("s")
    (tmp_path / "signing.crt").write_bytes(signing.pem())
    return {
        "a CA certificate": certificate(tmp_path / "ca.crt", ca=True, usage=CA_USAGE),
        "an IBM Z signing key": tmp_path / "signing.crt",
    }


def test_no_image_is_sealed_for_the_key_of_a_ca_or_a_signing_key(
    others: dict[str, Path], tmp_path: Path, zseal: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "kernel").write_bytes(testguest.kernel())
    for role, path in others.items():
        with pytest.raises(InputError, match=f"not a host-key document, but {role}"):
            _ = load_host_key_document(path).public_key
        code, err = zseal(
            "image", "create", "-i", tmp_path / "kernel", "-k", path, "--no-verify", "-o", tmp_path / "image"
        )
        assert code == 1
        assert f"error: {path}: not a host-key document, but {role}; give the host-key document" in err
        assert not (tmp_path / "image").exists()


def test_verification_refuses_it_as_well(others: dict[str, Path]) -> None:
    for role, path in others.items():
        failure = PKI.report(load_host_key_document(path)).documents[0].failure
        assert failure is not None
        assert (failure.rule, failure.reason) == (HostKeyRule.KEY_TYPE, Reason.WRONG_KEY_TYPE)
        assert role in failure.message


def test_a_certificate_made_for_tests_is_accepted(tmp_path: Path) -> None:
    """``openssl req -x509`` writes CA:TRUE without saying what the key may be used for."""
    assert load_host_key_document(certificate(tmp_path / "own.crt", ca=True, usage=None)).public_key


def test_of_a_directory_only_the_host_key_documents_count(tmp_path: Path) -> None:
    box = Machine.create(tmp_path / "box").directory
    assert {Path(each.source).name for each in load_host_key_documents([box])} == {
        "host-key.crt",
        "backup-host-key.crt",
    }
    (box / "host-key.crt").unlink()
    (box / "backup-host-key.crt").unlink()
    with pytest.raises(InputError, match="no host-key document in the directory"):
        load_host_key_documents([box])


# --- an old document of the same host key ---


def renewed(directory: Path) -> tuple[Path, Path]:
    paths = directory / "new.crt", directory / "old.crt"
    for path, age in zip(paths, (0, 700), strict=True):
        start = NOW - timedelta(days=age)
        path.write_bytes(Pki(host={"start": start, "end": start + timedelta(days=730)}).parts["host"].pem())
    return paths


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_documents_of_a_host_key_the_newer_is_used(tmp_path: Path, order: tuple[int, int]) -> None:
    paths = renewed(tmp_path)
    kept, superseded = newest_of_each_key(load_host_key_documents([paths[index] for index in order]))
    assert [each.source for each in kept] == [str(paths[0])]
    assert [(old.source, new.source) for old, new in superseded] == [(str(paths[1]), str(paths[0]))]


def test_the_image_gets_one_slot_and_the_user_a_warning(tmp_path: Path, zseal: Callable[..., tuple[int, str]]) -> None:
    new, old = renewed(tmp_path)
    (tmp_path / "kernel").write_bytes(testguest.kernel())
    code, err = zseal(
        *("image", "create", "-i", tmp_path / "kernel", "--no-verify", "-k", old, "-k", new, "-o", tmp_path / "image")
    )
    assert code == 0
    assert f"warning: {old} is not used: {new} is a newer document of the same host key\n" in err
    assert len(read_image(tmp_path / "image").header.slots) == 1


def test_the_same_document_under_two_names_is_named(tmp_path: Path) -> None:
    for name in ("one.crt", "two.crt"):
        (tmp_path / name).write_bytes(PEM)
    documents = load_host_key_documents([tmp_path / "one.crt", tmp_path / "two.crt"])
    with pytest.raises(InputError, match=r"one\.crt and .*two\.crt are the same document"):
        newest_of_each_key(documents)


def test_documents_of_other_keys_all_stay() -> None:
    hosts = [Pki(host={"key": f"{curve}:h"}).parts["host"] for curve in ("p521", "p256")]
    documents = [load_host_key_document(host.pem()) for host in hosts]
    assert newest_of_each_key(documents) == (documents, [])


# --- another shape ---

SHAPES = {
    "UTF-16 text": ("\ufeff" + PEM.decode()).encode("utf-16-le"),
    "UTF-16 text (big-endian)": ("\ufeff" + PEM.decode()).encode("utf-16-be"),
    "UTF-16 text (no mark)": PEM.decode().encode("utf-16-le"),
    "a PEM block without its line breaks": PEM.replace(b"\n", b" "),
    "base64 of a PEM file": base64.encodebytes(PEM),
    "a web page": b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
    "a PKCS#7 chain": pkcs7.serialize_certificates([PKI.parts["host"].raw], Encoding.PEM),
    "a PKCS#7 chain (DER)": pkcs7.serialize_certificates([PKI.parts["host"].raw], Encoding.DER),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_another_shape_is_said_to_be_one(shape: str, tmp_path: Path) -> None:
    what = shape.partition(" (")[0]
    path = tmp_path / "file.crt"
    path.write_bytes(SHAPES[shape])
    loaders: list[Callable[[Path], object]] = [load_objects, load_crls, load_host_key_document]
    for load in loaders:
        with pytest.raises(InputError, match=f"it is {what}") as caught:
            load(path)
        assert caught.value.hint
        assert "\n" not in str(caught.value)
    description = inspect(path)
    assert description.kind in ("wrapped-certificate", "web-page")
    assert description.title.startswith(what)
    assert description.problems


def test_a_private_key_is_said_to_be_one_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "host-key.pem"
    path.write_text(private_key())
    with pytest.raises(InputError, match="it is a private key; keep it secret") as caught:
        load_host_key_document(path)
    assert private_key().splitlines()[1] not in str(caught.value)
    assert inspect(path).kind == "private-key"


@pytest.mark.parametrize("data", [b"", b"text\n", b"\0" * 64, b"QUJD\n", "Gr\u00fc\u00dfe".encode(), b"\xff\xfe"])
def test_anything_else_is_no_shape(data: bytes) -> None:
    with pytest.raises(InputError, match="no certificate and no CRL in it"):
        load_objects(data)


# --- DER that something follows, and DER that is cut off ---


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \t\n\n"])
def test_white_space_after_der_is_read_over(end: bytes) -> None:
    assert parse_objects(DER + end, "x").certificates[0].raw == PKI.parts["host"].raw
    assert len(parse_objects(CRL + end, "x").crls) == 1


@pytest.mark.parametrize("data", [DER + b"x", CRL + b"\0", DER + DER])
def test_anything_else_after_der_is_not(data: bytes) -> None:
    with pytest.raises(InputError, match="damaged"):
        parse_objects(data, "x")


@pytest.mark.parametrize("data", [DER, CRL])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_der_that_is_cut_off_is_said_to_be(data: bytes, size: int) -> None:
    with pytest.raises(InputError, match=r"damaged") as caught:
        parse_objects(data[:size], "x")
    if size >= 4:
        assert f"damaged DER: cut off after {size} of {len(data)} bytes" in str(caught.value)


# --- text in the place of a name ---


@pytest.mark.parametrize("text", [PEM.decode(), private_key(), "<domain>\n</domain>\n", "a\nb\nc\n", "x" * 5000])
def test_text_for_a_file_name_is_one_line_that_shows_nothing_of_it(text: str) -> None:
    functions: list[Callable[[str], object]] = [
        load_host_key_document,
        load_objects,
        read_image,
        lint_domain,
        inspect,
        Machine.load,
        lambda given: TrustMaterial.load(certificates=[given]),
        lambda given: TrustMaterial.load(root_ca=given),
        lambda given: Guest(given, machine=given),
    ]
    for function in functions:
        with pytest.raises(ZsealError) as caught:
            function(text)
        assert str(caught.value) == "text was given where a file name is expected; give the content as bytes"


def test_the_json_of_verify_has_the_reason_of_another_certificate(
    others: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = Machine.create(tmp_path / "box").directory
    arguments = ["hostkey", "verify", "--format", "json", "--offline", "-k", str(others["a CA certificate"])]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--bundle", str(box), "--root-ca", str(box / "root-ca.crt")])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["documents"][0]["failure"]["reason"] == "wrong-key-type"
