"""Every output format carries every finding with its place, and none says that a guest is protected."""

from __future__ import annotations

import json

import pytest

from tests.unit.domain.samples import SAMPLES, read
from zseal.domain.lint import PROOF, LintSettings, lint_bytes
from zseal.domain.report import FORMATS, LintRun, Unreadable
from zseal.domain.report.text import printable
from zseal.domain.rules import RULES


def _run(*names: str) -> LintRun:
    reports = tuple(lint_bytes(name, read(name), LintSettings(local_files=False)) for name in names)
    return LintRun(reports, (Unreadable("gone.xml", "cannot read it: 50%, really"),))


def test_text_explains_errors_and_keeps_advice_short() -> None:
    text = FORMATS["text"]().render(_run("bad-PV201-disk.xml"))
    assert "bad-PV201-disk.xml:12:7: error PV201: disk vda has no iommu='on'" in text
    assert "    at    /domain/devices/disk/driver\n" in text
    assert "    why   " in text
    assert "    else  The guest's kernel refuses the device" in text
    assert "(zseal domain fix does it)" in " ".join(text.split())
    assert "bad-PV201-disk.xml:22:5: advice PV612: " in text
    assert "gone.xml: not checked: cannot read it" in text
    assert text.endswith(PROOF + "\n")


@pytest.mark.parametrize("name", list(FORMATS))
def test_no_format_gives_protection_as_a_verdict(name: str) -> None:
    text = FORMATS[name]().render(LintRun(tuple(lint_bytes(s.name, s.raw) for s in SAMPLES)))
    for claim in ("is protected.", "will be protected", "guest is protected", "domain is protected"):
        assert claim not in text


def test_json_is_complete_and_stable() -> None:
    document = json.loads(FORMATS["json"]().render(_run("bad-PV201-disk.xml", "ok-ls-minimal.xml")))
    assert list(document) == ["version", "files", "unreadable", "counts", "failed", "note"]
    assert document["version"] == 1
    assert document["failed"] is True
    assert document["counts"] == {"error": 1, "warning": 1, "advice": 6}
    bad, good = document["files"]
    assert list(bad) == ["file", "style", "counts", "findings", "checked", "skipped", "ignored"]
    finding = next(f for f in bad["findings"] if f["rule"] == "PV201")
    assert finding | {"why": "", "effect": "", "fix": ""} == {
        "rule": "PV201",
        "severity": "error",
        "message": "disk vda has no iommu='on': a protected guest cannot use it",
        "file": "bad-PV201-disk.xml",
        "line": 12,
        "column": 7,
        "element": "/domain/devices/disk/driver",
        "why": "",
        "effect": "",
        "fix": "",
        "fix_safety": "safe",
        "fixable": True,
    }
    assert good["style"] == "launchSecurity"
    assert set(good["checked"]) | set(good["skipped"]) == set(RULES)
    assert document["unreadable"] == [{"file": "gone.xml", "message": "cannot read it: 50%, really"}]


def test_sarif_has_what_code_scanning_needs() -> None:
    document = json.loads(FORMATS["sarif"]().render(_run("bad-PV201-disk.xml")))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    result = next(r for r in run["results"] if r["ruleId"] == "PV201")
    assert rules[result["ruleIndex"]]["id"] == "PV201"
    assert result["level"] == "error"
    location = result["locations"][0]
    assert location["physicalLocation"]["region"] == {"startLine": 12, "startColumn": 7}
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "bad-PV201-disk.xml"
    assert run["invocations"][0]["executionSuccessful"] is False
    assert {r["level"] for r in run["results"]} <= {"error", "warning", "note"}


def test_github_annotations_escape_what_would_end_them() -> None:
    lines = FORMATS["github"]().render(_run("bad-PV201-disk.xml")).splitlines()
    assert any(
        line.startswith("::error file=bad-PV201-disk.xml,line=12,col=7,title=PV201%3A a virtio disk") for line in lines
    )
    assert lines[-1] == "::error file=gone.xml::cannot read it: 50%25, really"
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)


def test_names_from_a_document_do_not_reach_the_terminal_raw() -> None:
    raw = read("bad-PV201-disk.xml").replace(b"dev='vda'", "dev='vd\u009b31m'".encode())
    text = FORMATS["text"]().render(LintRun((lint_bytes("x", raw),)))
    assert "\u009b" not in text
    assert printable("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
