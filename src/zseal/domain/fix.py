"""Apply the repairs that findings carry, in rounds, until nothing is left to apply."""

from __future__ import annotations

import dataclasses
import difflib

from zseal.domain.document import Document, NotWellFormedError, decode, encode
from zseal.domain.edits import apply
from zseal.domain.lint import Finding, Settings, lint_document
from zseal.domain.repair import repair
from zseal.domain.rules.interface import Safety
from zseal.errors import InputError

MAX_ROUNDS = 50
"""More rounds than any document needed; a repair that undoes another's would otherwise never end."""


@dataclasses.dataclass(frozen=True)
class FixResult:
    """The text before and after (in the file's own encoding), and what was repaired, in order."""

    before: bytes
    after: bytes
    repaired: tuple[str, ...]
    """One line for each repair: rule id and message."""

    @property
    def changed(self) -> bool:
        """Whether anything was repaired."""
        return self.before != self.after


def _applicable(finding: Finding, *, unsafe: bool) -> bool:
    allowed = (Safety.SAFE, Safety.ASK) if unsafe else (Safety.SAFE,)
    return finding.fixable and finding.rule.safety in allowed


def fix_bytes(
    name: str,
    raw: bytes,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
) -> FixResult:
    """Repair the domain XML ``raw``: its slips as XML, and all findings with a safe repair.

    With ``unsafe`` also those that change what the guest has or does. Raises InputError for what
    :func:`~zseal.domain.lint.lint_bytes` does, and for XML whose slips are not known ones.
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
    document, done = fix_document(document, settings, unsafe=unsafe)
    return FixResult(raw, _written(raw, document), (*repaired, *done))


def _written(raw: bytes, document: Document) -> bytes:
    bom = document.encoding == "utf-8-sig"
    body = encode(document.data, "utf-8" if bom else document.encoding)
    return raw[:3] + body if bom else body


def fix_document(
    document: Document,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    unsafe: bool = False,
) -> tuple[Document, list[str]]:
    """Repair a parsed domain; return it and one line for each repair."""
    settings = dataclasses.replace(settings, schema=False)
    repaired: list[str] = []
    for _ in range(MAX_ROUNDS):
        findings = [f for f in lint_document(document, settings).findings if _applicable(f, unsafe=unsafe)]
        data, applied = apply(document.data, (finding.change for finding in findings))
        if not applied:
            break
        left = Document(document.name, data, document.encoding)
        remaining = {(f.rule.id, f.message) for f in lint_document(left, settings).findings}
        lines = dict.fromkeys(f"{f.rule.id} {f.message}" for f in findings if (f.rule.id, f.message) not in remaining)
        repaired += [line for line in lines if line not in repaired]
        document = left
    return document, repaired


def unified_diff(result: FixResult, name: str) -> bytes:
    """The difference as ``diff -u`` and ``git diff`` show it; empty where nothing was repaired."""
    before = result.before.splitlines(keepends=True)
    after = result.after.splitlines(keepends=True)
    file = name.lstrip("/").encode()
    lines = difflib.diff_bytes(difflib.unified_diff, before, after, b"a/" + file, b"b/" + file)
    text = b""
    for line in lines:
        text += line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
    return text
