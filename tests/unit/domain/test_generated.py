"""200 generated domains: what fix gives back has nothing left to find, is valid, and converts both ways.

That libvirt accepts and starts them is tested in tests/integration/domain.
"""

from __future__ import annotations

import pytest

from tests.unit.domain.generate import generate
from zseal.domain.convert import convert_document
from zseal.domain.document import Document
from zseal.domain.fix import fix_bytes
from zseal.domain.lint import LintSettings, lint_bytes
from zseal.domain.model import Domain, Style
from zseal.domain.rules.interface import Severity
from zseal.domain.schema import Schema, installed_schema

COUNT = 200
BATCHES = 20


@pytest.fixture
def schema() -> Schema:
    found = installed_schema()
    assert found is not None, "install libvirt0 (Debian): generated domains are held against libvirt's schema"
    return found


def _serious(raw: bytes) -> list[str]:
    findings = lint_bytes("generated", raw, LintSettings(local_files=False)).findings
    return [f"{f.rule.id} {f.message}" for f in findings if f.severity is not Severity.ADVICE]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_lint_fix_lint_is_clean_and_valid(batch: int, schema: Schema) -> None:
    for seed in range(batch, COUNT, BATCHES):
        raw = generate(seed).encode()
        fixed = fix_bytes("generated", raw).after
        assert _serious(fixed) == [], f"seed {seed}"
        assert fix_bytes("generated", fixed).after == fixed, f"seed {seed}"
        document = Document("generated", fixed)
        assert schema.validate(document) is None, f"seed {seed}"
        domain = Domain(document)
        if domain.style is Style.IOMMU:
            assert all(device.covered for device in domain.virtio), f"seed {seed}"
            assert not domain.implicit, f"seed {seed}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_convert_gives_has_nothing_to_find_either(batch: int, schema: Schema) -> None:
    for seed in range(batch, COUNT, BATCHES):
        document = Document("generated", fix_bytes("generated", generate(seed).encode()).after)
        for style in (Style.LAUNCH_SECURITY, Style.IOMMU, Style.LAUNCH_SECURITY):
            document = convert_document(document, style).document
            assert _serious(document.data) == [], f"seed {seed}"
            assert schema.validate(document) is None, f"seed {seed}"


def test_the_generator_makes_all_styles_and_many_mistakes() -> None:
    reports = [lint_bytes("generated", generate(seed).encode()) for seed in range(COUNT)]
    assert {report.style for report in reports} == set(Style)
    rules = {finding.rule.id for report in reports for finding in report.findings}
    assert len(rules) >= 35, sorted(rules)
