"""``zseal image info``, ``test``, ``verify``, ``diff`` and ``extract-header`` on the command line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.image.conftest import HOST_KEYS, INPUTS, VECTORS, Ran, fake_kernel, image
from zseal.formats.se_header import PlainFlags
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

Runner = Callable[..., Ran]

COMMON = [
    *("kind", "verified", "magic_hex", "version", "sehs", "iv_hex", "nks", "sea", "nep", "pcf_hex", "cust_pub_key"),
    *("pld_hex", "ald_hex", "tld_hex", "keyslots"),
]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The first known answer, and its header key beside it."""
    path = tmp_path / "kat1"
    path.write_bytes(image("se-kat1"))
    (tmp_path / "hdr.key").write_bytes(bytes.fromhex(INPUTS["hdr_key_hex"]))
    return path


def valid(schema: dict[str, Any], value: Any) -> bool:
    """A validator for the part of JSON schema that ours uses; any other keyword is an error."""
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    checks: dict[str, Callable[[Any], bool]] = {
        "type": lambda want: isinstance(value, types[want]) and (want != "integer" or not isinstance(value, bool)),
        "const": lambda want: bool(value == want),
        "enum": lambda want: value in want,
        "pattern": lambda want: bool(re.search(want, value)),
        "minimum": lambda want: value >= want,
        "minItems": lambda want: len(value) >= want,
        "required": lambda want: all(name in value for name in want),
        "properties": lambda want: all(valid(want[name], value[name]) for name in value if name in want),
        "additionalProperties": lambda want: want or set(value) <= set(schema["properties"]),
        "items": lambda want: all(valid(want, item) for item in value),
        "oneOf": lambda want: sum(valid(case, value) for case in want) == 1,
        "anyOf": lambda want: any(valid(case, value) for case in want),
        "not": lambda want: not valid(want, value),
        **dict.fromkeys(("description", "title", "$schema"), lambda want: True),
    }
    return all(checks[keyword](want) for keyword, want in schema.items())


@pytest.fixture
def schema(zseal: Runner) -> dict[str, Any]:
    ran = zseal("image", "info", "--print-schema", "json")
    assert ran.code == 0
    return json.loads(ran.out)  # type: ignore[no-any-return]


def test_json_has_the_keys_of_pvimg_in_their_order(zseal: Runner, known: Path, schema: dict[str, Any]) -> None:
    ran = zseal("image", "info", known)
    assert ran.code == 0 and "not verified" in ran.err and ran.out.endswith("}\n")
    document = json.loads(ran.out)
    assert list(document) == ["meta", "data"]
    assert list(document["meta"]) == ["api_level", "version", "host", "time_epoch", "time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+0000", document["meta"]["time"])
    data = document["data"]
    assert list(data) == [*COMMON, "cipher_data_b64", "tag_hex"]
    assert (data["kind"], data["verified"], data["version"]) == ("se_hdr", False, "V1")
    assert (data["sehs"], data["nks"], data["sea"], data["nep"]) == (720, 2, 128, 5)
    assert data["magic_hex"] == "49424d5365634578"
    assert data["pcf_hex"] == "00000000200000f0"
    assert list(data["keyslots"][0]) == ["phkh_hex", "wrpk_hex", "kst_hex"]
    assert valid(schema, document)


def test_header_key_verifies_and_shows_secrets_only_when_told(
    zseal: Runner, known: Path, schema: dict[str, Any]
) -> None:
    ran = zseal("image", "info", known, "--hdr-key", known.parent / "hdr.key", "--format", "JSON:Minify")
    assert ran.code == 0 and not ran.err and ran.out.count("\n") == 1
    verified = json.loads(ran.out)
    assert verified["data"]["verified"] is True and verified["data"]["kind"] == "se_hdr"
    assert valid(schema, verified)
    assert INPUTS["cck_hex"] not in ran.out and INPUTS["image_xts_key_hex"] not in ran.out

    ran = zseal("image", "info", known, "--key", known.parent / "hdr.key", "--show-secrets", "--format", "json:pretty")
    data = json.loads(ran.out)["data"]
    assert list(data) == [*COMMON, "cck_hex", "xts_hex", "psw", "scf_hex", "tag_hex"]
    assert (data["kind"], data["verified"]) == ("decrypted_se_hdr", True)
    assert data["cck_hex"] == INPUTS["cck_hex"]
    assert data["xts_hex"] == INPUTS["image_xts_key_hex"]
    assert data["psw"] == {"mask_hex": "0000000180000000", "addr_hex": "0000000000019000"}
    assert data["scf_hex"] == INPUTS["scf_hex"]
    assert valid(schema, json.loads(ran.out))


