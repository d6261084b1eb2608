"""Every artefact is recognised, hostile and damaged ones are described, and no secret is ever shown."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zseal.inspection as inspect_package
from tests.paths import DOCS, VECTORS
from zseal.cli.main import main
from zseal.errors import InputError
from zseal.formats.attestation_file import RequestFile, ResponseFile
from zseal.formats.attestation_request import AttestationPart
from zseal.guest.paging.page_file import RECORD_SIZE, PageFileHeader
from zseal.hostkeys.machine import Machine
from zseal.image.bootloaders import Bootloaders
from zseal.inspection import UNKNOWN, Description, inspect, to_json, to_text
from zseal.inspection.recognisers.programs import ElfHeader, SectionHeader
from zseal.linux.kernel_file import MAGIC, MAGIC_OFFSET, MAX_COMMAND_LINE_OFFSET

IMAGES = VECTORS / "se-image"
KERNEL_TEXT = b"6.1.0-13-s390x (kernel@example.org) #1 SMP\0"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Machine.create(tmp_path_factory.mktemp("machines") / "demo").directory


def put(directory: Path, data: bytes, name: str = "file") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def look(directory: Path, data: bytes) -> Description:
    return inspect(put(directory, data))


def kernel() -> bytes:
    data = bytearray(0x11000)
    data[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] = MAGIC
    data[MAX_COMMAND_LINE_OFFSET : MAX_COMMAND_LINE_OFFSET + 8] = (4096).to_bytes(8, "big")
    data[0x10800 : 0x10800 + len(KERNEL_TEXT)] = KERNEL_TEXT
    return bytes(data)


def dump(*names: str) -> bytes:
    """An s390x core file with empty sections of these names."""
    text = b"\0" + b"".join(name.encode() + b"\0" for name in (*names, ".shstrtab"))
    count = len(names) + 2
    table = bytes(64)
    position = 1
    for name in names:
        table += SectionHeader(name=position, type=1, offset=64, size=0).pack()
        position += len(name) + 1
    table += SectionHeader(name=position, type=3, offset=64 + 64 * count, size=len(text)).pack()
    header = ElfHeader(
        identification=b"\x7fELF\x02\x02\x01".ljust(16, b"\0"),
        type=4,
        machine=22,
        entry=0,
        section_offset=64,
        program_count=0,
        section_size=64,
        section_count=count,
        names_index=count - 1,
    )
    return header.pack() + table + text


def attestation_request(slots: int = 1, flags: int = 0x6000000000000000) -> bytes:
    encrypted = 80
    length = AttestationPart.SIZE + 80 * slots + encrypted + 16
    head = (
        bytes(8)
        + struct.pack(">II", 0x100, length)
        + bytes(23)
        + bytes([slots])
        + bytes(4)
        + struct.pack(">I", encrypted)
    )
    return (head + struct.pack(">QI", flags, 1)).ljust(length, b"\x11")


def exchange(arcb: bytes, measurement: bytes = b"") -> bytes:
    if measurement:
        return ResponseFile(arcb=arcb, measurement=measurement, cuid=b"\x22" * 16).pack()
    return RequestFile(arcb=arcb, measurement_size=64, additional_size=0).pack()


@pytest.mark.parametrize("name", ["se-kat1", "se-kat2", "se-kat3"])
def test_an_image_tells_its_components_and_for_whom_it_is_built(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, gzip.decompress((IMAGES / f"{name}.img.gz").read_bytes()))
    assert (found.kind, found.problems) == ("se-image", ())
    assert found.fields["dialect"] == "pvimg"
    components = found.fields["components"]
    assert isinstance(components, tuple)
    assert [line.split()[0] for line in components] == ["kernel", "ramdisk", "cmdline", "stage3b"]
    assert any(step.startswith("zseal image verify ") for step in found.next_steps)


def test_a_cut_image_says_how_much_is_missing(tmp_path: Path) -> None:
    data = gzip.decompress((IMAGES / "se-kat1.img.gz").read_bytes())
    found = look(tmp_path, data[: 0x14000 + 300])
    assert found.kind == "se-image"
    assert found.problems
    without_parameter_block = look(tmp_path, data[:0x18000])
    assert without_parameter_block.problems == ("no IPL parameter block was found, so the components are not known",)


def test_a_bare_header_and_a_parameter_block_are_known() -> None:
    header = inspect(IMAGES / "se-hdr-genprotimg-2.35.bin")
    assert (header.kind, header.problems) == ("se-header", ())
    assert "components" not in header.fields
    assert inspect(IMAGES / "se-ipib-genprotimg-2.35.bin").kind == "ipib"


def test_a_damaged_header_is_still_a_header(tmp_path: Path) -> None:
    data = bytearray((IMAGES / "se-hdr-genprotimg-2.35.bin").read_bytes())
    data[0x0B] ^= 0xFF
    found = look(tmp_path, bytes(data))
    assert found.kind == "se-header"
    assert "version" in found.problems[0]


def test_a_software_machine_and_all_its_files_are_known(machine: Path) -> None:
    assert inspect(machine).kind == "machine"
    kinds = {
        "host-key.crt": "host-key-document",
        "host-key.pem": "private-key",
        "signing-key.crt": "signing-key-certificate",
        "root-ca.crt": "ca-certificate",
        "intermediate-ca.crt": "ca-certificate",
        "signing-key.crl": "crl",
        "machine.json": "machine-description",
    }
    for name, kind in kinds.items():
        assert inspect(machine / name).kind == kind
    document = inspect(machine / "host-key.crt")
    assert "software machine" in document.title
    assert document.fields["host_key_hash"] == inspect(machine).fields["host_key_hash"]
    assert "host_key_hash" not in inspect(machine / "root-ca.crt").fields


def test_a_key_is_never_shown_and_an_open_one_is_a_problem(machine: Path, tmp_path: Path) -> None:
    text = (machine / "host-key.pem").read_text()
    path = put(tmp_path, text.encode())
    path.chmod(0o644)
    found = inspect(path)
    assert found.kind == "private-key"
    assert found.problems == ("others may read it (mode 0644): chmod 600",)
    shown = to_text(path, found) + to_json([(path, found)])
    assert all(line not in shown for line in text.splitlines()[1:-1])
    path.chmod(0o600)
    assert inspect(path).problems == ()


def test_a_key_beside_a_certificate_is_pointed_out(machine: Path, tmp_path: Path) -> None:
    data = (machine / "host-key.crt").read_bytes() + (machine / "host-key.pem").read_bytes()
    found = look(tmp_path, data)
    assert found.kind == "host-key-document"
    assert "it also contains a private key" in found.problems


@pytest.mark.parametrize("label", ["ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY"])
def test_other_private_keys_are_known_by_their_label(tmp_path: Path, label: str) -> None:
    found = look(tmp_path, f"-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n".encode())
    assert found.kind == "private-key"
    assert found.fields["encrypted"] is (label == "ENCRYPTED PRIVATE KEY")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bytes(range(7, 39)), "raw-key"),
        (bytes(range(100, 164)), "raw-key"),
        (b"-----BEGIN PLAINTEXT SECRET-----\nc2VjcmV0\n-----END PLAINTEXT SECRET-----\n", "retrieved-secret"),
        (b"-----BEGIN IBM PROTECTED KEY-----\nkind: X\n\nc2Vj\n-----END IBM PROTECTED KEY-----\n", "retrieved-secret"),
    ],
)
def test_secrets_are_named_and_not_shown(tmp_path: Path, data: bytes, kind: str) -> None:
    found = look(tmp_path, data)
    assert found.kind == kind
    shown = to_text(tmp_path, found) + to_json([(tmp_path, found)])
    assert "c2Vj" not in shown
    assert data[:8].hex() not in shown


def test_a_kernel_tells_its_release_and_command_line(tmp_path: Path) -> None:
    found = look(tmp_path, kernel())
    assert found.kind == "s390x-kernel"
    assert found.fields["release"] == "6.1.0-13-s390x"
    assert found.fields["max_command_line"] == 4095


def test_elf_files_and_dumps(tmp_path: Path) -> None:
    assert inspect(Path(sys.executable).resolve()).kind == "elf"
    found = look(tmp_path, dump("pv_mem_meta", "pv_compl"))
    assert (found.kind, found.problems) == ("guest-dump", ())
    assert look(tmp_path, dump("pv_compl")).problems
    assert look(tmp_path, dump()).kind == "core"


@pytest.mark.parametrize(
    ("data", "kind", "compression"),
    [
        (b"070701" + b"0" * 200, "ramdisk", None),
        (gzip.compress(b"070701" + b"0" * 200), "ramdisk", "gzip"),
        (lzma.compress(b"070701" + b"0" * 200), "ramdisk", "xz"),
        (b"(\xb5/\xfd" + b"0" * 200, "ramdisk", "zstd"),
        (gzip.compress(b"hello world"), "compressed", None),
    ],
    ids=["plain", "gzip", "xz", "zstd", "gzip-of-something-else"],
)
def test_ramdisks_in_every_compression(tmp_path: Path, data: bytes, kind: str, compression: str | None) -> None:
    found = look(tmp_path, data)
    assert found.kind == kind
    assert found.fields.get("compression") == compression


def test_a_small_archive_that_expands_without_end_does_no_harm(tmp_path: Path) -> None:
    assert look(tmp_path, gzip.compress(bytes(64 << 20))).kind == "compressed"


def test_domains_and_capabilities() -> None:
    domain = inspect(VECTORS / "domains" / "ok-ls-minimal.xml")
    assert (domain.kind, domain.fields["protection_permitted_by"]) == ("domain-xml", "launchSecurity")
    assert str(inspect(VECTORS / "domains" / "ok-iommu-minimal.xml").fields["protection_permitted_by"]).startswith(
        "iommu"
    )
    broken = inspect(VECTORS / "domains" / "bad-PV001-unclosed-driver.xml")
    assert (broken.kind, len(broken.problems)) == ("domain-xml", 1)
    capabilities = inspect(VECTORS / "domains" / "caps-unpack-only-in-blockers.xml")
    assert (capabilities.kind, capabilities.fields["unpack"]) == ("domain-capabilities", False)
    host = VECTORS / "hosts" / "z16-ready"
    assert inspect(host).kind == "captured-host"
    cache = host / "var/cache/libvirt/qemu/capabilities/5f2d8c.xml"
    assert (inspect(cache).kind, inspect(cache).fields["secure_guest_host"]) == ("capabilities-cache", True)


def test_capabilities_of_a_host(tmp_path: Path) -> None:
    data = (
        b"<capabilities><host><cpu><arch>s390x</arch></cpu></host>"
        b"<guest><arch name='s390x'><domain type='kvm'/></arch></guest></capabilities>"
    )
    found = look(tmp_path, data)
    assert (found.kind, found.fields["kvm_for_s390x"]) == ("capabilities", True)


def test_xml_with_entities_is_not_expanded(tmp_path: Path) -> None:
    bomb = b"<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain><name>&a;</name></domain>"
    assert look(tmp_path, bomb).kind in ("xml", UNKNOWN, "domain-xml")
    assert "aaaa" not in to_text(tmp_path, look(tmp_path, bomb))


@pytest.mark.timeout(10)
def test_endless_comments_cost_no_time(tmp_path: Path) -> None:
    assert look(tmp_path, b"<!---->" * 10_000 + b"?").kind == UNKNOWN
    assert look(tmp_path, b"<!---->" * 100 + b"<domain/>").kind == "domain-xml"
    assert look(tmp_path, b"<?xml version='1.0'?>\n<!-- a\n b -->\n<domain/>").kind == "domain-xml"


def test_an_attestation_request_by_itself_and_in_a_file(tmp_path: Path) -> None:
    arcb = attestation_request(slots=2)
    found = look(tmp_path, arcb)
    assert found.kind == "attestation-request"
    assert found.fields["attestation_flags"] == ("nonce", "image host-key hash")
    assert found.fields["key_slots"] == 2
    request = look(tmp_path, exchange(arcb))
    assert (request.kind, request.problems, request.fields["key_slots"]) == ("attestation-request-file", (), 2)
    response = look(tmp_path, exchange(arcb, b"\x33" * 64))
    assert (response.kind, response.fields["configuration_uid"]) == ("attestation-response-file", "22" * 16)
    cut = look(tmp_path, exchange(arcb, b"\x33" * 64)[:-20])
    assert cut.problems


def test_every_published_add_secret_request_is_known(tmp_path: Path) -> None:
    cases = json.loads((VECTORS / "requests" / "asrcb.json").read_text())["cases"]
    types = set()
    for case in cases:
        found = look(tmp_path, bytes.fromhex(case["request"]))
        assert (found.kind, found.problems) == ("add-secret-request", ()), case["name"]
        types.add(found.fields["secret_type"])
    assert "meta" in types
    assert look(tmp_path, bytes.fromhex(cases[0]["request"])[:-1]).problems


def test_key_hashes_and_kernel_parameters(machine: Path, tmp_path: Path) -> None:
    found = look(tmp_path, Machine.load(machine).key_hashes_file().encode())
    assert found.kind == "key-hashes"
    assert found.fields["host_key"] == inspect(machine).fields["host_key_hash"]
    parameters = look(tmp_path, b"root=/dev/vda1 swiotlb=262144 quiet")
    assert (parameters.kind, parameters.fields["swiotlb"], parameters.problems) == ("kernel-parameters", "262144", ())
    assert look(tmp_path, b"root=/dev/vda1 swiotlb=262144 quiet\n").problems == ()  # the kernel ignores a newline there
    assert look(tmp_path, b"root=/dev/vda1 prot_virt=1\n").problems


def test_what_commands_print_as_json_is_recognised(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = put(tmp_path, gzip.decompress((IMAGES / "se-kat1.img.gz").read_bytes()), "image")
    ready = next((VECTORS / "hosts").glob("z1*-ready"))
    commands: dict[str, list[str | Path]] = {
        "image-information": ["image", "info", image],
        "image-comparison": ["image", "diff", image, image],
        "host-key-report": ["hostkey", "verify", "-k", machine / "host-key.crt", "--bundle", machine, "--offline"],
        "host-report": ["host", "check", "--root", ready],
        "lint-report": ["domain", "lint", VECTORS / "domains" / "ok-ls-minimal.xml"],
        "explanations": ["explain", "0xa02"],
        "descriptions": ["inspect", image],
    }
    for kind, command in commands.items():
        with pytest.raises(SystemExit):
            main([*map(str, command), "--format", "json"])
        assert look(tmp_path, capsys.readouterr().out.encode()).kind == kind
    report = {"format": 1, "image": "a.img", "machine": "m", "result": {"outcome": "refused"}, "ultravisor": {}}
    found = look(tmp_path, json.dumps(report).encode())
    assert (found.kind, found.fields["outcome"], found.fields["exit_code"]) == ("run-report", "refused", None)


def test_bootloaders_and_page_files(tmp_path: Path) -> None:
    ours = Bootloaders.default()
    found = look(tmp_path, ours.stage3a)
    assert (found.kind, found.fields["arguments_filled_in"]) == ("bootloader", False)
    assert look(tmp_path, ours.stage3b[:-1] + b"\1").fields["arguments_filled_in"] is True
    assert look(tmp_path, b"\0" + ours.stage3b[1:]).kind == UNKNOWN
    header = PageFileHeader.new(2).pack()
    assert look(tmp_path, header + bytes(2 * RECORD_SIZE)).problems == ()
    cut = look(tmp_path, header + bytes(RECORD_SIZE))
    assert (cut.kind, cut.fields["pages"], cut.problems) == (
        "page-file", 2, (f"it should have {RECORD_SIZE} bytes more",),
    )  # fmt: skip
    assert "damaged" in look(tmp_path, b"zsealPGS").title


def test_what_nobody_knows_is_unknown_and_not_quoted(tmp_path: Path) -> None:
    found = look(tmp_path, b"correct horse battery staple, more or less")
    assert found.kind == UNKNOWN
    assert "horse" not in to_text(tmp_path, found)
    assert look(tmp_path, b"").title == "empty file"
    (tmp_path / "directory").mkdir()
    assert inspect(tmp_path / "directory").kind == UNKNOWN


def test_what_is_no_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a regular file"):
        inspect(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot read"):
        inspect(tmp_path / "missing")


def test_a_sparse_giant_is_looked_at_in_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    assert inspect(path).kind == UNKNOWN


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_the_command_line(capsys: pytest.CaptureFixture[str], machine: Path, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "--format", "json", machine, machine / "host-key.crt")
    assert code == 0
    content = json.loads(out)
    assert content["version"] == 1
    assert [set(file) for file in content["files"]] == [{"path", "kind", "title", "fields", "problems", "next"}] * 2
    code, out, err = run(capsys, tmp_path / "missing", machine)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "software machine" in out
    assert run(capsys, put(tmp_path, b"nothing known"))[0] == 1
    assert run(capsys)[0] == 2


MAGICS = [
    b"",
    bytes(8) + b"\0\0\1\0",
    b"IBMSecEx\0\0\1\0",
    b"\x7fELF\x02\x02\x01" + bytes(9) + b"\0\4\0\x16",
    b"070701",
    b"\x1f\x8b\x08",
    b"\xfd7zXZ\0",
    b"BZh9",
    b"]\0\0",
    b"asrcbM\0\0\0\0\1\0",
    b"pvattest\0\0\1\0",
    b"<domain>",
    b"<?xml ?><domainCapabilities>",
    b"<qemuCaps>",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----BEGIN X509 CRL-----\n",
    b"-----BEGIN PRIVATE KEY-----\n",
    b"\x30\x82",
    b'{"a":',
    b"QFI\xfb",
    b"root=",
    bytes(4) + bytes(8) + b"\5",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(MAGICS), st.binary(max_size=600))
def test_any_bytes_are_survived(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = put(tmp_path, start + rest)
    description = inspect(path)
    assert to_text(path, description)
    assert json.loads(to_json([(path, description)]))


SEEDS = [
    gzip.decompress((IMAGES / "se-kat1.img.gz").read_bytes()),
    (IMAGES / "se-ipib-genprotimg-2.35.bin").read_bytes(),
    dump("pv_mem_meta", "pv_compl"),
    exchange(attestation_request()),
    attestation_request(),
    kernel(),
    (IMAGES / "se-hostkey.crt").read_bytes(),
    (VECTORS / "domains" / "caps-ready.xml").read_bytes(),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1 << 17), st.binary(max_size=9)), max_size=6),
    st.integers(0, 1 << 17),
)
def test_damaged_artefacts_are_survived(
    tmp_path: Path, seed: bytes, damage: list[tuple[int, bytes]], cut: int
) -> None:  # fmt: skip
    data = bytearray(seed)
    for offset, patch in damage:
        offset %= len(data)
        data[offset : offset + len(patch)] = patch
    path = put(tmp_path, bytes(data[: max(1, cut % (2 * len(seed)))]))
    description = inspect(path)
    assert to_text(path, description)
    assert json.loads(to_json([(path, description)]))


def test_the_guide_lists_every_kind_and_shows_what_is_really_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (DOCS / "explain.md").read_text()
    monkeypatch.chdir(tmp_path)
    put(tmp_path, gzip.decompress((IMAGES / "se-kat1.img.gz").read_bytes()), "se-kat1.img")
    shown = guide.split("$ zseal inspect se-kat1.img\n")[1].split("\n```")[0]
    assert shown == to_text(Path("se-kat1.img"), inspect(Path("se-kat1.img")))
    source = "".join(path.read_text() for path in (Path(inspect_package.__file__).parent / "recognisers").glob("*.py"))
    kinds = set(re.findall(r'(?:Description|_JsonKind)\(\s*"([a-z0-9-]+)"', source))
    assert len(kinds) > 15
    assert all(f"`{kind}`" in guide for kind in kinds)
