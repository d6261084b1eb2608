"""Apply the repairs that findings contain, in rounds, until none is left."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

from zseal.domain.document import Document, DomainSource, NotWellFormedError, decode, encode, read_source
from zseal.domain.edits import apply
from zseal.domain.guest import GuestInputs, ParameterFile
from zseal.domain.lint import LintFinding, LintSettings, lint_document
from zseal.domain.repair import repair
from zseal.domain.rules.interface import Safety
from zseal.errors import InputError, UsageError

MAX_ROUNDS = 50
"""More rounds than any document needs; without a limit, two repairs that undo each other would never end."""


@dataclasses.dataclass(frozen=True)
class FixResult:
    """The text before and after, in the file's own encoding, and the repairs, in order."""

    before: bytes
    after: bytes
    repaired: tuple[str, ...]
    """One line for each repair: rule id and message."""

    @property
    def changed(self) -> bool:
        """Whether the text changed."""
        return self.before != self.after


PORTED_FROM = ("x86_64",)
"""The architectures that a domain can be ported from."""


def _applicable(finding: LintFinding, *, unsafe: bool, port: bool) -> bool:
    asked = unsafe or (port and finding.rule.ports)
    allowed = (Safety.SAFE, Safety.ASK) if asked else (Safety.SAFE,)
    return finding.fixable and finding.rule.safety in allowed


def fix_domain(
    source: DomainSource,
    settings: LintSettings = LintSettings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
    port_from: str | None = None,
) -> FixResult:
    """Repair the domain XML in ``source``, a path or the content, as :func:`fix_bytes` does. Nothing is written."""
    return fix_bytes(*read_source(source), settings, unsafe=unsafe, port_from=port_from)


def fix_bytes(
    name: str,
    raw: bytes,
    settings: LintSettings = LintSettings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
    port_from: str | None = None,
) -> FixResult:
    """Repair the domain XML ``raw``: mistakes in the XML, and all findings with a safe repair.

    With ``unsafe`` also those that change what the guest has or does; with ``port_from``, a name in PORTED_FROM, those
    of them that put what s390x has in the place of what that architecture has. Raises InputError where
    :func:`~zseal.domain.lint.lint_bytes` does, for XML mistakes that zseal cannot repair, and for a domain of a third
    architecture.
    """
    data, encoding = decode(name, raw)
    repaired: list[str] = []
    try:
        document = Document(name, data, encoding)
    except NotWellFormedError as error:
        result = repair(name, data, error)
        if not result.complete:
            last = result.diagnoses[-1]
            where = f"{name}:{last.position.line}:{last.position.column}"
            raise InputError(last.message, where=where, hint="repair it by hand") from error
        repaired += [f"PV001 {diagnosis.message}" for diagnosis in result.diagnoses]
        document = Document(name, result.data, encoding)
    if port_from is not None:
        _check_origin(document, port_from)
    document, done = fix_document(document, settings, unsafe=unsafe, port=port_from is not None)
    return FixResult(raw, _written(raw, document), (*repaired, *done))


def _check_origin(document: Document, port_from: str) -> None:
    if port_from not in PORTED_FROM:
        raise UsageError(f"domains cannot be ported from {port_from!r}", hint=f"use {' or '.join(PORTED_FROM)}")
    kind = document.root.find("os", "type")
    stated = kind.get("arch") if kind is not None else ""
    if stated not in ("", "s390x", "i686", port_from):
        raise InputError(f"the domain is for {stated}, not for {port_from}", where=document.name)


def _written(raw: bytes, document: Document) -> bytes:
    bom = document.encoding == "utf-8-sig"
    body = encode(document.data, "utf-8" if bom else document.encoding)
    return raw[:3] + body if bom else body


def fix_document(
    document: Document,
    settings: LintSettings = LintSettings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
    port: bool = False,
) -> tuple[Document, list[str]]:
    """Repair a parsed domain; return it and one line for each repair. With ``port`` port it, as fix_bytes does."""
    settings = dataclasses.replace(settings, schema=False)

    def findings(data: bytes) -> list[LintFinding]:
        text = Document(document.name, data, document.encoding)
        return [finding for finding in lint_document(text, settings).findings if finding.file == document.name]

    data, repaired = _in_rounds(document.data, findings, unsafe=unsafe, port=port)
    return Document(document.name, data, document.encoding), repaired


def fix_parameters(
    file: ParameterFile,
    document: Document,
    settings: LintSettings = LintSettings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
) -> FixResult:
    """Repair the kernel parameters for the image of the guest that ``document`` describes."""

    def findings(data: bytes) -> list[LintFinding]:
        guest = GuestInputs(parameters=ParameterFile(file.name, data.decode()))
        checked = lint_document(document, dataclasses.replace(settings, schema=False, guest=guest))
        return [finding for finding in checked.findings if finding.file == file.name]

    before = file.text.encode()
    after, repaired = _in_rounds(before, findings, unsafe=unsafe)
    return FixResult(before, after, tuple(repaired))


def _line(finding: LintFinding) -> str:
    left = finding.becomes if not finding.becomes or finding.becomes.startswith("removed") else f"now {finding.becomes}"
    return f"{finding.rule.id} {finding.message}" + (f": {left}" if left else "")


def _in_rounds(
    data: bytes, findings_in: Callable[[bytes], list[LintFinding]], *, unsafe: bool, port: bool = False
) -> tuple[bytes, list[str]]:
    """Apply the changes of the findings until none is left; return the text and one line for each repair."""
    repaired: list[str] = []
    found = findings_in(data)
    for _ in range(MAX_ROUNDS):
        wanted = [finding for finding in found if _applicable(finding, unsafe=unsafe, port=port)]
        data, applied = apply(data, (finding.change for finding in wanted))
        if not applied:
            break
        found = findings_in(data)
        remaining = {(finding.rule.id, finding.message) for finding in found}
        lines = dict.fromkeys(_line(f) for f in wanted if (f.rule.id, f.message) not in remaining)
        repaired += [line for line in lines if line not in repaired]
    return data, repaired


def unified_diff(result: FixResult, name: str) -> bytes:
    """The difference in the format of ``diff -u``; empty if nothing was repaired."""
    before = result.before.splitlines(keepends=True)
    after = result.after.splitlines(keepends=True)
    file = name.lstrip("/").encode()
    lines = difflib.diff_bytes(difflib.unified_diff, before, after, b"a/" + file, b"b/" + file)
    text = b""
    for line in lines:
        text += line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
    return text