def test_schema_refuses_what_pvimg_would_not_print(zseal: Runner, known: Path, schema: dict[str, Any]) -> None:
    document = json.loads(zseal("image", "info", known).out)
    changes: tuple[dict[str, object], ...] = (
        {"verified": 1}, {"kind": "other"}, {"kind": "decrypted_se_hdr"}, {"extra": 0}, {"keyslots": []},
        {"pcf_hex": "0x12"}, {"cck_hex": "00"}, {"sehs": "720"},
    )  # fmt: skip
    for change in changes:
        assert not valid(schema, document | {"data": document["data"] | change})
    for name in document["data"]:
        assert not valid(schema, document | {"data": {k: v for k, v in document["data"].items() if k != name}})


def test_full_json_adds_what_pvimg_does_not_tell(zseal: Runner, known: Path) -> None:
    key = VECTORS / "se-hostkey.crt"
    ran = zseal("image", "info", known, "--format", "json:full", "-k", key, "--check-digests")
    described = json.loads(ran.out)["image"]
    assert described["digests_match"] is True
    assert described["dialect"] == "pvimg" and described["bootloader"] == "unknown"
    assert [(part["kind"], part["address"], part["size"]) for part in described["components"]] == [
        ("kernel", 0x15000, 0x2000), ("ramdisk", 0x17000, 0x1000), ("cmdline", 0x18000, 0x1000),
        ("stage3b", 0x19000, 0x1000),
    ]  # fmt: skip
    assert [(match["opens"], match["slot"]) for match in described["host_keys"]] == [(True, 0)]


def test_text_tells_components_host_keys_and_flags(zseal: Runner, known: Path, machine: Machine) -> None:
    other = machine.directory / "host-key.crt"
    ran = zseal(
        "image", "info", known, "--format", "text", "-k", f"{VECTORS / 'se-hostkey2.crt'},{other}", "--check-digests"
    )
    assert ran.code == 0
    for text in ("21729f22", "dumps by the host are allowed", "kernel", "0x0000015000", "another tool", "do match"):
        assert text.replace("do match", "match the header's digests") in ran.out
    assert "se-hostkey2.crt: yes, key slot 1" in ran.out and f"{other}: no" in ran.out
    full = zseal(
        "image", "info", known, "--format", "text:full", "--hdr-key", known.parent / "hdr.key", "--show-secrets"
    )
    assert INPUTS["cck_hex"] in full.out and "decrypted and verified" in full.out
    assert INPUTS["cck_hex"] not in ran.out


def test_changed_component_is_seen_without_any_key(zseal: Runner, known: Path) -> None:
    data = bytearray(known.read_bytes())
    data[0x15123] ^= 1
    known.write_bytes(data)
    assert "do NOT match" in zseal("image", "info", known, "--format", "text", "--check-digests").out


