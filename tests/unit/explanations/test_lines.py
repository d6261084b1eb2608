"""Lines as people paste them: of tools in guests, bootloaders, QEMU, libvirt and zseal; whole logs and their cause."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zseal.arch.psw import Psw
from zseal.cli.main import main
from zseal.engine.interface import Stop, StopKind
from zseal.explanations import explain, explain_log, first_cause, to_json, to_text
from zseal.formats.uv_codes import Command, SetParameters, describe
from zseal.guest.diagnosis import kernel_unaware, never_protected, refused_function, unused_device
from zseal.guest.judgement import _OUTCOMES
from zseal.messages.bootloaders import ANSWERS

ROOT = Path(__file__).parents[3]


def names(*arguments: str) -> list[str]:
    (explanation,) = explain(arguments)
    return [reading.name for reading in explanation.readings]


def calls(line: str) -> set[str]:
    (explanation,) = explain([line])
    return {command for reading in explanation.readings for command in reading.commands}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pvsecret: error: Ultravisor: 'the store is closed' (0x0102,0x0000)",
         {"ADD_SECRET", "LOCK_SECRETS", "RETR_SECRET"}),
        ("error: Ultravisor: 'cannot read it' (0x010c,0x0000)", {"RETR_ATTEST", "ADD_SECRET"}),
        ("pvattest: Ultravisor: 'cannot read it' (0x010c,0x0000)", {"RETR_ATTEST"}),
        ("Dec 01 10:11:12 guest pvsecret[77]: error: Ultravisor: 'full' (0x010B, 0x0000)", {"ADD_SECRET"}),
        ("(0x0108,0x0000)", {"RETR_ATTEST", "ADD_SECRET"}),
    ],
)  # fmt: skip
def test_a_tool_in_a_guest_reports_codes_of_guest_calls_only(line: str, expected: set[str]) -> None:
    assert calls(line) == expected


def test_other_pairs_of_numbers_in_text_are_no_answers() -> None:
    assert names("device 0000:00:01.0 has the ids (0x1af4,0x1000)") == []


@pytest.mark.parametrize(("text", "answer"), ANSWERS, ids=lambda value: str(value)[:30])
def test_a_bootloaders_sentence_is_read_as_its_answer(text: str, answer: SetParameters) -> None:
    assert names(f"{text}.")[0] == answer.name


def test_every_cause_that_stage3a_prints_is_explained() -> None:
    source = (ROOT / "native" / "bootloaders" / "stage3a" / "failure.c").read_text()
    causes = re.findall(r'\{(0x[0-9a-f]{4}), (0x[0-9a-f]{4}|ANY), "(.+)"\}', source)
    assert len(causes) == 16
    for rc, rrc, text in causes:
        (explanation,) = explain([text])
        assert explanation.readings, text
        if rrc != "ANY":
            assert explanation.readings[0].code == f"rc {rc} rrc {rrc}", text


@pytest.mark.parametrize(
    "line",
    [
        "PSW: 0x0002000180000000 0x0000000000004608",
        "PSW: 0x0002000180000000, 0x0000000000004608",
        "2026-12-01T10:11:12.000000Z qemu-system-s390x: PSW: 0x0002000180000000 0x0000000000004608",
        "panic s390: core='1' psw-mask='0x0002000180000000' psw-addr='0x0000000000004608' reason='disabled-wait'",
        '{"psw-addr": 17928, "psw-mask": 562956395872256, "core": 0, "type": "s390", "reason": "disabled-wait"}',
        "00020001 80000000 00000000 00004608",
        "00020001,80000000,00000000,00004608",
        "PSW=0002000180000000 0000000000004608",
        "0002 0001 8000 0000 0000 0000 0000 4608",
        "PSW 000A0000 80004608",
        "disabled wait code 4608",
        "the system stopped: disabled wait (0x4608)",
        "error: the guest stopped for good: disabled wait at 0x4608",
    ],
)
def test_a_wait_code_is_found_in_every_way_to_write_a_psw(line: str) -> None:
    assert names(line)[0] == "PV_FAILED"


def test_a_psw_in_groups_needs_no_quotes() -> None:
    assert names("00020001", "80000000", "00000000", "00004608") == ["PV_FAILED"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("PSW: 0x0002000180000000 0x000003fffe9094f6", "STOPPED"),
        ("the guest stopped for good: disabled wait at 0x3fffe9094f6", "STOPPED"),
        ("PSW: 0x0002000080000000 0x0000000000000000", "NO_HANDLER"),
        ("PSW: 0x0002000080000000 0x0000000000004512", "SECURE_BOOT"),
        ("panic s390: core='0' psw-mask='0x0' psw-addr='0x1234' reason='pgmint-loop'", "INTERRUPTION_LOOP"),
    ],
)
def test_other_ends_are_told_apart(line: str, name: str) -> None:
    assert names(line)[0] == name


@pytest.mark.parametrize(
    "line",
    [
        "Krnl PSW : 0704c00180000000 00000000001123ab (some_function+0x12/0x34)",
        "PSW: 0x0706000180000000 0x0000000000104608",
        "PSW: 0x0702000180000000 0x0000000000004608",
    ],
)
def test_a_psw_that_is_no_disabled_wait_is_not_read_as_one(line: str) -> None:
    assert not {"PV_FAILED", "STOPPED"} & set(names(line))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("error: unsupported configuration: machine type 's390-ccw-virtio-8.2' does not support ACPI", "NO_ACPI"),
        ("error: unsupported configuration: 'virtiofs' requires shared memory", "NEEDS_SHARED_MEMORY"),
        ("qemu-system-s390x: -fw_cfg name=opt/x,string=y: fw_cfg device not available", "NO_FW_CFG"),
        ("ioctl(KVM_CREATE_VM) failed: 22 Invalid argument", "CREATE_VM_FAILED"),
        ("Host kernel setup problem detected. Please verify:", "ALLOCATE_PGSTE"),
        ("Could not access KVM kernel module: No such file or directory", "KVM_MISSING"),
        ("Could not access KVM kernel module: Permission denied", "KVM_DENIED"),
        ("error: invalid argument: could not find capabilities for arch=s390x domaintype=kvm", "NO_CAPABILITIES"),
        ("Selected CPU generation is too new. Maximum supported model in the configuration: 'z13.2'", "CPU_TOO_NEW"),
        ("Feature 'unpack' is not available for CPU model 'z13', it was introduced with later models.",
         "FEATURE_TOO_NEW"),
        ("This QEMU machine does not support huge page mappings", "NO_HUGE_PAGES_HERE"),
        ("NUMA is not supported by this machine-type", "NO_NUMA"),
        ("Multiple VT220 operator consoles are not supported", "ONE_CONSOLE"),
        ("  QEMU: Checking for hardware virtualization          : FAIL (no sie)", "VALIDATE_VIRTUALIZATION"),
        ("virtio_blk: probe of virtio1 failed with error -19", "PROBE_FAILED"),
        ("virtio_net virtio2: probe with driver virtio_net failed with error -19", "PROBE_FAILED_NEWER"),
        ("! Could not find a suitable boot device (none specified) !", "NO_BOOT_DEVICE"),
        ("KVM PV INFO cmd 1 failed: Invalid argument", "PV_INFO_FAILED"),
        ("qemu-system-s390x: KVM DUMP command 0 failed", "DUMP_FAILED"),
        ("qemu-system-s390x: Could not get IPL PSW", "NO_IPL_PSW"),
        ("Outdated capabilities for '/usr/bin/qemu-system-s390x': kernel version changed", "OUTDATED_CAPABILITIES"),
        ("[    0.5] System stopped due to unrecoverable machine check, code: 0x00400F1D40330000", "MACHINE_CHECK"),
        ("pvattest: error: Host-key verification failed: Issuer mismatch", "HKD_ISSUER"),
        ("error: Host-key verification failed: No valid CRL found", "HKD_NO_CRL"),
        ("pvimg: error: ELF file found, but only raw binary kernels are supported.", "ELF_KERNEL"),
        ("ALERT!  LABEL=root does not exist.  Dropping to a shell!", "ROOT_MISSING"),
        ("dracut-initqueue[400]: Warning: Could not boot.", "ROOT_TIMEOUT"),
        ("Out of memory allocating 11082a bytes 8 aligned in range 0:2000000", "NO_ROOM"),
        (" -- System halted", "HALTED"),
    ],
)  # fmt: skip
def test_what_qemu_libvirt_firmware_and_guests_print(line: str, name: str) -> None:
    (explanation,) = explain([line])
    assert name in [reading.name for reading in explanation.readings]
    assert all(reading.meaning and reading.remedy for reading in explanation.readings)


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("VFS: Unable to mount root fs on unknown-block(0,0)", "cannot mount its root file system"),
        ("No working init found.  Try passing init= option to kernel.", "no program to start"),
        ("Attempted to kill init! exitcode=0x00000100", "init) ended, with exit status 1"),
        ("Attempted to kill init! exitcode=0x0000000b", "init) was killed by SIGSEGV"),
        ("Attempted to kill init! exitcode=0x00000004", "init) was killed by SIGILL"),
        ("Attempted to kill init! exitcode=0x0000007e", "init) was killed by signal 126"),
        ("System is deadlocked on memory", "ran out of memory"),
        ("something never heard of", "stopped itself: something never heard of"),
    ],
)
def test_a_panic_is_explained_by_its_reason(reason: str, meaning: str) -> None:
    (explanation,) = explain([f"[    1.2] Kernel panic - not syncing: {reason}"])
    assert meaning in next(reading.meaning for reading in explanation.readings if reading.name == "PANIC")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("swiotlb buffer is full (sz: 4096 bytes), total 0 (slots), used 0 (slots)", "has no bounce buffers"),
        ("Can not allocate SWIOTLB buffer earlier and can't now provide you", "has no bounce buffers"),
        ("software IO TLB: SWIOTLB bounce buffer size adjusted 262144 -> 65536 slabs", "65536 slots (128 MiB) instead"),
        ("swiotlb buffer is full (sz: 4096 bytes), total 512 (slots), used 510 (slots)", "510 of 512 slots"),
    ],
)
def test_no_pool_a_smaller_pool_and_a_full_pool_differ(line: str, expected: str) -> None:
    (explanation,) = explain([line])
    assert expected in explanation.readings[0].meaning


# --- what zseal prints, zseal explains ---


@pytest.mark.parametrize("kind", [kind for kind in StopKind if kind is not StopKind.PANIC])
def test_how_a_run_ends_is_explained(kind: StopKind) -> None:
    outcome, message = _OUTCOMES[kind]
    assert names(f"error: {message}: something") == [outcome.name]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("error: the guest did not end within 12 s", "TIMEOUT"),
        ("error: zseal could not go on with the guest: OSError: no space", "FAILED"),
        ("error: the image's bootloader gave up before it could be opened (disabled wait at 0x4607)", "REFUSED"),
        ("error: the guest was stopped before a device could touch what it does not share: virtio0", "IO_VIOLATION"),
    ],
)
def test_sentences_with_a_cause_in_them_are_explained(line: str, name: str) -> None:
    assert name in names(line)


def test_a_refusal_in_zseals_words_is_read_for_its_call() -> None:
    line = describe(Command.SET_SEC_CONF_PARAMS, 0x0108, 5)
    assert names(line) == ["HOST_KEY"]
    assert calls(describe(Command.RETR_ATTEST, 0x010C, 0)) == {"RETR_ATTEST"}


@pytest.mark.parametrize(
    "diagnosis",
    [kernel_unaware(), never_protected(), unused_device("virtio0"), refused_function(None), refused_function(4)],
    ids=lambda diagnosis: diagnosis.id,
)
def test_a_diagnosis_is_repeated_with_its_remedy(diagnosis: object) -> None:
    (explanation,) = explain([f"diagnosis: {diagnosis}"])
    (reading,) = explanation.readings
    assert str(diagnosis) == f"{reading.meaning}; {reading.remedy}"


def test_a_stop_at_an_address_names_the_address() -> None:
    stop = Stop(StopKind.PANIC, cpu=0, psw=Psw(0x0002000180000000, 0x4607))
    assert stop.psw is not None
    assert names(f"disabled wait at {stop.psw.address:#x}") == ["NO_PV_SUPPORT"]


# --- lines that were broken, and whole logs ---


def test_a_line_broken_by_a_terminal_is_read_as_one() -> None:
    text = (
        "The host key hash of the IBM Secure Execution image does not match the host key\nof the installed key bundle."
    )
    (explanation,) = explain([text])
    assert [reading.name for reading in explanation.readings] == ["HOST_KEY"]
    text = "Protected boot failed: 0xa02, KVM_PV_SET_SEC_PARMS - RC: 0x1\n08, RRC:0x5"
    (explanation,) = explain([text])
    assert "HOST_KEY" in [reading.name for reading in explanation.readings]


def test_a_line_broken_by_a_journal_is_read_without_the_prefix_of_its_second_half() -> None:
    text = (
        "Dec 01 10:11:12 host qemu[12]: KVM PV command 2 (KVM_PV_SET_SEC_PARMS) failed: header\n"
        "Dec 01 10:11:12 host qemu[12]: rc 108 rrc 5 IOCTL rc: -22"
    )
    (explanation,) = explain([text])
    assert [reading.name for reading in explanation.readings] == ["HOST_KEY", "EINVAL"]


def test_lines_of_their_own_stay_apart() -> None:
    text = "Protected boot has failed: 0xa02\nSecure unpack facility is not available\n"
    assert [[r.name for r in e.readings] for e in explain([text])] == [["INVALID_FOR_PV"], ["NO_UNPACK"]]


LOG = """\
2026-12-01 10:11:10.000+0000: starting up libvirt version: 11.3.0
[    0.000000] Linux version 6.12.0 (builder@example) #1 SMP
[    0.030000] software IO TLB: mapped [mem 0x0000000070000000-0x0000000074000000] (64MB)
[    0.900000] virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM
[    0.900001] virtio_blk virtio1: device must provide VIRTIO_F_ACCESS_PLATFORM
108
[    3.000000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
Guest crashed on cpu 0: disabled-wait
PSW: 0x0002000180000000 0x000003fffe9094f6
"""


def test_the_first_cause_of_a_log_is_named() -> None:
    found = explain_log(LOG)
    assert [each.line for each in found] == [3, 4, 5, 7, 8, 9]
    cause = first_cause(found)
    assert cause is not None
    assert (cause.line, cause.readings[0].name) == (4, "NO_ACCESS_PLATFORM")
    text = to_text(found, width=110)
    assert text.splitlines()[-1].startswith("First cause: line 4: [    0.900000] virtio_blk".replace("    ", " "))
    assert json.loads(to_json(found))["first_cause"]["line"] == 4


def test_a_log_without_a_cause_says_so() -> None:
    found = explain_log("Linux\nGuest crashed on cpu 0: disabled-wait\n")
    assert first_cause(found) is None
    assert to_text(found, width=110).endswith("No line names a cause.")


def test_each_meaning_of_a_log_is_printed_once() -> None:
    line = "swiotlb buffer is full (sz: 4096 bytes), total 512 (slots), used 510 (slots)"
    text = to_text(explain_log("\n".join([f"[ {at}.1] {line}" for at in range(5)])), width=110)
    assert text.count("SWIOTLB_FULL") == 1
    assert "(and 4 more like it)" in text


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["explain", *arguments])
    out, err = capsys.readouterr()
    return (ended.value.code if isinstance(ended.value.code, int) else 0), out, err


def test_a_file_is_explained_as_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guest.log"
    file.write_bytes(LOG.encode() + b"\xff\x00\x1b[31mred\x1b[0m\n")
    code, out, _ = run(capsys, str(file))
    assert code == 0
    assert "First cause: line 4" in out
    file.write_text("nothing of interest\n")
    code, out, err = run(capsys, str(file))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, str(tmp_path / "missing.log"))
    assert code == 1
    assert "missing.log: cannot read the log: No such file" in err


def test_a_code_is_a_code_even_if_a_file_has_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a02").write_text("nothing of interest\n")
    assert "INVALID_FOR_PV" in run(capsys, "a02")[1]


def test_a_long_log_is_read_in_bounded_time_and_memory() -> None:
    lines = [f"[{at}.0] " + "x" * 5000 for at in range(300)]
    lines.append("Secure unpack facility is not available")
    assert [each.line for each in explain_log("\n".join(lines))] == [301]


def test_the_guide_shows_a_log_as_it_is_really_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "explain.md").read_text()
    log, rest = guide.split("$ cat guest.log\n")[1].split("$ zseal explain guest.log\n")
    (tmp_path / "guest.log").write_text(log)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    assert run(capsys, "guest.log")[1] == rest.split("```")[0]
