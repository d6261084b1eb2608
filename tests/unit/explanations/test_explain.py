"""Codes and messages are explained, narrowed and never guessed."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.paths import DOCS
from zseal.cli.main import main
from zseal.errors import UsageError
from zseal.explanations import Reading, all_readings, explain, to_json, to_text
from zseal.explanations.families.exits import OUTCOMES
from zseal.formats.uv_codes import RESPONSE_CODES, Command, Generic
from zseal.guest.outcome import Outcome


def one(*arguments: str, command: str | None = None) -> tuple[Reading, ...]:
    explanations = explain(arguments, command=command)
    assert len(explanations) == 1
    return explanations[0].readings


def names(readings: tuple[Reading, ...]) -> list[str]:
    return [reading.name for reading in readings]


def test_rc_and_rrc_together_name_one_answer() -> None:
    (reading,) = one("0x0108", "0x0005")
    assert (reading.name, reading.commands) == ("HOST_KEY", ("SET_SEC_CONF_PARAMS",))
    assert reading.meaning.startswith("the image is not built for this machine")
    assert "host-key document" in (reading.cause or "")


@pytest.mark.parametrize("spelling", [("0x0108/0x0005",), ("108/5",), ("108", "5"), ("rc 0x108, rrc 0x5",)])
def test_a_pair_may_be_written_in_several_ways(spelling: tuple[str, ...]) -> None:
    assert "HOST_KEY" in names(one(*spelling))


def test_an_ambiguous_code_lists_each_command() -> None:
    readings = one("0x0104")
    assert len(readings) > 5
    commands = {command for reading in readings for command in reading.commands}
    assert {"INIT_UV", "CREATE_SEC_CPU", "SET_SEC_CONF_PARAMS", "RETR_ATTEST", "ADD_SECRET"} <= commands


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("SSCP", "VERSION"),
        ("set_sec_conf_params", "VERSION"),
        ("UVC_CMD_SET_SEC_CONF_PARAMS", "VERSION"),
        ("KVM_PV_SET_SEC_PARMS", "VERSION"),
        ("0x300", "VERSION"),
        ("INIT", "ORIGIN"),
        ("large", "NOT_CONSECUTIVE"),
        ("attest", "MEASUREMENT_ACCESS"),
    ],
)
def test_a_command_narrows_an_ambiguous_code(command: str, name: str) -> None:
    assert names(one("0x0104", command=command)) == [name]


def test_a_command_nobody_knows_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no command is called"):
        explain(["0x0104"], command="FROBNICATE")


def test_the_same_code_means_something_else_to_the_diagnose() -> None:
    assert names(one("0x0102", command="DIAG308")) == ["NO_CONFIGURATION"]
    assert "NO_CONFIGURATION" not in names(one("0x0102", command="VERIFY"))


@pytest.mark.parametrize("code", ["0xa02", "0x0a02", "0A02", "a02"])
def test_the_diagnose_response_of_a_failed_boot(code: str) -> None:
    assert names(one(code)) == ["INVALID_FOR_PV"]


def test_the_packed_response_of_newer_qemu_is_taken_apart() -> None:
    assert names(one("0x0002000501080a02")) == ["HOST_KEY", "INVALID_FOR_PV"]
    assert names(one("0x0004001b01020a02")) == ["PAGES", "INVALID_FOR_PV"]


@pytest.mark.parametrize("code", ["4607", "0x4607", "wait 4607", "0x00020000800000000000000000004607"])
def test_wait_codes(code: str) -> None:
    assert names(one(code)) == ["NO_PV_SUPPORT"]


def test_two_codes_that_are_no_pair_are_each_explained() -> None:
    assert names(one("4607/0x4608")) == ["NO_PV_SUPPORT", "PV_FAILED"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("0x3c", "SECURE_PAGE_SIZE"),
        ("3d", "SECURE_STORAGE_ACCESS"),
        ("pgm 0x3e", "NON_SECURE_STORAGE_ACCESS"),
        ("PGM: 3f", "SECURE_STORAGE_VIOLATION"),
        ("pgm 1", "OPERATION"),
    ],
)
def test_program_interruptions(code: str, name: str) -> None:
    assert names(one(code)) == [name]


def test_the_need_to_destroy_is_no_code_of_its_own() -> None:
    assert names(one("0x810c", command="CREATE_SEC_CONF")) == ["SCA_ZERO"]


def test_a_call_is_known_by_its_code() -> None:
    assert "UNPACK_IMG" in names(one("0x301"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_exit_code_of_a_run_is_explained(outcome: Outcome) -> None:
    assert outcome.value in OUTCOMES
    assert names(one(f"exit {outcome.exit_code}")) == [outcome.name]


def test_no_exit_code_is_explained_that_a_run_does_not_have() -> None:
    assert set(OUTCOMES) == {outcome.value for outcome in Outcome}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Protected boot failed: 0xa02, KVM_PV_SET_SEC_PARMS - RC: 0x108, RRC:0x5",
            ["HOST_KEY", "INVALID_FOR_PV"],
        ),
        ("Protected boot has failed: 0xa02", ["INVALID_FOR_PV"]),
        ("Protected boot setup has failed: 0x402", ["INVALID"]),
        (
            "qemu-system-s390x: KVM PV command 2 (KVM_PV_SET_SEC_PARMS) failed: header rc 108 rrc 5 IOCTL rc: -22",
            ["HOST_KEY", "EINVAL"],
        ),
        ("KVM PV command 4 (KVM_PV_VERIFY) failed: header rc 102 rrc 1c IOCTL rc: -22", ["TWEAKS", "EINVAL"]),
        ("KVM PV command 3 (KVM_PV_UNPACK) failed: header rc 777 rrc 0 IOCTL rc: -22", ["UNDOCUMENTED", "EINVAL"]),
        ("[0.3] prot_virt: Ultravisor init failed with rc: 0x102 rrc: 0", ["CPUS_RUNNING"]),
        ("prot_virt: Reserving 98MB as ultravisor base storage", ["RESERVED"]),
        ("prot_virt: Failed to reserve 102760448 bytes for ultravisor base storage", ["NOT_RESERVED"]),
        ("Share UVC failed (rc:0x101, rrc:0x0), possible hypervisor bug.", ["ADDRESS"]),
        ("protvirt destroy vm fast failed rc 104 rrc 0", ["ALREADY"]),
        ("device must provide VIRTIO_F_ACCESS_PLATFORM", ["NO_ACCESS_PLATFORM"]),
        (
            "swiotlb buffer is full (sz: 262144 bytes), total 32768 (slots), used 28249 (slots)",
            ["SWIOTLB_FULL"],
        ),
        ("error: unsupported configuration: S390 PV launch security is not supported by this host or kernel",
         ["HOST_NOT_READY"]),
        ("'s390-pv' launch security is not supported with this QEMU binary", ["QEMU_NOT_READY"]),
        ("Secure unpack facility is not available", ["NO_UNPACK"]),
        ("Protected VMs can currently not be backed with huge pages.", ["HUGE_PAGES"]),
        ("IBM Secure Execution appears to be disabled in kernel. Add prot_virt=1 to kernel cmdline arguments",
         ["VALIDATE_DISABLED"]),
    ],
)  # fmt: skip
def test_messages(message: str, expected: list[str]) -> None:
    assert names(one(message)) == expected
    assert names(one(*message.split())) == expected


def test_a_pasted_log_is_explained_line_by_line() -> None:
    explanations = explain(["first line\nProtected boot has failed: 0xa02\n\nlast line\n"])
    assert [len(e.readings) for e in explanations] == [0, 1, 0]


def test_every_documented_answer_can_be_found() -> None:
    for command, tables in RESPONSE_CODES.items():
        for answer in (*(a for table in tables for a in table), *Generic):
            codes = [hex(answer.rc)] if answer.rrc is None else [hex(answer.rc), hex(answer.rrc)]
            assert answer.meaning in [r.meaning for r in one(*codes, command=command.name)], answer


def test_what_ibm_does_not_publish_is_marked() -> None:
    (reading,) = one("0x0107", "0x0001", command="SSCP")
    assert not reading.published
    assert "zseal's own" in to_text(explain(["0x0107", "0x0001"], command="SSCP"), width=200)


@pytest.mark.parametrize("nonsense", ["0xdead", "hello world", "0", "", "0x", "rc", "exit 99", "pgm 99"])
def test_nothing_is_guessed(nonsense: str) -> None:
    assert not any(e.readings for e in explain([nonsense]))


def test_json_has_the_documented_fields() -> None:
    content = json.loads(to_json(explain(["0xa02"])))
    assert content["version"] == 1
    (explanation,) = content["explanations"]
    assert explanation["question"] == "0xa02"
    assert set(explanation["readings"][0]) == {
        "code", "name", "source", "meaning", "cause", "remedy", "commands", "published", "role",
    }  # fmt: skip


def test_the_list_has_no_doubles_and_all_commands() -> None:
    readings = list(all_readings())
    assert len({(r.code, r.name, r.commands, r.source) for r in readings}) == len(readings)
    assert {command.name for command in Command} <= {r.name for r in readings}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["explain", *arguments])
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(capsys, "0x0108", "0x0005", "--format", "json")
    assert code == 0
    assert json.loads(out)["explanations"][0]["readings"][0]["name"] == "HOST_KEY"
    code, out, err = run(capsys, "0xdead")
    assert (code, out) == (1, "")
    assert err.startswith("error: nothing is known about '0xdead'")
    assert err.count("\n") == 1
    assert run(capsys, "0x0108", "--command", "NO")[0] == 2
    assert run(capsys)[0] == 2
    assert len(run(capsys, "--list")[1].splitlines()) > 150
    log = io.TextIOWrapper(io.BytesIO(b"noise\nProtected boot has failed: 0xa02\n\xff\n"))
    monkeypatch.setattr(sys, "stdin", log)
    assert "INVALID_FOR_PV" in run(capsys, "-")[1]


@given(st.lists(st.text(max_size=60), max_size=4), st.none() | st.text(max_size=12))
def test_any_text_is_survived(arguments: list[str], command: str | None) -> None:
    try:
        explanations = explain(arguments, command=command)
    except UsageError:
        return
    assert to_json(explanations)
    assert isinstance(to_text(explanations, width=80), str)


@given(
    st.lists(
        st.sampled_from(
            ["rc", "rrc", "0x", ":", "/", "108", "Protected boot failed: ", "KVM PV command ", "(KVM_PV_", "protvirt",
             " header rc ", "pgm ", "exit ", "ffffffffffffffff", "\n", " ", "-22", "IOCTL rc: ", "²"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_text_that_looks_like_messages_is_survived(parts: list[str]) -> None:
    assert to_json(explain(["".join(parts)]))


@pytest.mark.parametrize(
    ("command", "arguments", "narrow"),
    [
        (
            "zseal explain 'Protected boot failed: 0xa02, KVM_PV_SET_SEC_PARMS - RC: 0x108, RRC:0x5'",
            ["Protected boot failed: 0xa02, KVM_PV_SET_SEC_PARMS - RC: 0x108, RRC:0x5"],
            None,
        ),
        ("zseal explain 0x0104 --command SSCP", ["0x0104"], "SSCP"),
    ],
)
def test_the_guide_shows_what_is_really_printed(command: str, arguments: list[str], narrow: str | None) -> None:
    guide = (DOCS / "explain.md").read_text()
    shown = guide.split(f"$ {command}\n")[1].split("\n```")[0]
    assert shown == to_text(explain(arguments, command=narrow), width=110)
