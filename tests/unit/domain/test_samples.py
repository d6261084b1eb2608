"""Every sample gives the findings its manifest names, at the right places, and is repaired where that is safe."""

from __future__ import annotations

import csv

import pytest

from tests.unit.domain.samples import GOOD, SAMPLES, VECTORS, Sample, read
from zseal.domain.document import Document, NotWellFormedError
from zseal.domain.fix import fix_bytes
from zseal.domain.lint import LintReport, LintSettings, lint_bytes
from zseal.domain.rules import RULES
from zseal.domain.rules.interface import Safety, Severity
from zseal.domain.schema import installed_schema


def _lint(raw: bytes, name: str = "sample") -> LintReport:
    return lint_bytes(name, raw, LintSettings(local_files=False))


def _ids(report: LintReport, *severities: Severity) -> set[str]:
    return {f.rule.id for f in report.findings if not severities or f.severity in severities}


def _covers_all_but_one(sample: Sample) -> bool:
    # PV112 says in one line what the rules of the single devices say in many: it accompanies them
    return any("PV201" <= rule_id <= "PV221" for rule_id in sample.rules)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_has_exactly_the_expected_errors_and_warnings(sample: Sample) -> None:
    report = _lint(sample.raw)
    expected = {i for i in sample.rules if RULES[i].severity is not Severity.ADVICE}
    found = _ids(report, Severity.ERROR, Severity.WARNING)
    if _covers_all_but_one(sample):
        found.discard("PV112")
        expected.discard("PV112")
    assert found == expected
    assert sample.rules <= _ids(report), "advice that the manifest names"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_the_style_of_a_sample(sample: Sample) -> None:
    style = "launchSecurity" if sample.style == "both" else sample.style
    report = _lint(sample.raw)
    # a launchSecurity that libvirt would refuse protects nothing yet
    broken = {"PV102", "PV103", "PV104"} & sample.rules
    assert report.style is not None
    assert report.style.value == ("none" if broken else style)


def test_findings_and_their_places_are_as_reviewed() -> None:
    """FINDINGS.tsv holds every finding of every sample: rule, line and column."""
    with (VECTORS / "FINDINGS.tsv").open(newline="") as stream:
        reviewed = {tuple(row) for row in list(csv.reader(stream, delimiter="\t"))[1:]}
    found = {
        (sample.name, finding.rule.id, str(finding.position.line), str(finding.position.column))
        for sample in SAMPLES
        for finding in _lint(sample.raw).findings
    }
    assert found == reviewed


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_safe_repairs_leave_nothing_that_is_safe_to_repair(sample: Sample) -> None:
    fixed = fix_bytes(sample.name, sample.raw)
    left = [f for f in _lint(fixed.after).findings if f.rule.safety is Safety.SAFE]
    assert left == []
    assert fix_bytes(sample.name, fixed.after).after == fixed.after, "a second run changes nothing"


@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)
def test_a_good_domain_is_only_changed_by_advice(sample: Sample) -> None:
    before, after = sample.raw.splitlines(), fix_bytes(sample.name, sample.raw).after.splitlines()
    added = [line.strip() for line in after if line not in before]
    assert [line for line in before if line not in after] == []
    assert added in ([], [b"<memoryBacking>", b"<nosharepages/>", b"</memoryBacking>"])


def test_samples_that_only_libvirt_schema_rejects_are_explained_by_a_rule() -> None:
    assert installed_schema() is not None, "install libvirt0 (Debian): the tests validate against its schema"
    for sample in SAMPLES:
        assert "PV003" not in _ids(_lint(sample.raw)), sample.name


def test_repaired_samples_are_valid_for_libvirts_schema() -> None:
    schema = installed_schema()
    assert schema is not None, "install libvirt0 (Debian): the tests validate against its schema"
    for sample in SAMPLES:
        document = Document(sample.name, fix_bytes(sample.name, sample.raw).after)
        assert schema.validate(document) is None, sample.name


def test_the_published_sample_is_diagnosed_where_the_slip_is() -> None:
    raw = read("bad-PV001-unclosed-driver.xml")
    with pytest.raises(NotWellFormedError):
        Document("sample", raw)
    finding = _lint(raw).findings[0]
    assert (finding.rule.id, finding.position.line, finding.position.column) == ("PV001", 12, 7)
    assert finding.element == "/domain/devices/disk/driver"
    assert "libvirt's page" in finding.message


def test_no_output_claims_that_a_guest_is_protected() -> None:
    for sample in SAMPLES:
        for finding in _lint(sample.raw).findings:
            assert "is protected" not in finding.message
            assert "will be protected" not in finding.message
