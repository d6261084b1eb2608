"""Host files are read by their real shapes, and hostile ones do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import VECTORS
from zseal.errors import FormatError, InputError
from zseal.libvirt.capabilities import parse_cached_emulator, parse_domain_capabilities, parse_xml
from zseal.readiness import CapturedHost, check_host, gather
from zseal.readiness.commands import UNAME
from zseal.readiness.cpuinfo import parse_cpuinfo, parse_sysinfo
from zseal.readiness.facts import Version, find_version
from zseal.readiness.source import NOT_FOUND, TIMED_OUT, run_bounded

HOSTS = VECTORS / "hosts"


def test_facilities_are_whole_numbers() -> None:
    assert parse_cpuinfo("facilities      : 0 1 1581 2158\n").facilities == frozenset((0, 1, 1581, 2158))
    assert parse_cpuinfo("facilities: 158\n").facilities == frozenset((158,))


def test_a_file_without_a_facilities_line_is_not_a_machine_without_facilities() -> None:
    assert parse_cpuinfo("flags\t\t: fpu vme\n").facilities is None


def test_the_machine_type_is_found_in_both_places() -> None:
    assert parse_cpuinfo("processor 0: version = FF,  identification = 0A1B2C,  machine = 3931\n").machine == "3931"
    assert parse_cpuinfo("machine         : 9175\n").machine == "9175"


def test_a_hypervisor_is_known_by_its_block_in_sysinfo() -> None:
    assert parse_sysinfo("Type: 8561\nLPAR Name: A\n").control_program is None
    assert parse_sysinfo("VM00 Name: B\nVM00 Control Program: z/VM    7.3.0\n").control_program == "z/VM 7.3.0"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1.4)", Version(8, 2, 2)),
        ("QEMU emulator version 2.11.1(Debian 1:2.11+dfsg-1ubuntu7.42)", Version(2, 11, 1)),
        ("10.0.0\n", Version(10, 0, 0)),
        ("6.8.0-51-generic #52-Ubuntu", Version(6, 8, 0)),
        ("5.14.0-427.42.1.el9_4.s390x #1", Version(5, 14, 0)),
        ("no number here", None),
    ],
)
def test_versions_are_found_in_what_programs_print(text: str, version: Version | None) -> None:
    assert find_version(text) == version


def test_unpack_as_a_blocker_is_no_support() -> None:
    facts = gather(CapturedHost(HOSTS / "z16-unpack-only-a-blocker"))
    assert facts.domain_capabilities is not None
    assert not facts.domain_capabilities.unpack


@pytest.mark.parametrize(
    "document",
    [
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><domainCapabilities>&a;</domainCapabilities>",
        b"<domainCapabilities>",
        b"",
        b"<domain/>",
        b"<a>" * 5000 + b"</a>" * 5000,
        b"\xff\xfe\x00",
    ],
)
def test_hostile_xml_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError):
        parse_domain_capabilities(document)
    with pytest.raises(FormatError):
        parse_cached_emulator("x.xml", document)


def test_oversized_xml_is_refused_unread() -> None:
    with pytest.raises(FormatError, match="too large"):
        parse_xml(b" " * ((4 << 20) + 1), "anything")


def test_a_capture_does_not_lead_out_of_its_directory(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("prot_virt=1")
    root = tmp_path / "capture"
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "cmdline").symlink_to(secret)
    source = CapturedHost(root)
    assert source.text("/proc/cmdline") is None
    assert source.text("../secret") is None


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a captured host"):
        CapturedHost(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        CapturedHost(tmp_path / "missing")


def test_a_command_nobody_asked_is_not_a_command_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    assert CapturedHost(tmp_path).run(UNAME) is None
    (tmp_path / "commands" / "uname.status").write_text("127\n")
    answer = CapturedHost(tmp_path).run(UNAME)
    assert answer is not None
    assert not answer.installed


def test_live_commands_end_in_bounded_time() -> None:
    assert run_bounded(("sleep", "60"), 0.1).status == TIMED_OUT
    assert run_bounded(("no-such-program-anywhere",), 1).status == NOT_FOUND


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "proc/cpuinfo",
                "proc/sysinfo",
                "proc/cmdline",
                "sys/firmware/uv/prot_virt_host",
                "sys/firmware/uv/query/supp_att_req_hdr_ver",
                "sys/firmware/uv/keys/all",
                "commands/uname.out",
                "commands/uname.status",
                "commands/kernel-log.out",
                "commands/domcapabilities.out",
                "commands/virt-host-validate.out",
                "commands/qemu-version.out",
                "var/cache/libvirt/qemu/capabilities/a.xml",
                "dev/kvm",
            ]
        ),
        st.binary(max_size=60) | st.sampled_from([b"Linux 1 2 s390x", b"facilities : 158", b"<qemuCaps/>", b"1"]),
        min_size=1,
    )
)
def test_no_captured_tree_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("host")
    (root / "proc").mkdir()
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert check_host(CapturedHost(root)).results


def test_zseals_own_commands_are_not_taken_for_ibms(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "uname.out").write_text("Linux 6.1.0 #1 SMP x86_64\n")
    (commands / "pvimg-version.out").write_text("pvimg version 2.43.0 (zseal 0.1.0)\n")
    (commands / "genprotimg-version.out").write_text("genprotimg version 2.31.0\n")
    found = check_host(CapturedHost(tmp_path)).find("image-builder").found
    assert found == "pvimg of zseal, genprotimg 2.31.0"


def test_a_capture_that_shows_nothing_but_a_ready_ultravisor_is_judged_by_that(tmp_path: Path) -> None:
    uv = tmp_path / "sys" / "firmware" / "uv"
    uv.mkdir(parents=True)
    (uv / "prot_virt_host").write_text("1\n")
    report = check_host(CapturedHost(tmp_path))
    assert report.find("prot-virt-host").status == "pass"
    assert report.ready
    (uv / "prot_virt_host").write_text("0\n")
    assert not check_host(CapturedHost(tmp_path)).ready


def test_the_machine_type_in_sysinfo_is_enough_to_know_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "sysinfo").write_text("Manufacturer:         IBM\nType:                 3931\n")
    facts = gather(CapturedHost(tmp_path))
    assert facts.is_s390x
    assert check_host(CapturedHost(tmp_path)).find("machine-type").status == "pass"
