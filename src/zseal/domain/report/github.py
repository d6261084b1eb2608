"""Workflow commands of GitHub Actions: each finding becomes an annotation on its line."""

from __future__ import annotations

from zseal.domain.lint import LintFinding
from zseal.domain.report.interface import LintFormat, LintRun
from zseal.domain.rules.interface import Severity

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.ADVICE: "notice"}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _annotation(finding: LintFinding) -> str:
    place = f"file={_property(finding.file)},line={finding.position.line},col={finding.position.column}"
    title = _property(f"{finding.rule.id}: {finding.rule.title}")
    text = _data(f"{finding.message}\n{finding.rule.effect}\nFix: {finding.rule.remedy}")
    return f"::{_COMMANDS[finding.severity]} {place},title={title}::{text}"


class GitHubFormat(LintFormat):
    """One line a finding."""

    def render(self, run: LintRun) -> str:
        """See :meth:`LintFormat.render`."""
        lines = [_annotation(finding) for report in run.reports for finding in report.findings]
        lines += [f"::error file={_property(item.file)}::{_data(item.message)}" for item in run.unreadable]
        return "".join(f"{line}\n" for line in lines)
