"""The domain held against a host: capabilities documents, captured hosts, target versions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.domain.samples import read
from zseal.domain.facts import TargetHost, from_capabilities, from_host, merge
from zseal.domain.lint import LintReport, LintSettings, lint_bytes
from zseal.domain.versions import parse_targets
from zseal.errors import UsageError


def _report(domain: str, *, host: TargetHost | None = None, target: str = "") -> LintReport:
    targets = parse_targets([target] if target else [])
    return lint_bytes(domain, read(domain), LintSettings(host=host, target=targets, local_files=False))


def _ids(domain: str, *, host: TargetHost | None = None, target: str = "") -> set[str]:
    found = {finding.rule.id for finding in _report(domain, host=host, target=target).findings}
    return {rule_id for rule_id in found if rule_id.startswith("PV8") or rule_id in ("PV309", "PV109", "PV308")}


@pytest.mark.parametrize(
    ("name", "launch_security", "iommu"),
    [
        ("caps-ready.xml", set(), set()),
        ("caps-host-off.xml", {"PV801", "PV802"}, {"PV802"}),
        ("caps-old-libvirt.xml", set(), set()),
        ("caps-pv-yes-no-unpack.xml", {"PV802", "PV805"}, {"PV802", "PV805"}),
        ("caps-unpack-only-in-blockers.xml", {"PV801", "PV802"}, {"PV802"}),
    ],
)
def test_capabilities_lead_to_the_conclusions_of_the_manifest(
    name: str, launch_security: set[str], iommu: set[str]
) -> None:
    host = from_capabilities(read(name))
    assert _ids("ok-ls-minimal.xml", host=host) == launch_security
    assert _ids("ok-iommu-minimal.xml", host=host) - {"PV109"} == iommu


@pytest.mark.parametrize(
    ("facts", "rules"),
    [
        (TargetHost(architecture="x86_64"), {"PV806"}),
        (TargetHost(architecture="s390x"), set()),
        (TargetHost(facility=False), {"PV806"}),
        (TargetHost(facility=True, uv_directory=False), {"PV806"}),
        (TargetHost(facility=True, uv_directory=True, command_line="quiet"), {"PV806"}),
        (TargetHost(facility=True, uv_directory=True, command_line="prot_virt=1", prot_virt_host=False), {"PV806"}),
        (TargetHost(facility=True, uv_directory=True, command_line="prot_virt=1", prot_virt_host=True), set()),
        (TargetHost(facility=True, uv_directory=True, command_line="prot-virt=1"), {"PV806", "PV807"}),
        (TargetHost(command_line="prot_virt=10", prot_virt_host=True), {"PV807"}),
        (TargetHost(firmware_masked=True, facility=True, uv_directory=False), {"PV809"}),
        (TargetHost(max_cpus=1), {"PV808"}),
        (TargetHost(max_cpus=2), set()),
        (TargetHost(max_address=(4 << 30) - 1), set()),
        (TargetHost(max_address=(4 << 30) - 2), {"PV309"}),
    ],
)
def test_facts_of_a_host_break_the_rules_they_should(facts: TargetHost, rules: set[str]) -> None:
    assert _ids("ok-ls-minimal.xml", host=facts) == rules


def test_a_ready_host_with_a_stale_cache() -> None:
    host = merge(TargetHost(prot_virt_host=True), from_capabilities(read("caps-host-off.xml")))
    assert "PV805" in _ids("ok-ls-minimal.xml", host=host)
    assert host.prot_virt_host is True


@pytest.mark.parametrize(
    ("domain", "target", "rules"),
    [
        ("ok-ls-minimal.xml", "libvirt-7.5.0", {"PV803"}),
        ("ok-ls-minimal.xml", "libvirt-7.6.0", set()),
        ("ok-ls-minimal.xml", "7.6", set()),
        ("ok-ls-minimal.xml", "qemu-5.2", {"PV804"}),
        ("ok-ls-minimal.xml", "qemu-6.0", set()),
        ("ok-iommu-minimal.xml", "libvirt-7.5.0", set()),
        ("ok-iommu-minimal.xml", "libvirt-7.6.0", {"PV109"}),
        ("ok-iommu-minimal.xml", "libvirt-3.4", {"PV803"}),
        ("ok-iommu-many-devices.xml", "libvirt-7.0.0", {"PV803"}),
        ("ok-ls-async-teardown.xml", "libvirt-9.5.0", {"PV803"}),
        ("ok-ls-async-teardown.xml", "libvirt-9.6.0", set()),
    ],
)
def test_targets(domain: str, target: str, rules: set[str]) -> None:
    assert _ids(domain, target=target) == rules


def test_targets_that_are_none() -> None:
    for text in ("xen-4", "libvirt", "libvirt-a.b", "1.2.3.4", ""):
        with pytest.raises(UsageError, match="invalid target"):
            parse_targets([text])


def test_networks_that_pass_nics_through() -> None:
    host = TargetHost(passthrough_networks=frozenset({"default"}))
    report = _report("ok-ls-minimal.xml", host=host)
    assert "PV604" in {finding.rule.id for finding in report.findings}


def test_a_captured_host(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("facilities      : 0 1 2 158 161\n")
    (tmp_path / "proc" / "cmdline").write_text("root=/dev/dasda1 prot_virt=1\n")
    uv = tmp_path / "sys" / "firmware" / "uv"
    (uv / "query").mkdir(parents=True)
    (uv / "prot_virt_host").write_text("1\n")
    (uv / "query" / "max_cpus").write_text("1\n")
    (uv / "query" / "max_address").write_text("ffffffff\n")
    host = from_host(tmp_path)
    assert (host.facility, host.prot_virt_host, host.max_cpus, host.max_address) == (True, True, 1, 0xFFFFFFFF)
    assert _ids("ok-ls-minimal.xml", host=host) == {"PV808"}


def test_rules_that_nothing_was_given_for_are_skipped_not_passed() -> None:
    report = _report("ok-ls-minimal.xml")
    assert {"PV801", "PV806", "PV309", "PV901", "PV912"} <= set(report.skipped)
    assert not {"PV801", "PV901"} & set(report.checked)


def test_capabilities_of_emulation_are_named_as_such_and_judge_nothing() -> None:
    for name in (
        "caps-ready.xml",
        "caps-host-off.xml",
        "caps-pv-yes-no-unpack.xml",
        "caps-unpack-only-in-blockers.xml",
    ):
        emulated = re.sub(rb"<domain>\w+</domain>", b"<domain>qemu</domain>", read(name))
        settings = LintSettings(host=from_capabilities(emulated), schema=False, local_files=False)
        found = lint_bytes("x", read("ok-ls-minimal.xml"), settings).findings
        assert [f.rule.id for f in found if f.rule.id.startswith("PV8")] == ["PV810"], name
        assert next(f for f in found if f.rule.id == "PV810").message == (
            "the capabilities are those of type qemu, not of kvm: they say nothing about the host"
        )
