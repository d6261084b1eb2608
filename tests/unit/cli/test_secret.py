"""``zseal secret``: creating requests, and what happens outside a guest."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY, VECTORS
from zseal.cli.main import main
from zseal.cli.secret.app import main as pvsecret
from zseal.formats.add_secret_request import AddSecretFlags, AddSecretRequestBlock, SecretType
from zseal.secrets import SecretInfo, verified_user_data

FOLDER = VECTORS / "attestation"
DOCUMENT = FOLDER / "machine" / "host-key.crt"
GIVEN = ["-k", str(DOCUMENT), "--no-verify", "--hdr", str(FOLDER / "se-header.bin")]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["secret", *map(str, arguments)])
    return int(ended.value.code or 0)


def created(path: Path) -> AddSecretRequestBlock:
    return AddSecretRequestBlock.parse(path.read_bytes())


def test_an_association_secret_is_created_with_its_description(tmp_path: Path) -> None:
    request, secret = tmp_path / "a.asr", tmp_path / "s"
    assert run("create", *GIVEN, "-o", request, "association", "my key", "--output-secret", secret) == 0
    block = created(request)
    assert (block.secret.type, block.secret_id) == (SecretType.ASSOCIATION, hashlib.sha256(b"my key").digest())
    assert (len(secret.read_bytes()), secret.stat().st_mode & 0o777) == (32, 0o600)
    text = (tmp_path / "my_key.yaml").read_text()
    assert text == f"!Association\nname: my key\nid: 0x{block.secret_id.hex()}\n"
    assert SecretInfo.parse(text).secret_id == block.secret_id


@pytest.mark.parametrize(
    ("kind", "file", "expected"),
    [
        ("plain", "plain1.bin", SecretType.PLAINTEXT),
        ("aes", "aes24.key", SecretType.AES_192),
        ("aes-xts", "xts64.key", SecretType.AES_XTS_256),
        ("hmac-sha", "hmac64.key", SecretType.HMAC_SHA_256),
        ("ec", "ec-ed448.pem", SecretType.EC_ED448),
    ],
)
def test_retrievable_secrets(tmp_path: Path, kind: str, file: str, expected: SecretType) -> None:
    request = tmp_path / "r.asr"
    given = ("--secret", FOLDER / "more" / "keys" / file, "--type", kind)
    assert run("create", *GIVEN, "-o", request, "retr", *given, "k1", "--use-name") == 0
    block = created(request)
    assert (block.secret.type, block.secret_id) == (expected, b"k1" + bytes(30))
    info = SecretInfo.parse((tmp_path / "k1.yaml").read_text())
    assert (info.type, info.name, info.secret_id) == (expected, "k1", block.secret_id)


def test_binding_flags_and_user_data(tmp_path: Path) -> None:
    request, tags = tmp_path / "m.asr", tmp_path / "toc.pol"
    (tmp_path / "ud").write_bytes(b"for the record")
    options = ("--cuid-hex", "0x" + "ab" * 16, "--flags", "disable-dump", "--toc-policy", tags)
    signing = ("--user-data", tmp_path / "ud", "--user-sign-key", FOLDER / "more" / "keys" / "sign-ec.pem")
    assert run("create", *GIVEN, "-o", request, "meta", *options, *signing) == 0
    block = created(request)
    assert block.part.cuid == b"\xab" * 16
    assert block.flags is AddSecretFlags.DISABLE_DUMP
    assert tags.read_text() == block.request.tag.hex() + "\n"
    with pytest.raises(Exception, match="give the public key"):
        verified_user_data(request.read_bytes(), None)


@pytest.mark.parametrize(
    "content", [b"\xab" * 16, b"'0x" + b"ab" * 16 + b"'\n", b"a:\n  cuid: '0x" + b"ab" * 16 + b"'\nadd: 0x00\n"]
)
def test_the_instance_is_read_from_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cuid").write_bytes(content)
    request = tmp_path / "m.asr"
    assert run("create", *GIVEN, "-o", request, "meta", "--cuid", tmp_path / "cuid") == 0
    assert created(request).part.cuid == b"\xab" * 16


def test_a_policy_is_referred_to_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, request = tmp_path / "p", tmp_path / "m.asr"
    policy.write_bytes(b"rules")
    assert run("create", *GIVEN, "-o", request, "meta", "--policy", policy) == 0
    digest = hashlib.sha256(b"rules").digest()
    assert capsys.readouterr().out == digest.hex() + "\n"
    assert verified_user_data(request.read_bytes(), None).rstrip(b"\0") == digest + str(policy).encode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", *GIVEN, "-o", "o", "thing"], "no kind of secret 'thing'"),
        (["create", *GIVEN, "-o", "o", "association"], "takes the name of the secret"),
        (["create", *GIVEN, "-o", "o", "meta", "name"], "meta takes no name"),
        (["create", *GIVEN, "-o", "o", "meta", "--stdout"], "--stdout does not go with meta"),
        (["create", *GIVEN, "-o", "o", "retr", "n", "--type", "aes"], "retrievable needs --secret"),
        (["create", *GIVEN, "-o", "o", "meta", "--cck", "a", "--extension-secret", "b"], "excludes --cck"),
        (["create", *GIVEN, "-o", "o", "meta", "--cuid-hex", "12"], "32 hexadecimal digits"),
        (["create", *GIVEN, "-o", "o", "meta", "--pcf", "zz"], "hexadecimal digits"),
        (["create", *GIVEN, "-o", "o", "meta", "--bogus"], "unrecognised: --bogus"),
        (["add", "a", "b"], "too many arguments: b"),
        (["retrieve"], "the ID is missing"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert message in printed
    with pytest.raises(SystemExit) as ended:
        pvsecret(arguments)
    assert ended.value.code == 1


def test_a_protected_guest_is_no_place_to_create_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    indicator = tmp_path / "prot_virt_guest"
    indicator.write_text("1\n")
    monkeypatch.setattr("zseal.uvdevice.device.PROTECTED_GUEST", indicator)
    assert run("create", *GIVEN, "-o", tmp_path / "m.asr", "meta") == 1
    assert "would give its secret away" in capsys.readouterr().err
    assert run("create", *GIVEN, "-o", tmp_path / "m.asr", "meta", "--force") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["attest", "perform", "a", "b"],
        ["secret", "add", "x"],
        ["secret", "list"],
        ["secret", "lock"],
        ["secret", "retrieve", "n", "--inform", "name"],
    ],
)
def test_in_a_guest_python_alone_is_enough(arguments: list[str], tmp_path: Path) -> None:
    """With no installed package to be found: each command gets as far as its input or /dev/uv."""
    command = [sys.executable, "-S", "-E", "-m", "zseal", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY / "src", timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