def test_bare_header_and_image_in_a_larger_file(zseal: Runner, known: Path) -> None:
    header = VECTORS / "se-hdr-genprotimg-2.35.bin"
    assert json.loads(zseal("image", "info", header).out)["data"]["sehs"] == 640
    inside = known.parent / "disk"
    inside.write_bytes(b"\xff" * 1_000_003 + known.read_bytes() + b"\xff" * 5000)
    described = json.loads(zseal("image", "info", inside, "--format", "json:full").out)
    assert described["image"]["image_offset"] == 1_000_003
    assert described["data"] == json.loads(zseal("image", "info", known).out)["data"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give an image"),
        (["kat1", "--print-schema", "json"], 2, "excludes"),
        (["--print-schema", "xml"], 2, "no schema"),
        (["kat1", "--format", "yaml"], 2, "no format"),
        (["kat1", "--show-secrets"], 2, "needs --hdr-key"),
        (["kat1", "--format", "json", "--check-digests"], 2, "json:full"),
        (["none"], 1, "cannot read the image"),
        (["empty"], 1, "the file is empty"),
        (["hdr.key"], 1, "not a Secure Execution image"),
        (["cut"], 1, "before its SE header does"),
        (["newer"], 1, "unknown SE header version 0x200"),
        (["kat1", "--hdr-key", "short.key"], 1, "header key has 31 bytes"),
        (["kat1", "--hdr-key", "wrong.key"], 1, "not authentic"),
        (["changed", "--hdr-key", "hdr.key"], 1, "not authentic"),
    ],
)
def test_info_errors(
    zseal: Runner, known: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(known.parent)
    data = known.read_bytes()
    for name, content in {
        "empty": b"",
        "short.key": bytes(31),
        "wrong.key": bytes(32),
        "cut": data[:0x14100],
        "newer": data[:0x14008] + b"\0\0\2\0" + data[0x1400C:],
        "changed": data[:0x14018] + b"\xff" + data[0x14019:],
    }.items():
        Path(name).write_bytes(content)
    ran = zseal("image", "info", *arguments)
    assert ran.code == code
    assert message in ran.err
    assert not ran.out


def test_text_has_no_schema(zseal: Runner) -> None:
    ran = zseal("image", "info", "--print-schema", "text")
    assert ran.code == 0 and "no schema" in ran.out


def test_documents_are_tested_against_the_slots(zseal: Runner, known: Path, machine: Machine) -> None:
    mine, other = VECTORS / "se-hostkey.crt", machine.directory / "host-key.crt"
    ran = zseal("image", "test", known, "-k", mine, "-k", other)
    assert ran.code == 0 and len(ran.out.splitlines()) == 2
    assert "key slot 0" in ran.out.splitlines()[0] and "no key slot" in ran.out.splitlines()[1]
    ran = zseal("image", "test", "-k", other, known)
    assert ran.code == 1 and "none of these host keys" in ran.err


def hashes(*values: str) -> str:
    return "\n".join([*values, *["0" * 64] * (15 - len(values))]) + "\n"


MINE = "21729f22dd2191a89e4b494e18fd796f7ff743cc818ffb5fafefec1a9325f29f"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (hashes(MINE), 0, "host key: key slot 0"),
        (hashes("11" * 32, MINE), 0, "backup host key: key slot 0"),
        (hashes("11" * 32, "22" * 32, MINE), 0, "key hash 3: key slot 0"),
        (hashes("11" * 32), 1, "none of these"),
        (hashes(), 1, "none of these"),
        (hashes(MINE).removesuffix("\n"), 0, "key slot 0"),
        ("\n".join([MINE] * 14) + "\n", 1, "15 lines, this has 14"),
        ("\n".join([MINE] * 16) + "\n", 1, "15 lines, this has 16"),
        (hashes(MINE[:-1]), 1, "line 1 is not a hash"),
        (hashes(MINE, "x" * 64), 1, "line 2 is not a hash"),
        (hashes("0x" + MINE[2:]), 1, "line 1 is not a hash"),
        ("", 1, "15 lines, this has 0"),
    ],
)
def test_key_hashes_of_a_host(zseal: Runner, known: Path, content: str, code: int, message: str) -> None:
    path = known.parent / "all"
    path.write_text(content)
    ran = zseal("image", "test", f"--key-hashes={path}", known)
    assert ran.code == code
    assert message in ran.out + ran.err


