"""Check a domain against all rules.

A clean result does not mean that a guest runs protected: XML only permits the switch. Only the guest's own flag
(/sys/firmware/uv/prot_virt_guest) or an attestation proves it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterator

from zseal.domain.document import (
    Document,
    DomainSource,
    Element,
    NotWellFormedError,
    Position,
    decode,
    read_source,
)
from zseal.domain.edits import Change
from zseal.domain.facts import TargetHost
from zseal.domain.guest import GuestInputs
from zseal.domain.model import Domain, Style
from zseal.domain.newer import newer_parts
from zseal.domain.repair import Repaired, repair
from zseal.domain.rules import RULES
from zseal.domain.rules.interface import CaughtBy, Context, Input, LintRule, Severity
from zseal.domain.schema import installed_schema
from zseal.domain.versions import Target, show
from zseal.errors import UsageError

PROOF = (
    "XML only permits the switch to protected mode. Proof is the guest's own flag "
    "(/sys/firmware/uv/prot_virt_guest is 1) or an attestation."
)


_IGNORE = re.compile(r"\s*zseal:ignore\s+(PV\d{3}(?:[\s,]+PV\d{3})*)")


@dataclasses.dataclass(frozen=True)
class LintFinding:
    """A broken rule and its place."""

    rule: LintRule
    severity: Severity
    message: str
    file: str
    position: Position
    element: str
    """The XPath of the element; empty for a place outside the domain."""
    change: Change = dataclasses.field(default=Change(), repr=False, compare=False)
    becomes: str = ""
    """What the repair leaves in the element's place, such as ``removed``; empty if the rule's remedy says it."""

    @property
    def fixable(self) -> bool:
        """Whether a change repairs it."""
        return bool(self.change)


@dataclasses.dataclass(frozen=True)
class LintReport:
    """The findings in one file. ``skipped`` names the rules that were not selected or lacked their input."""

    file: str
    style: Style | None
    findings: tuple[LintFinding, ...]
    checked: tuple[str, ...]
    skipped: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    """The rules that comments in the file turn off."""

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def fails(self, *, strict: bool = False) -> bool:
        """Whether the file has findings that count: errors and warnings, advice too when ``strict``."""
        return any(strict or finding.severity is not Severity.ADVICE for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class LintSettings:
    """The versions, host and guest to check for, and the rules to check."""

    target: Target = dataclasses.field(default_factory=Target)
    host: TargetHost | None = None
    guest: GuestInputs | None = None
    select: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    schema: bool = True
    local_files: bool = True

    def wants(self, rule_id: str) -> bool:
        """Whether the rule is to be reported."""
        selected = not self.select or any(rule_id.startswith(prefix) for prefix in self.select)
        return selected and not any(rule_id.startswith(prefix) for prefix in self.ignore)


def check_rule_ids(texts: Collection[str]) -> frozenset[str]:
    """Return rule ids or prefixes of them (``PV6``) in capital letters; raises UsageError for one that fits no rule."""
    ids = frozenset(text.strip().upper() for text in texts if text.strip())
    for wanted in ids:
        if not any(rule_id.startswith(wanted) for rule_id in RULES):
            raise UsageError(f"there is no rule {wanted}", hint="`RULES` lists them")
    return ids


def lint_domain(source: DomainSource, settings: LintSettings = LintSettings()) -> LintReport:
    """Check the domain XML in ``source``, a path or the content, as :func:`lint_bytes` does."""
    return lint_bytes(*read_source(source), settings)


def lint_bytes(name: str, raw: bytes, settings: LintSettings = LintSettings()) -> LintReport:
    """Check the domain XML ``raw``, called ``name`` in messages.

    XML that is not well-formed is a finding (PV001). If it can be repaired, the repaired text is checked too, and
    positions refer to the original text. Raises InputError or FormatError for input that is not text, too large or
    hostile.
    """
    data, encoding = decode(name, raw)
    try:
        return lint_document(Document(name, data, encoding), settings)
    except NotWellFormedError as error:
        result = repair(name, data, error)
        report = lint_document(Document(name, result.data, encoding), settings) if result.complete else None
        return _with_diagnoses(name, result, report, settings)


def _with_diagnoses(name: str, result: Repaired, report: LintReport | None, settings: LintSettings) -> LintReport:
    rule = RULES["PV001"]
    found = [
        LintFinding(rule, rule.severity, item.message, name, item.position, item.element, Change(item.edits))
        for item in result.diagnoses
        if settings.wants(rule.id)
    ]
    if report is None:
        return LintReport(name, None, tuple(found), (rule.id,), tuple(i for i in RULES if i != rule.id))
    moved = (
        dataclasses.replace(f, position=result.original(f.position)) if f.file == name else f for f in report.findings
    )
    return dataclasses.replace(report, findings=(*found, *moved))


def lint_document(document: Document, settings: LintSettings = LintSettings()) -> LintReport:
    """Check a parsed domain."""
    domain = Domain(document)
    target = settings.target
    if settings.host is not None:
        target = Target(target.libvirt or settings.host.libvirt, target.qemu or settings.host.qemu)
    ctx = Context(document, domain, target, settings.host, settings.guest, settings.local_files)
    if document.root.tag != "domain":
        wrong_root = tuple(_run(RULES["PV002"], ctx))
        return LintReport(document.name, None, wrong_root, ("PV001", "PV002"), tuple(i for i in RULES if i > "PV002"))
    schema = installed_schema() if settings.schema else None
    ignored = ignored_rules(document)
    wanted, skipped = _chosen(settings, _given(settings, target, schema=schema is not None))
    findings: list[LintFinding] = []
    for rule in wanted:
        if rule.id not in ignored:
            findings += _run(rule, ctx)
    if schema is not None and settings.wants("PV003") and "PV003" not in ignored:
        findings += _validate(ctx, findings)
    findings.sort(key=lambda finding: (finding.file != document.name, finding.position, finding.rule.id))
    checked = tuple(rule.id for rule in wanted if rule.id not in ignored)
    return LintReport(document.name, domain.style, tuple(findings), checked, skipped, tuple(sorted(ignored)))


@functools.lru_cache(maxsize=16)
def _chosen(settings: LintSettings, given: frozenset[Input]) -> tuple[tuple[LintRule, ...], tuple[str, ...]]:
    """The rules to check, and the ids of those that are not selected or lack an input."""
    wanted, skipped = [], []
    for rule in RULES.values():
        if rule.needs <= given and settings.wants(rule.id):
            wanted.append(rule)
        else:
            skipped.append(rule.id)
    return tuple(wanted), tuple(skipped)


def ignored_rules(document: Document) -> frozenset[str]:
    """The rules that comments turn off in the file, as in ``<!-- zseal:ignore PV612 no login there -->``."""
    found = (match[1] for comment in document.comments if (match := _IGNORE.match(comment)))
    return frozenset(rule_id for text in found for rule_id in re.split(r"[\s,]+", text) if rule_id in RULES)


def _given(settings: LintSettings, target: Target, *, schema: bool) -> frozenset[Input]:
    """The inputs that the settings contain."""
    guest = settings.guest or GuestInputs()
    given = {
        Input.SCHEMA: schema,
        Input.HOST: settings.host is not None,
        Input.VERSIONS: settings.host is not None or target != Target(),
        Input.NAMED_KERNEL: settings.local_files or guest.image is not None,
        Input.IMAGE: guest.image is not None,
        Input.HOST_KEYS: bool(guest.host_keys),
        Input.KERNEL: guest.kernel is not None,
        Input.PARAMETERS: guest.parameters is not None,
    }
    return frozenset(item for item, there in given.items() if there)


def _run(rule: LintRule, ctx: Context) -> Iterator[LintFinding]:
    if rule.style not in (None, ctx.domain.style):
        return
    for hit in rule.check(ctx):
        severity = hit.severity or rule.severity
        if hit.place is not None:
            yield LintFinding(rule, severity, hit.message, hit.place[0], hit.place[1], "", hit.change, hit.becomes)
        else:
            element = hit.element or ctx.root
            position = ctx.document.position(element.start)
            yield LintFinding(
                rule, severity, hit.message, ctx.document.name, position, element.path, hit.change, hit.becomes
            )


def _validate(ctx: Context, findings: list[LintFinding]) -> Iterator[LintFinding]:
    """Apply PV003: what the target's libvirt does not have, and the schema's objection unless a rule explains it."""
    schema = installed_schema()
    if schema is None:
        return
    rule = RULES["PV003"]
    # what rules say of the domain as a whole explains nothing
    explained = {finding.element for finding in findings} - {ctx.root.path}
    target = ctx.target.libvirt
    for part in newer_parts(ctx.root, target) if target is not None else ():
        if part.element.path not in explained:
            message = f"libvirt {show(target or ())} does not have {part.name}, {show(part.since)} does"
            position = ctx.document.position(part.element.start)
            yield LintFinding(rule, rule.severity, message, ctx.document.name, position, part.element.path)
    if any(CaughtBy.SCHEMA in finding.rule.caught_by for finding in findings):
        return
    error = schema.validate(ctx.document)
    element = _element_on(ctx.root, ctx.document, error.line) if error is not None else None
    if error is not None and element is not None and element.path not in explained:
        release = f"{'' if schema.exact else 'about '}{show(schema.version)}"
        message = f"the schema of libvirt {release} does not accept it: {error.message}"
        position = ctx.document.position(element.start)
        yield LintFinding(rule, rule.severity, message, ctx.document.name, position, element.path)


def _element_on(root: Element, document: Document, line: int) -> Element:
    """The first element that starts on a line, otherwise the root."""
    return next((e for e in root.walk() if document.position(e.start).line == line), root)


__all__ = [
    "PROOF",
    "LintFinding",
    "LintReport",
    "LintSettings",
    "check_rule_ids",
    "lint_bytes",
    "lint_document",
    "lint_domain",
]
