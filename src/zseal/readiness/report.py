"""The answer to "is this host ready?": a result for each check, a verdict, and the two ways to print them."""

from __future__ import annotations

import dataclasses
import enum
import json
import textwrap

from zseal.readiness.checks import ALL_CHECKS, Check, CheckStatus
from zseal.readiness.checks.interface import not_applicable
from zseal.readiness.facts import HostFacts, gather
from zseal.readiness.source import HostSource

# grows when a field changes its meaning; new fields do not change it
JSON_VERSION = 1
DOCUMENT = "docs/hosts.md"


class Verdict(enum.StrEnum):
    """The answer; its values are what ``--format json`` prints."""

    READY = "ready"
    NOT_READY = "not-ready"
    UNKNOWN = "unknown"


# any of these proves that the ultravisor works; without such proof, it is not enough that nothing failed
_PROOFS = ("prot-virt-host", "unpack")


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check's verdict, with everything that people need to act on it."""

    id: str
    title: str
    status: CheckStatus
    found: str
    meaning: str
    fix: str | None
    document: str


@dataclasses.dataclass(frozen=True)
class HostReport:
    """All verdicts on one host."""

    facts: HostFacts
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Verdict:
        """Ready means: no check failed, and the kernel or QEMU confirmed that the ultravisor works."""
        if self.count(CheckStatus.FAIL):
            return Verdict.NOT_READY
        proven = any(self.find(identifier).status is CheckStatus.PASS for identifier in _PROOFS)
        return Verdict.READY if proven else Verdict.UNKNOWN

    @property
    def ready(self) -> bool:
        """Whether protected guests can run here."""
        return self.verdict is Verdict.READY

    def count(self, status: CheckStatus) -> int:
        """Return how many checks ended with ``status``."""
        return sum(result.status is status for result in self.results)

    def find(self, identifier: str) -> CheckResult:
        """Return the result of the check ``identifier``; raises KeyError if there is none."""
        for result in self.results:
            if result.id == identifier:
                return result
        raise KeyError(identifier)


def _run(check: Check, facts: HostFacts) -> CheckResult:
    finding = (
        not_applicable("only on IBM Z and LinuxONE") if check.only_ibm_z and not facts.is_s390x else check.judge(facts)
    )
    return CheckResult(
        id=check.id,
        title=check.title,
        status=finding.status,
        found=finding.found,
        meaning=check.meaning,
        fix=finding.fix,
        document=f"{DOCUMENT}#{check.id}",
    )


def check_host(source: HostSource) -> HostReport:
    """Ask ``source`` everything, run every check, and return the report."""
    facts = gather(source)
    return HostReport(facts, tuple(_run(check, facts) for check in ALL_CHECKS))


def to_json(report: HostReport) -> str:
    """Return the report as one JSON object; see docs/hosts.md for its fields."""
    facts = report.facts
    return json.dumps(
        {
            "version": JSON_VERSION,
            "verdict": report.verdict.value,
            "host": {
                "architecture": facts.architecture,
                "machine_type": facts.machine,
                "kernel": facts.kernel_identity,
            },
            "counts": {status.value: report.count(status) for status in CheckStatus},
            "checks": [{**dataclasses.asdict(result), "status": result.status.value} for result in report.results],
        },
        indent=2,
        ensure_ascii=False,
    )


_MARKS = {
    CheckStatus.PASS: "pass",
    CheckStatus.WARN: "WARN",
    CheckStatus.FAIL: "FAIL",
    CheckStatus.NOT_APPLICABLE: "n/a ",
}
_VERDICTS = {
    Verdict.READY: "Ready to run protected guests",
    Verdict.NOT_READY: "Not ready to run protected guests",
    Verdict.UNKNOWN: "Not known whether this host is ready: nothing failed, but nothing proves the ultravisor works",
}
_INDENT = " " * 8


_ELSEWHERE = (
    "This is {architecture}, not IBM Z or LinuxONE, so it cannot host protected guests in hardware; nothing is wrong "
    "with it. zseal can do the following here: build and verify boot images (zseal image), check host keys and libvirt "
    "domains (zseal hostkey, zseal domain), and run protected guests on its own software ultravisor (zseal demo, zseal "
    "run). To check a real host, run zseal host check on it, or save it with zseal host capture and check the capture "
    "with --root."
)


def to_text(report: HostReport, *, verbose: bool, width: int) -> str:
    """Return the report for people, in lines of about ``width`` characters.

    Checks are explained if there is something to do, and with ``verbose`` always. Checks that are not applicable are
    omitted unless ``verbose``.
    """
    lines = []
    architecture = report.facts.architecture
    if not report.facts.is_s390x and architecture is not None:
        lines += [*textwrap.wrap(_ELSEWHERE.format(architecture=architecture), width), ""]
    for result in report.results:
        if result.status is CheckStatus.NOT_APPLICABLE and not verbose:
            continue
        found = f"{_MARKS[result.status]}  {result.id}: {result.found}"
        lines += textwrap.wrap(found, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
        if verbose or result.fix:
            lines += textwrap.wrap(result.meaning, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
        if result.fix:
            lines += textwrap.wrap(
                f"to do: {result.fix} ({result.document})",
                width,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
    failures, warnings = report.count(CheckStatus.FAIL), report.count(CheckStatus.WARN)
    skipped = report.count(CheckStatus.NOT_APPLICABLE)
    counts = f"{failures} failed, {warnings} warned, {report.count(CheckStatus.PASS)} passed, {skipped} not applicable"
    return "\n".join([*lines, "", f"{_VERDICTS[report.verdict]} ({counts})."])
