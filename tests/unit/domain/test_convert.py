"""Both directions of the conversion give the published pair, keep all other text, and find their own way back."""

from __future__ import annotations

import pytest

from tests.unit.domain.samples import GOOD, Sample, read
from zseal.domain.convert import convert_document
from zseal.domain.document import Document
from zseal.domain.lint import LintSettings, lint_document
from zseal.domain.model import Domain, Style
from zseal.domain.rules.interface import Severity
from zseal.domain.versions import parse_targets
from zseal.errors import InputError

NOSHAREPAGES = b"  <memoryBacking>\n    <nosharepages/>\n  </memoryBacking>\n"
STYLES = [Style.LAUNCH_SECURITY, Style.IOMMU]


def _convert(raw: bytes, style: Style) -> bytes:
    return convert_document(Document("x", raw), style).document.data


def _serious(raw: bytes) -> list[str]:
    findings = lint_document(Document("x", raw), LintSettings(local_files=False)).findings
    return [f"{f.rule.id} {f.message}" for f in findings if f.severity is not Severity.ADVICE]


def test_the_pair_converts_both_ways() -> None:
    launch_security, iommu = read("conv-pair-a-ls.xml"), read("conv-pair-b-iommu.xml")
    assert _convert(iommu, Style.LAUNCH_SECURITY) == launch_security
    # page merging is off by itself with launchSecurity; the iommu style has to say it
    assert _convert(launch_security, Style.IOMMU).replace(NOSHAREPAGES, b"") == iommu


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)
def test_a_good_domain_stays_good_in_the_other_style(sample: Sample, style: Style) -> None:
    before, converted = set(_serious(sample.raw)), _convert(sample.raw, style)
    assert Domain(Document("x", converted)).style is style
    assert set(_serious(converted)) <= before
    assert _convert(converted, style) == converted, "converting twice changes nothing"


@pytest.mark.parametrize("sample", [s for s in GOOD if s.style == "iommu"], ids=lambda sample: sample.name)
def test_iommu_to_launch_security_and_back_is_the_same_guest(sample: Sample) -> None:
    back = _convert(_convert(sample.raw, Style.LAUNCH_SECURITY), Style.IOMMU)
    devices = [d.kind for d in Domain(Document("x", sample.raw)).virtio]
    assert [d.kind for d in Domain(Document("x", back)).virtio] == devices
    assert all(device.covered for device in Domain(Document("x", back)).virtio)


def test_implicit_controllers_are_written_out() -> None:
    raw = read("ok-ls-minimal.xml").replace(b"dev='vda' bus='virtio'", b"dev='sdq' bus='scsi'")
    raw = raw.replace(b"<console", b"<channel type='unix'><target type='virtio' name='a'/></channel>\n    <console")
    text = _convert(raw, Style.IOMMU).decode()
    assert "<controller type='scsi' index='1' model='virtio-scsi'>" in text, "the 17th disk hangs on the second one"
    assert "<controller type='virtio-serial' index='0'>" in text
    assert "<driver name='qemu' type='qcow2' cache='none' io='native'/>" in text, "a SCSI disk itself needs nothing"


def test_comments_order_and_unknown_elements_survive() -> None:
    raw = (
        b"<domain type='kvm'>\n\t<!-- one --><name>a</name>\n\t<vendor:x xmlns:vendor='urn:v'><y/></vendor:x>\n"
        b"\t<memory>4194304</memory>\n\t<os><type arch=\"s390x\">hvm</type></os>\n\t<cpu mode='host-model'/>\n"
        b"\t<devices>\n\t\t<disk type='file' ><!-- two -->\n\t\t\t<target dev='vda'/>\n\t\t</disk>\n"
        b"\t\t<memballoon model='none'/>\n\t</devices>\n\t<launchSecurity type='s390-pv'/>\n</domain>\n"
    )
    text = _convert(raw, Style.IOMMU).decode()
    assert "\t\t<disk type='file' >\n\t\t\t<driver iommu='on'/><!-- two -->\n\t\t\t<target dev='vda'/>" in text
    assert "<vendor:x xmlns:vendor='urn:v'><y/></vendor:x>" in text
    assert (
        _convert(_convert(raw, Style.IOMMU), Style.LAUNCH_SECURITY)
        .replace(b"\t<memoryBacking>\n\t\t<nosharepages/>\n\t</memoryBacking>\n", b"")
        .count(b"<!--")
        == 2
    )


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (b"<hostdev mode='subsystem' type='scsi_host'/>", "scsi_host device cannot be covered"),
        (b"<memory model='virtio-mem'/>", "virtio-mem memory cannot be covered"),
    ],
)
def test_what_the_iommu_style_cannot_say_is_refused(extra: bytes, reason: str) -> None:
    raw = read("ok-ls-minimal.xml").replace(b"<memballoon", extra + b"<memballoon")
    with pytest.raises(InputError, match=reason):
        _convert(raw, Style.IOMMU)


def test_targets_that_are_too_old_are_refused() -> None:
    old = parse_targets(["libvirt-7.0.0"])
    with pytest.raises(InputError, match=r"needs libvirt 7\.6\.0"):
        convert_document(Document("x", read("ok-iommu-minimal.xml")), Style.LAUNCH_SECURITY, old)
    with pytest.raises(InputError, match=r"vsock needs libvirt 7\.1\.0"):
        convert_document(Document("x", read("ok-ls-full.xml")), Style.IOMMU, old)
    assert convert_document(Document("x", read("ok-ls-minimal.xml")), Style.IOMMU, old).notes


def test_something_else_than_a_domain_is_refused() -> None:
    with pytest.raises(InputError, match="expected a libvirt domain"):
        _convert(b"<network/>", Style.IOMMU)
