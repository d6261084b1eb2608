"""``zseal attest``: what an owner does on a trusted computer, and what a guest without /dev/uv is told."""

import json
from pathlib import Path

import pytest

from tests.paths import VECTORS
from zseal.cli.attest import main as pvattest
from zseal.cli.main import main
from zseal.formats.attestation_file import RequestFile
from zseal.yamltext import read_texts

FOLDER = VECTORS / "attestation"
MACHINE = FOLDER / "machine"
TRUST = ["--bundle", str(MACHINE), "--root-ca", str(MACHINE / "root-ca.crt"), "--offline"]
RESPONSE = str(FOLDER / "results" / "a2-3-ud.attresp")
ADDED = ["s0-meta", "s1-assoc", "s2-assoc", "s3-plain", "s4-aes", "s1-assoc", "s1-assoc"]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["attest", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_request_is_created_with_its_key(tmp_path: Path) -> None:
    request, key = tmp_path / "r", tmp_path / "k"
    created = run(
        "create",
        "-k",
        MACHINE / "host-key.crt",
        *TRUST,
        "-o",
        request,
        "-a",
        key,
        "--add-data",
        "phkh-img,firmware-state",
    )
    assert created == 0
    assert RequestFile.parse(request.read_bytes()).additional_size == 32 + 320
    assert len(key.read_bytes()) == 32
    assert key.stat().st_mode & 0o777 == 0o600


def test_nothing_is_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k").write_text("old")
    arguments: tuple[str | Path, ...] = (
        "create",
        "-k",
        MACHINE / "host-key.crt",
        *TRUST,
        "-o",
        tmp_path / "r",
        "-a",
        tmp_path / "k",
    )
    assert run(*arguments) == 1
    assert "exists" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert (tmp_path / "k").read_text() == "old"
    assert run(*arguments, "--overwrite") == 0


def test_a_guest_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, data = tmp_path / "result", tmp_path / "data"
    arguments: tuple[str | Path, ...] = (
        "verify",
        "-i",
        RESPONSE,
        "--hdr",
        FOLDER / "se-header.bin",
        "-a",
        FOLDER / "keys" / "a2.key",
    )
    assert run(*arguments, "-o", result, "-u", data) == 0
    assert data.read_bytes() == b"user data of a2\n"
    values = read_texts(result.read_text())
    assert list(values) == ["cuid", "add", "add_fields", "user_data"]
    assert values["cuid"] == "0x7f372bb32ce241d8635701a52c5636e9"
    capsys.readouterr()
    assert run(*arguments, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == values


def test_another_image_is_exit_code_2_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = bytearray((FOLDER / "se-header.bin").read_bytes())
    header[0xE0] ^= 1
    (tmp_path / "other").write_bytes(header)
    arguments: tuple[str | Path, ...] = (
        "verify",
        "-i",
        RESPONSE,
        "--hdr",
        tmp_path / "other",
        "-a",
        FOLDER / "keys" / "a2.key",
    )
    assert run(*arguments, "-o", tmp_path / "result", "-u", tmp_path / "data") == 2
    assert capsys.readouterr().err.startswith("error: the attestation measurement does not match; ")
    assert not (tmp_path / "result").exists()
    assert not (tmp_path / "data").exists()


def check(tmp_path: Path, *arguments: str | Path) -> tuple[int, dict[str, object]]:
    result = tmp_path / "checked"
    code = run("check", RESPONSE, result, "--format", "json", "--overwrite", *arguments)
    shown = json.loads(result.read_text())
    assert isinstance(shown, dict)
    return code, shown


def test_without_a_policy_every_response_passes(tmp_path: Path) -> None:
    assert check(tmp_path) == (0, {"successful": True})


def test_a_policy_of_host_keys_data_and_secrets_is_met(tmp_path: Path) -> None:
    requests = ",".join(str(FOLDER / "requests" / f"{name}.asr") for name in ADDED)
    (tmp_path / "ud").write_bytes(b"user data of a2\n")
    document = MACHINE / "host-key.crt"
    code, shown = check(
        tmp_path,
        *("-k", document, "--host-key-check", "att-key-hash,boot-key-hash", "-u", tmp_path / "ud"),
        *("--secret", requests, "--secret-store-locked", "true"),
    )
    key = {"check_enforced": True, "hash": str(document)}
    assert code == 0
    assert shown == {
        "successful": True,
        "image_host_key": key,
        "attest_host_key": key,
        "user_data": "0x" + b"user data of a2\n".hex(),
        "secret_store": {"add_secret_requests": requests.split(","), "locked": True},
    }


@pytest.mark.parametrize(
    ("arguments", "issue"),
    [
        (["-k", str(MACHINE / "backup-host-key.crt")], "none of the host-key documents contains"),
        (["-k", f"{MACHINE / 'host-key.crt'},{MACHINE / 'host-key.crt'}"], "several of the host-key documents"),
        (["--secret-store-locked", "false"], "hash of the secret store differs"),
        (["-u", str(FOLDER / "cck")], "user data of the response are not the expected ones"),
    ],
)
def test_a_policy_that_is_not_met_is_an_issue_and_exit_code_2(
    tmp_path: Path, arguments: list[str], issue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = check(tmp_path, *arguments)
    assert (code, shown["successful"]) == (2, False)
    assert issue in str(shown["issues"])
    assert issue in capsys.readouterr().err


def test_what_a_response_lacks_fails_where_it_is_demanded(tmp_path: Path) -> None:
    result = tmp_path / "r"
    bare = FOLDER / "results" / "a0-1.attresp"
    document = MACHINE / "host-key.crt"
    assert run("check", bare, result, "-k", document) == 0
    assert run("check", bare, result, "-k", document, "--host-key-check", "att-key-hash", "--overwrite") == 2
    assert run("check", bare, result, "--secret-store-locked", "true", "--overwrite") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create"], "the following arguments are required"),
        (["create", "-k", "k", "-o", "o", "-a", "a", "--no-verify", "--add-data", "all"], "does not know 'all'"),
        (["create", "-k", "k", "-o", "o", "-a", "a"], "--cert or --bundle"),
        (["perform", "a", "b", "c"], "too many files: c"),
        (["perform", "-i", "a", "b", "c"], "too many files: c"),
        (["perform"], "the input is missing"),
        (["perform", "a"], "the output is missing"),
        (["check", "a", "b", "--host-key-check", "att-key-hash"], "needs --host-key-document"),
        (["check", "a", "b", "--secret", "s"], "needs --secret-store-locked"),
        (["check", "a", "b", "--fw-ver", "2"], "need --firmware"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["verify", "--hd", "x"], "required"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pvattest: 2 says that a measurement or a policy does not hold."""
    assert run(*arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert message in printed


def test_outside_a_guest_perform_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("perform", FOLDER / "requests" / "a0.attreq", tmp_path / "out") == 1
    assert capsys.readouterr().err == (
        "error: there is no /dev/uv; run this in a protected guest, with the kernel module uvdevice loaded "
        "(modprobe uvdevice)\n"
    )
    assert not (tmp_path / "out").exists()


def test_pvattest_is_the_same_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pvattest(["--version"])
    assert capsys.readouterr().out.startswith("pvattest version ")
    with pytest.raises(SystemExit) as ended:
        pvattest(["check", "-i", RESPONSE, "-o", str(tmp_path / "r")])
    assert ended.value.code == 0
