"""SARIF 2.1.0, the form that code-scanning services take."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from urllib.parse import quote

from zseal.domain.lint import PROOF, LintFinding
from zseal.domain.report.interface import LintFormat, LintRun
from zseal.domain.rules import RULES
from zseal.domain.rules.interface import LintRule, Severity
from zseal.version import __version__

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.ADVICE: "note"}


def _rule(rule: LintRule) -> dict[str, object]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in re.findall(r"\w+", rule.title)),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.why} {rule.effect}"},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(file)


def _result(finding: LintFinding, index: int) -> dict[str, object]:
    region = {"startLine": finding.position.line, "startColumn": finding.position.column}
    location: dict[str, object] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(finding.file)}, "region": region}
    }
    if finding.element:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.element, "kind": "element"}]
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": [location],
    }


class SarifFormat(LintFormat):
    """One run; files that could not be read are execution notifications."""

    def render(self, run: LintRun) -> str:
        """See :meth:`LintFormat.render`."""
        indexes = {rule_id: index for index, rule_id in enumerate(RULES)}
        findings = [finding for report in run.reports for finding in report.findings]
        notifications = [
            {
                "level": "error",
                "message": {"text": item.message},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(item.file)}}}],
            }
            for item in run.unreadable
        ]
        document = {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {
                        "driver": {
                            "name": "zseal domain lint",
                            "version": __version__,
                            "rules": [_rule(rule) for rule in RULES.values()],
                        }
                    },
                    "columnKind": "unicodeCodePoints",
                    "invocations": [
                        {
                            "executionSuccessful": not run.unreadable,
                            "toolExecutionNotifications": notifications,
                        }
                    ],
                    "results": [_result(finding, indexes[finding.rule.id]) for finding in findings],
                    "properties": {"note": PROOF},
                }
            ],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
