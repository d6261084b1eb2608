"""Output formats for lint results, by name."""

from __future__ import annotations

from zseal.domain.report.github import GitHubFormat
from zseal.domain.report.interface import LintFormat, LintRun, Unreadable
from zseal.domain.report.json import JsonFormat
from zseal.domain.report.sarif import SarifFormat
from zseal.domain.report.text import TextFormat

FORMATS: dict[str, type[LintFormat]] = {
    "text": TextFormat,
    "json": JsonFormat,
    "sarif": SarifFormat,
    "github": GitHubFormat,
}

__all__ = ["FORMATS", "LintFormat", "LintRun", "Unreadable"]
