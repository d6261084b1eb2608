"""For programs: the stable form that docs/domains/lint-output.md describes."""

from __future__ import annotations

import json

from zseal.domain.lint import PROOF, LintFinding, LintReport
from zseal.domain.report.interface import LintFormat, LintRun
from zseal.domain.rules.interface import Severity

VERSION = 1


def _finding(finding: LintFinding) -> dict[str, object]:
    return {
        "rule": finding.rule.id,
        "severity": finding.severity.value,
        "message": finding.message,
        "file": finding.file,
        "line": finding.position.line,
        "column": finding.position.column,
        "element": finding.element or None,
        "why": finding.rule.why,
        "effect": finding.rule.effect,
        "fix": finding.rule.remedy,
        "fix_safety": finding.rule.safety.value,
        "fixable": finding.fixable,
    }


def _report(report: LintReport) -> dict[str, object]:
    return {
        "file": report.file,
        "style": report.style.value if report.style is not None else None,
        "counts": {severity.value: report.count(severity) for severity in Severity},
        "findings": [_finding(finding) for finding in report.findings],
        "checked": list(report.checked),
        "skipped": list(report.skipped),
        "ignored": list(report.ignored),
    }


class JsonFormat(LintFormat):
    """One object with a list of files."""

    def render(self, run: LintRun) -> str:
        """See :meth:`LintFormat.render`."""
        document = {
            "version": VERSION,
            "files": [_report(report) for report in run.reports],
            "unreadable": [{"file": item.file, "message": item.message} for item in run.unreadable],
            "counts": {severity.value: run.count(severity) for severity in Severity},
            "failed": run.failed,
            "note": PROOF,
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
