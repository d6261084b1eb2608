"""The rules for people to read: the list, one rule in full, and the page of each in the documentation."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable

from zseal.domain.examples import example_domain
from zseal.domain.fix import fix_bytes, unified_diff
from zseal.domain.rules.interface import CaughtBy, LintRule, Safety
from zseal.errors import ZsealError

WIDTH = 100
_SAFETY = {
    Safety.SAFE: "{} repairs it.",
    Safety.ASK: "{} --unsafe-fixes repairs it if that is mechanical; the repair changes what the guest has or does.",
    Safety.NONE: "A person has to decide how.",
}
_TOPICS = {
    "0": "Document and machine", "1": "Protection", "2": "Virtio devices", "3": "Memory", "4": "Processors",
    "5": "Boot", "6": "Devices", "7": "Lifecycle", "8": "The host", "9": "Inside the guest",
}  # fmt: skip


def remedy(rule: LintRule) -> str:
    """The remedy, and the command that applies it."""
    who = _SAFETY[rule.safety].format(rule.command) if rule.command else ""
    return f"{rule.remedy} {who}".rstrip()


def caught_by(rule: LintRule) -> str:
    """What else reports the mistake before the guest runs."""
    names = []
    if CaughtBy.SCHEMA in rule.caught_by:
        names.append("libvirt's schema")
    if CaughtBy.LIBVIRT in rule.caught_by:
        names.append("libvirt when it defines the domain")
    return " and ".join(names) or "nothing else"


def list_rules(rules: Iterable[LintRule]) -> str:
    """One line a rule, under its topic."""
    lines = []
    topic = ""
    for rule in rules:
        if rule.id[2] != topic:
            topic = rule.id[2]
            lines.append(f"{_TOPICS[topic]}:")
        lines.append(f"  {rule.id}  {rule.severity.value:<8} {rule.safety.value:<5} {rule.title}")
    lines.append(
        "The third column: zseal domain fix repairs safe (PV901 to PV910 with --parmfile), and ask with --unsafe-fixes "
        "or zseal domain convert does; none is left to a person."
    )
    return "".join(f"{line}\n" for line in lines)


def explain_rule(rule: LintRule) -> str:
    """The rule in full, for a terminal."""
    parts = [
        f"{rule.id}: {rule.title} ({rule.severity.value})",
        *(
            textwrap.fill(text, WIDTH, initial_indent=f"{label:<12}", subsequent_indent=" " * 12)
            for label, text in (
                ("Why:", rule.why),
                ("Otherwise:", rule.effect),
                ("Fix:", remedy(rule)),
                ("Caught by:", f"{caught_by(rule)} too" if rule.caught_by else "nothing else"),
                ("Needs:", rule.needs_text),
            )
            if text
        ),
    ]
    if rule.example:
        parts += ["Example:", textwrap.indent(rule.example, "    ")]
    parts.append(f"Defined in {rule.source}")
    return "\n".join(parts) + "\n"


def rules_json(rules: Iterable[LintRule]) -> str:
    """The rules as a JSON list."""
    listed = [
        {
            "id": rule.id,
            "severity": rule.severity.value,
            "title": rule.title,
            "why": rule.why,
            "effect": rule.effect,
            "fix": rule.remedy,
            "fix_safety": rule.safety.value,
            "caught_by_schema": CaughtBy.SCHEMA in rule.caught_by,
            "caught_by_libvirt": CaughtBy.LIBVIRT in rule.caught_by,
            "needs": rule.needs_text or None,
            "example": rule.example or None,
            "source": rule.source,
        }
        for rule in rules
    ]
    return json.dumps(listed, indent=2, ensure_ascii=False) + "\n"


def _repair_diff(rule: LintRule) -> str:
    """What ``zseal domain fix`` changes in the rule's example; empty if nothing."""
    from zseal.domain.lint import LintSettings

    if not rule.example or rule.safety is Safety.NONE:
        return ""
    source = example_domain(rule).encode()
    settings = LintSettings(select=frozenset({rule.id}), schema=False, local_files=False)
    try:
        result = fix_bytes("domain.xml", source, settings, unsafe=rule.safety is Safety.ASK)
    except ZsealError:
        return ""
    return unified_diff(result, "domain.xml").decode()


def rule_page(rule: LintRule) -> str:
    """The rule's page in the documentation, in Markdown."""
    lines = [
        f"# {rule.id}: {rule.title}",
        "",
        f"Severity: **{rule.severity.value}**. Also caught by: {caught_by(rule)}.",
        "",
        "## Why",
        "",
        _markdown(rule.why),
        "",
        "## What happens otherwise",
        "",
        _markdown(rule.effect),
        "",
        "## Fix",
        "",
        _markdown(remedy(rule)),
    ]
    if rule.needs:
        lines += ["", f"This rule is checked only if it is given {_markdown(rule.needs_text)}."]
    if rule.example:
        lines += ["", "## Example", "", "```xml", rule.example, "```"]
    diff = _repair_diff(rule)
    if diff:
        lines += [
            "",
            "What `zseal domain fix` changes there, in a whole domain:",
            "",
            "```diff",
            diff.rstrip("\n"),
            "```",
        ]
    lines += ["", f"Defined in [{rule.source}](../../../{rule.source})."]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Escape what Markdown would take for HTML."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def rule_index(rules: Iterable[LintRule]) -> str:
    """The page that lists all rules, in Markdown."""
    lines = [
        "# The rules of `zseal domain lint`",
        "",
        "`python -m zseal.domain.rulepages` writes this directory; change the rules, not the pages.",
        "",
        "Severity: an *error* does not work or does not prepare for protected mode, a *warning* is risky or partly "
        "broken,",
        "*advice* works but could be better. Fix: `zseal domain fix` repairs *safe*, and *ask* with `--unsafe-fixes`;",
        "*none* is left to a person.",
    ]
    topic = ""
    for rule in rules:
        if rule.id[2] != topic:
            topic = rule.id[2]
            lines += ["", f"## {_TOPICS[topic]}", "", "| Rule | Severity | Fix | |", "| --- | --- | --- | --- |"]
        lines.append(
            f"| [{rule.id}]({rule.id}.md) | {rule.severity.value} | {rule.safety.value} | {_markdown(rule.title)} |"
        )
    return "\n".join(lines) + "\n"
