"""What is inside the guest: parameters as the kernel reads them, kernels, images and machines."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.paths import VECTORS
from tests.unit.domain.samples import read
from zseal.domain.guest import GuestInputs, ParameterFile, read_guest_inputs
from zseal.domain.lint import LintFinding, LintSettings, lint_bytes
from zseal.domain.rules.interface import Severity
from zseal.errors import InputError
from zseal.files import read_limited
from zseal.linux.cmdline import split_command_line
from zseal.linux.guest_support import kernel_support
from zseal.linux.swiotlb import parse_swiotlb

IMAGES = VECTORS / "se-image"
SAFE = "rd.shell=0 swiotlb=262144"


def _lint(inputs: GuestInputs, domain: str = "ok-ls-minimal.xml") -> list[LintFinding]:
    report = lint_bytes(domain, read(domain), LintSettings(guest=inputs, local_files=False))
    return [finding for finding in report.findings if finding.rule.id >= "PV9" or finding.rule.id == "PV507"]


def _parameters(text: str, domain: str = "ok-ls-minimal.xml") -> dict[str, LintFinding]:
    findings = _lint(GuestInputs(parameters=ParameterFile("parm", text)), domain)
    return {finding.rule.id: finding for finding in findings}


@pytest.mark.parametrize(
    ("value", "mib"),
    [
        ("512", 1), ("8192", 16), ("65536", 128), ("100000", 256), ("131072", 256), ("262144", 512),
        ("300000", 1024), ("524288", 1024), ("1048576", 1024), ("0x40000", 512), ("1", 0.25), ("force", 64),
    ],
)  # fmt: skip
def test_the_pool_has_the_size_the_kernel_gives_it(value: str, mib: float) -> None:
    (parameter,) = split_command_line(f"swiotlb={value}")
    assert parse_swiotlb(parameter).effective_slots() * 2048 == mib * (1 << 20)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("262144,force", (262144, None, True, False, "")),
        ("262144,4,force", (262144, 4, True, False, "")),
        ("262144,4", (262144, 4, False, False, "")),
        ("force", (None, None, True, False, "")),
        ("noforce", (None, None, False, True, "")),
        ("512M", (512, None, False, False, "M")),
        ("512,4x", (512, 4, False, False, "x")),
        ("", (None, None, False, False, "")),
        ("lots", (None, None, False, False, "lots")),
    ],
)
def test_swiotlb_is_read_as_the_kernel_reads_it(value: str, expected: tuple[object, ...]) -> None:
    found = parse_swiotlb(split_command_line(f"swiotlb={value}")[0])
    assert (found.slots, found.areas, found.force, found.noforce, found.junk) == expected


def test_areas_enlarge_a_small_pool() -> None:
    found = parse_swiotlb(split_command_line("swiotlb=512,16")[0])
    assert found.effective_slots() == 16 * 128


@given(st.text(max_size=60))
def test_any_text_is_read_without_fail_and_offsets_are_right(text: str) -> None:
    for parameter in split_command_line(text):
        assert text[parameter.offset : parameter.offset + len(parameter.text)] == parameter.text
        parse_swiotlb(parameter).effective_slots()


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (SAFE, set()),
        ("rd.emergency=halt swiotlb=262144", set()),
        ("panic=0 swiotlb=262144", set()),
        ("rd.shell=0", {"PV901"}),
        ("rd.shell=0 swiotlb=force", {"PV901", "PV907"}),
        ("rd.shell=0 swiotlb=noforce", {"PV902"}),
        ("rd.shell=0 swiotlb=512M", {"PV903"}),
        ("rd.shell=0 swiotlb=8192", {"PV904", "PV914"}),
        ("rd.shell=0 swiotlb=2000000", {"PV905"}),
        ("rd.shell=0 swiotlb=100000", {"PV906"}),
        ("rd.shell=0 swiotlb=262144,force", {"PV907"}),
        (f"prot_virt=1 {SAFE}", {"PV908"}),
        (f"console=ttyS0 {SAFE}", {"PV909", "PV915"}),
        (f"console=ttysclp0 systemd.getty_auto=0 {SAFE}", set()),
        (f"console=hvc0 systemd.getty_auto=no {SAFE}", {"PV915"}),
        (f"init=/bin/sh {SAFE}", {"PV909"}),
        (f"init=/sbin/init {SAFE}", set()),
        (f"rd.break {SAFE}", {"PV909"}),
        ("rd.shell swiotlb=262144", {"PV909", "PV910"}),
        ("swiotlb=262144", {"PV910"}),
        ("swiotlb=512M rd.shell=0 swiotlb=262144", {"PV903"}),
    ],
)
def test_parameters_break_the_rules_they_should(text: str, rules: set[str]) -> None:
    assert set(_parameters(text)) == rules


def test_a_finding_in_the_parameters_has_its_place_there() -> None:
    finding = _parameters("root=/dev/vda1 ro\nrd.shell=0 swiotlb=512M\n")["PV903"]
    assert (finding.file, finding.position.line, finding.position.column) == ("parm", 2, 12)
    assert finding.message == "swiotlb=512M is read as 512 slots = 1 MiB; write 262144"
    assert finding.element == ""


def test_the_pool_is_held_against_memory_and_devices() -> None:
    small = _parameters("rd.shell=0 swiotlb=262144", "bad-PV306-small-memory.xml")
    assert small["PV905"].message == "the pool of 512 MiB is more than half of the guest's 512 MiB"
    many = _parameters("rd.shell=0 swiotlb=32768", "ok-iommu-many-devices.xml")
    assert "3 disk queues, 1 network queues and 5 other devices" in many["PV914"].message
    assert "use swiotlb=65536" in many["PV914"].message


def _all(text: str, domain: str) -> dict[str, LintFinding]:
    inputs = GuestInputs(parameters=ParameterFile("parm", text))
    report = lint_bytes(domain, read(domain), LintSettings(guest=inputs, local_files=False))
    return {finding.rule.id: finding for finding in report.findings}


def test_the_memory_that_counts_is_the_one_that_mem_leaves() -> None:
    found = _all("rd.shell=0 swiotlb=262144 mem=512M", "ok-ls-minimal.xml")
    assert found["PV905"].message == "the pool of 512 MiB is more than half of the guest's 512 MiB (mem=512M)"
    assert found["PV306"].message.startswith("512 MiB (mem=512M) is little memory")
    assert (found["PV306"].file, found["PV306"].position.column) == ("parm", 27)
    assert "PV905" not in _all("rd.shell=0 swiotlb=262144 mem=512M mem=64G", "ok-ls-minimal.xml")
    assert "PV306" not in _all("rd.shell=0 swiotlb=262144 mem=nonsense", "ok-ls-minimal.xml")


def test_an_image_must_fit_into_what_mem_leaves(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(gzip.decompress(read_limited(IMAGES / "se-kat3.img.gz", 1 << 24, "image")))
    (tmp_path / "parm").write_text("rd.shell=0 mem=64K\n")
    inputs = read_guest_inputs(image=image, parmfile=tmp_path / "parm")
    assert inputs is not None
    (found,) = (each for each in _lint(inputs) if each.rule.id == "PV911")
    assert found.severity is Severity.ERROR
    assert found.message.endswith("but the guest has 64 KiB (mem=64K)")


def _kernel_file(path: Path, release: str, payload: bytes = b"") -> Path:
    head = bytearray(0x10010)
    head[0x10008:0x1000E] = b"S390EP"
    path.write_bytes(bytes(head) + f"{release} (someone@somewhere) #1 SMP\0".encode() + payload)
    return path


@pytest.mark.parametrize(
    ("release", "supported"),
    [
        ("6.12.107+deb13-s390x", True),
        ("6.10.0", True),
        ("7.2.13", True),
        ("6.9.9", None),
        ("5.4.0-1", None),
        ("4.18.0", False),
    ],
)
def test_a_kernel_is_judged_by_its_release(tmp_path: Path, release: str, supported: bool | None) -> None:
    verdict = kernel_support(_kernel_file(tmp_path / "kernel", release))
    assert (verdict.release, verdict.supported) == (release, supported)


@pytest.mark.parametrize(
    ("line", "supported"),
    [
        ("CONFIG_PROTECTED_VIRTUALIZATION_GUEST=y", True),
        ("# CONFIG_PROTECTED_VIRTUALIZATION_GUEST is not set", False),
        ("CONFIG_KVM=y", None),
    ],
)
def test_between_the_releases_the_config_decides(tmp_path: Path, line: str, supported: bool | None) -> None:
    kernel = _kernel_file(tmp_path / "vmlinuz-6.1.0", "6.1.0")
    (tmp_path / "config-6.1.0").write_text(f"# config\n{line}\n")
    assert kernel_support(kernel).supported is supported
    config = gzip.compress(f"{line}\n".encode())
    for packed in (
        b"IKCFG_ST" + config + b"IKCFG_ED",
        lzma.compress(bytes(2 << 20) + b"IKCFG_ST" + config + b"IKCFG_ED"),
    ):
        inside = _kernel_file(tmp_path / "other", "6.1.0", packed)
        assert kernel_support(inside).supported is supported


def test_kernels_that_are_none_or_hostile_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"MZ" + bytes(100000))
    with pytest.raises(InputError, match="not a Linux kernel for s390x"):
        kernel_support(other)
    monkeypatch.setattr("zseal.linux.guest_support.MAX_PAYLOAD_SIZE", 4 << 20)
    bomb = _kernel_file(tmp_path / "bomb", "6.1.0", lzma.compress(bytes(8 << 20)))
    assert kernel_support(bomb).supported is None


def test_a_kernel_without_support_is_an_error_and_an_unknown_one_a_warning(tmp_path: Path) -> None:
    kernel = _kernel_file(tmp_path / "kernel", "4.18.0")
    (finding,) = _lint(read_guest_inputs(kernel=kernel) or GuestInputs())
    assert (finding.rule.id, finding.severity) == ("PV913", Severity.ERROR)
    _kernel_file(kernel, "6.1.0")
    (finding,) = _lint(read_guest_inputs(kernel=kernel) or GuestInputs())
    assert (finding.rule.id, finding.severity) == ("PV913", Severity.WARNING)
    assert "--kernel-config" in finding.message
    _kernel_file(kernel, "6.12.1")
    assert _lint(read_guest_inputs(kernel=kernel) or GuestInputs()) == []


def _image(tmp_path: Path) -> Path:
    path = tmp_path / "se.img"
    path.write_bytes(gzip.decompress(read_limited(IMAGES / "se-kat3.img.gz", 1 << 24, "image")))
    return path


def test_an_image_is_for_the_machines_it_has_a_slot_for(tmp_path: Path) -> None:
    image = _image(tmp_path)
    right, wrong = IMAGES / "se-hostkey.crt", IMAGES / "se-hostkey2.crt"
    assert _lint(read_guest_inputs(image=image, host_keys=[right]) or GuestInputs()) == []
    (finding,) = _lint(read_guest_inputs(image=image, host_keys=[right, wrong]) or GuestInputs())
    assert finding.rule.id == "PV912"
    assert "se-hostkey2.crt" in finding.message


def test_an_image_has_to_fit_the_memory(tmp_path: Path) -> None:
    image = _image(tmp_path)
    inputs = read_guest_inputs(image=image) or GuestInputs()
    assert _lint(inputs) == []
    raw = read("ok-ls-minimal.xml").replace(b"unit='GiB'>4<", b"unit='KiB'>64<")
    findings = lint_bytes("x", raw, LintSettings(guest=inputs)).findings
    assert [f.severity for f in findings if f.rule.id == "PV911"] == [Severity.ERROR]
    raw = read("ok-ls-minimal.xml").replace(b"unit='GiB'>4<", b"unit='MiB'>100<")
    findings = lint_bytes("x", raw, LintSettings(guest=inputs)).findings
    assert [f.severity for f in findings if f.rule.id == "PV911"] == [Severity.WARNING]


def test_a_plain_kernel_is_no_secure_execution_image(tmp_path: Path) -> None:
    plain = _kernel_file(tmp_path / "vmlinuz", "6.12.1")
    (finding,) = _lint(read_guest_inputs(image=plain) or GuestInputs())
    assert finding.rule.id == "PV507"
    for path, found in ((plain, True), (_image(tmp_path), False), (tmp_path / "none", False), (tmp_path, False)):
        raw = read("ok-ls-direct-kernel.xml").replace(b"/var/lib/libvirt/images/se.img", str(path).encode())
        assert ("PV507" in [f.rule.id for f in lint_bytes("x", raw).findings]) is found


def test_missing_inputs_are_told_by_name(tmp_path: Path) -> None:
    for name in ("image", "kernel", "parmfile"):
        with pytest.raises(InputError, match="gone"):
            read_guest_inputs(**{name: tmp_path / "gone"})  # type: ignore[arg-type]