def test_key_hashes_alone_takes_no_file(zseal: Runner, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zseal.cli.image.test.KEY_HASHES", str(known.parent / "nothing"))
    ran = zseal("image", "test", "--key-hashes", known)
    assert ran.code == 1 and f"{known.parent / 'nothing'}: cannot read the list of key hashes" in ran.err


@pytest.mark.parametrize("arguments", [[], ["-k", "x", "--key-hashes=y"], ["--key-hashes=y", "--key-hashes=z"]])
def test_wrong_use_of_test_exits_with_2(zseal: Runner, known: Path, arguments: list[str]) -> None:
    assert zseal("image", "test", known, *arguments).code == 2


def test_machine_key_hash_file_fits(zseal: Runner, machine: Machine, tmp_path: Path) -> None:
    build_image(tmp_path / "image", kernel=fake_kernel(), host_keys=[machine.keys.host.public_key()])
    (tmp_path / "all").write_text(machine.key_hashes_file())
    assert zseal("image", "test", tmp_path / "image", f"--key-hashes={tmp_path / 'all'}").code == 0


def test_verify_says_the_code_of_the_failing_check(
    zseal: Runner, machine: Machine, other_machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    build_image(path, kernel=fake_kernel(), host_keys=[machine.keys.host.public_key()])
    assert zseal("image", "verify", path, "--machine", machine.directory).code == 0
    ran = zseal("image", "verify", path, "--machine", other_machine.directory)
    assert ran.code == 1 and "rc 0x0108 rrc 0x0005" in ran.err and str(path) in ran.err
    data = bytearray(path.read_bytes())
    data[0x16000] ^= 1
    path.write_bytes(data)
    ran = zseal("image", "verify", path, "--machine", machine.directory, "--extract", tmp_path / "out")
    assert ran.code == 1 and "rc 0x0102 rrc 0x001b" in ran.err
    assert not (tmp_path / "out").exists()
    assert zseal("image", "verify", path).code == 2


def test_verify_takes_backup_keys_and_unencrypted_images(zseal: Runner, machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "image"
    backup = machine.keys.backup
    assert backup is not None
    flags = PlainFlags.BACKUP_KEYS | PlainFlags.NO_COMPONENT_ENCRYPTION
    build_image(path, kernel=fake_kernel(), host_keys=[backup.public_key()], flags=flags)
    ran = zseal("image", "verify", path, "--machine", machine.directory)
    assert ran.code == 0 and "backup host key" in ran.out


def test_header_is_extracted_as_it_is(zseal: Runner, known: Path) -> None:
    output = known.parent / "hdr"
    assert zseal("image", "extract-header", known, "-o", output).code == 0
    assert output.read_bytes() == known.read_bytes()[0x14000 : 0x14000 + 720]
    assert zseal("image", "extract-header", known, "-o", output).code == 1
    assert zseal("image", "extract-header", known, "-o", output, "--overwrite").code == 0


def variant(machine: Machine, path: Path, **changes: object) -> Path:
    settings: dict[str, Any] = {
        "kernel": fake_kernel(), "ramdisk": b"r" * 9000, "cmdline": b"quiet",
        "host_keys": [machine.keys.host.public_key()],
    } | changes  # fmt: skip
    build_image(path, **settings)
    return path


def differing(ran: Ran) -> set[str]:
    assert ran.code == 0
    return {difference["what"] for difference in json.loads(ran.out)["differences"]}


def test_diff_with_a_key_sees_only_real_changes(zseal: Runner, machine: Machine, tmp_path: Path) -> None:
    a, b = variant(machine, tmp_path / "a"), variant(machine, tmp_path / "b")
    c = variant(machine, tmp_path / "c", ramdisk=b"r" * 8999 + b"s", flags=0)
    d = variant(machine, tmp_path / "d", cmdline=None)
    options = ["--machine", machine.directory, "--format", "json"]
    rebuilt = {
        "customer public key", "header IV", "page list digest", "tweak list digest", "header tag",
        "customer communication key", "image key",
    }  # fmt: skip
    assert differing(zseal("image", "diff", a, a, *options)) == set()
    assert differing(zseal("image", "diff", a, b, *options)) == rebuilt
    assert differing(zseal("image", "diff", a, c, *options)) == rebuilt | {
        "ramdisk: content", "plaintext control flags",
    }  # fmt: skip
    assert {"cmdline", "stage3b: address", "address list digest"} <= differing(zseal("image", "diff", a, d, *options))


def test_diff_without_keys_counts_stored_pages(zseal: Runner, machine: Machine, known: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    data = bytearray(known.read_bytes())
    data[0x15005] ^= 1
    changed.write_bytes(data)
    ran = zseal("image", "diff", known, changed, "--exit-code")
    assert ran.code == 1 and "kernel: stored bytes: 1 of 2 pages differ" in ran.out
    assert zseal("image", "diff", known, known, "--exit-code").code == 0
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), host_keys=[HOST_KEYS[0].public_key()])
    changed.write_bytes(output.getvalue())
    text = zseal("image", "diff", known, changed).out
    assert "host key fe8eadbe23f692c7…" in text and "ramdisk\n  A  present\n  B  absent" in text
    ran = zseal("image", "diff", known, changed, "--machine", machine.directory)
    assert ran.code == 0 and f"none of the keys opens {known}" in ran.err


def test_diff_shows_no_key(zseal: Runner, known: Path, machine: Machine, tmp_path: Path) -> None:
    other = variant(machine, tmp_path / "a")
    ran = zseal("image", "diff", known, other, "--hdr-key", known.parent / "hdr.key", "--machine", machine.directory)
    assert "image key" in ran.out
    assert INPUTS["image_xts_key_hex"][:16] not in ran.out and INPUTS["cck_hex"][:16] not in ran.out


def test_reference_values_have_the_names_and_forms_of_trustee(
    zseal: Runner, machine: Machine, other_machine: Machine, tmp_path: Path
) -> None:
    path = variant(machine, tmp_path / "image")
    document = machine.directory / "host-key.crt"
    values = json.loads(zseal("image", "reference-values", path, "-k", document).out)
    described = json.loads(zseal("image", "info", path, "--format", "json:full", "-k", document).out)
    key_hash = described["image"]["host_keys"][0]["phkh_hex"]
    assert values == {
        "se.attestation_phkh": key_hash,
        "se.image_phkh": key_hash,
        "se.tag": described["data"]["tag_hex"],
        "se.version": 256,
    }
    assert zseal("image", "extract-header", path, "-o", tmp_path / "header").code == 0
    assert json.loads(zseal("image", "reference-values", tmp_path / "header", "-k", document).out) == values
    both = zseal("image", "reference-values", path, "-k", document, "-k", document)
    assert json.loads(both.out) == [values, values]
    other = zseal("image", "reference-values", path, "-k", other_machine.directory / "host-key.crt")
    assert (other.code, other.out) == (1, "")
    assert "no key slot for this host key" in other.err
    assert zseal("image", "reference-values", path).code == 2
