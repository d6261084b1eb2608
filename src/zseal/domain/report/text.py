"""For people: errors and warnings with reasons and repairs, advice on one line each."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator

from zseal.domain.lint import PROOF, LintFinding, LintReport
from zseal.domain.report.interface import LintFormat, LintRun
from zseal.domain.rules.interface import Safety, Severity

WIDTH = 100
_HOW = {
    Safety.SAFE: "{} does it",
    Safety.ASK: "{} --unsafe-fixes does it",
    Safety.NONE: "",
}


def plural(number: int, noun: str) -> str:
    """The number with its noun: ``1 error``, ``2 errors``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """The text with control characters escaped: a document must not steer the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@functools.cache  # the same rules are printed many times
def _paragraph(label: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"    {label:<6}", subsequent_indent=" " * 10)


def finding_lines(finding: LintFinding) -> Iterator[str]:
    """The lines that describe a finding."""
    where = f"{finding.file}:{finding.position.line}:{finding.position.column}"
    yield f"{printable(where)}: {finding.severity.value} {finding.rule.id}: {printable(finding.message)}"
    if finding.severity is Severity.ADVICE:
        return
    if finding.element:
        yield f"    at    {printable(finding.element)}"
    yield _paragraph("why", finding.rule.why)
    yield _paragraph("else", finding.rule.effect)
    how = _HOW[finding.rule.safety].format(finding.rule.command) if finding.fixable else ""
    yield _paragraph("fix", f"{finding.rule.remedy} ({how})" if how else finding.rule.remedy)


class TextFormat(LintFormat):
    """One block a finding, then one line a file and what the result means."""

    def render(self, run: LintRun) -> str:
        """See :meth:`LintFormat.render`."""
        lines = [line for report in run.reports for finding in report.findings for line in finding_lines(finding)]
        lines += [f"{printable(item.file)}: not checked: {printable(item.message)}" for item in run.unreadable]
        lines += [self._summary(report) for report in run.reports]
        if run.reports:
            lines.append(PROOF)
        return "".join(f"{line}\n" for line in lines)

    @staticmethod
    def _summary(report: LintReport) -> str:
        style = f"{report.style.value} style" if report.style is not None else "no readable domain"
        counts = ", ".join(plural(report.count(s), s.value) for s in (Severity.ERROR, Severity.WARNING))
        advice = report.count(Severity.ADVICE)
        name = printable(report.file)
        return f"{name}: {plural(len(report.checked), 'rule')} checked ({style}): {counts}, {advice} advice"
