"""One word for each thing and plain English in what people read: pages, help, messages, docstrings, comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.unit.docs.prose import prose

SOURCES = REPOSITORY / "src" / "zseal"
DOCS = REPOSITORY / "docs"
PAGES = [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")]
GENERATED = {DOCS / "api.md", DOCS / "ultravisor" / "reference.md", *(DOCS / "domains" / "rules").glob("*.md")}
WRITTEN = [page for page in PAGES if page not in GENERATED]
PACKAGES = {path.parent.name: [*path.parent.rglob("*.py")] for path in SOURCES.glob("*/__init__.py")}
AREAS = {
    "pages": PAGES,
    "zseal": [*SOURCES.glob("*.py")],
    **PACKAGES,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A pattern that good prose does not have, what to write instead, and a sentence of either kind."""

    pattern: str
    instead: str
    wrong: str
    right: str

    def find(self, text: str) -> list[str]:
        return [match[0] for match in re.finditer(self.pattern, text)]


VOCABULARY = (
    Rule(
        pattern=r"(?i)\bboot[ -]loader",
        instead="bootloader",
        wrong="zseal's boot loader",
        right="zseal's bootloader",
    ),
    Rule(
        pattern=r"\b[Hh]ost[ -]key document(?<!ost-key document)",
        instead="host-key document",
        wrong="a host key document",
        right="a host-key document has the host key",
    ),
    Rule(
        pattern=r"(?i)\bfolders?\b",
        instead="directory",
        wrong="the folder with the images",
        right="the directory with the images",
    ),
    Rule(
        pattern=r"(?i)\b(?:can|do|does|did|is|are|was|were|has|have|had|wo|could|would|should|must|need)n?['’]t\b",
        instead="cannot, does not, …",
        wrong="it can't start",
        right="it cannot start",
    ),
    Rule(
        pattern=r"(?i)\bkernel(?:'s)? (?:command line|arguments?)\b|\bboot parameters?\b|\bparameter files?\b",
        instead="kernel parameters (parmfile for the file)",
        wrong="with quiet in the kernel command line",
        right="with quiet in the kernel parameters; the parmfile",
    ),
    Rule(
        pattern=r"(?i)\bpage (?:status|condition)\b|\bstatus of (?:a|the|each|every) pages?\b",
        instead="page state",
        wrong="the status of each page",
        right="the page state",
    ),
    Rule(
        pattern=r"(?i)\bUV[- ]calls?\b",
        instead="ultravisor call",
        wrong="each UV call",
        right="each ultravisor call",
    ),
    Rule(
        pattern=r"(?i)\bhost's view\b",
        instead="host view, what the host sees",
        wrong="the host's view of memory",
        right="the host view of memory",
    ),
    Rule(
        pattern=r"(?i)\bstandard (?:input|output|error)s?\b",
        instead="stdin, stdout, stderr",
        wrong="it goes to standard error",
        right="it goes to stderr",
    ),
)

ENGLISH = (
    Rule(
        pattern=r"(?i)\b(?:nobody|somebody|no one|someone|anybody|everybody)\b",
        instead="name the actor",
        wrong="nobody looks",
        right="zseal does not look; anyone may read it",
    ),
    Rule(pattern=r"(?i)\banew\b", instead="again", wrong="sealed anew", right="sealed again"),
    Rule(
        pattern=r"(?i)\b(?:tell|tells|told|telling)\b",
        instead="report, print, show, name",
        wrong="the guest is told",
        right="the guest is notified",
    ),
    Rule(
        pattern=r"(?i)\b(?:so|this|that) (?:many|long|much)\b(?! as\b)(?<=so many|so long|so much)",
        instead="this many, the number of …",
        wrong="after so many seconds",
        right="after this many seconds; so it takes long",
    ),
    Rule(
        pattern=r"(?i)\b(?:leav|left)\w*(?: \S+){0,3} away\b",
        instead="remove, omit",
        wrong="leave IMAGE away",
        right="remove IMAGE",
    ),
    Rule(pattern=r"(?i)\bat once\b", instead="immediately, together", wrong="refused at once", right="once refused"),
    Rule(
        pattern=r"(?i)(?<!left )(?<!leave )(?<!leaves )(?<!leaving )(?<!nothing )\bbehind\b",
        instead="after, beyond, with",
        wrong="options behind --",
        right="options after --; nothing is left behind; it leaves nothing behind",
    ),
    Rule(
        pattern=r"\bWhat (?:follows|goes|comes|is left)\b",
        instead="name the thing",
        wrong="What follows -- goes to QEMU.",
        right="Arguments after -- are passed to QEMU.",
    ),
    Rule(
        pattern=r"(?i)\b(?:by|for|to|from|of) who\b|(?:^|[.;:] )Who \w+s\b(?! what)(?![^.]*\?)",
        instead="the caller, whoever",
        wrong="it is killed by who comes next",
        right="the caller kills it; by whoever is first",
    ),
    Rule(
        pattern=r"(?<![Tt]here )\b(?:is|are|was|were) (?:no (?!longer\b|more than\b|less than\b)|none\b)",
        instead="is not a …",
        wrong="a dump is no snapshot",
        right="a dump is not a snapshot; there is no dump; it is no longer there, and size is None",
    ),
    Rule(
        pattern=r"(?i)\b(?:has|have|had) not(?=[,.;:)]|$| (?:a|an|the|any|enough)\b)",
        instead="does not have",
        wrong="functions that protected guests have not",
        right="functions that protected guests do not have; it has not ended",
    ),
    Rule(
        pattern=r"(?i)(?:^|[.;:,] )else (?!if\b)(?!\{)",
        instead="otherwise",
        wrong="a picture, else a line",
        right="a picture, otherwise a line; anything else",
    ),
    Rule(
        pattern=r"(?:^|[.;:] )Where (?!to\b)(?![^.?]*\?)[^.?;:]*, ",
        instead="if …",
        wrong="Where QEMU has no plugin, breakpoints do it.",
        right="If QEMU has no plugin, breakpoints do it. Where code goes",
    ),
    Rule(pattern=r"(?i)\bfor ever\b", instead="forever", wrong="it waits for ever", right="it waits forever"),
    Rule(
        pattern=r"(?i)\bst(?:and(?:s|ing)?|ood) still\b",
        instead="is stopped",
        wrong="the guest stands still",
        right="the guest is stopped",
    ),
    Rule(
        pattern=r"(?i)\bunless (?:said|given|asked) otherwise\b|\bsays otherwise\b",
        instead="by default",
        wrong="30 unless said otherwise",
        right="30 by default",
    ),
    Rule(
        pattern=r"(?i)\bby turns\b|\bone after the other's\b|\bbeside of\b",
        instead="in turn",
        wrong="both run by turns",
        right="both run in turn",
    ),
)
RULES = VOCABULARY + ENGLISH


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.wrong.replace(" ", "-"))
def test_a_rule_finds_the_wrong_sentence_and_not_the_right_one(rule: Rule) -> None:
    assert rule.find(rule.wrong)
    assert not rule.find(rule.right)


@pytest.mark.parametrize("area", AREAS)
def test_the_words_are_those_of_the_vocabulary(area: str) -> None:
    findings = [
        f"{path.relative_to(REPOSITORY)}:{line}: “{found}”, write: {rule.instead}"
        for path in sorted(AREAS[area])
        for line, text in prose(path)
        for rule in RULES
        for found in rule.find(text)
    ]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_prose_is_at_most_120_columns_wide(path: Path) -> None:
    """Tables, code and output may be wider, because they cannot be wrapped; generated pages are not."""
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), path.read_text(), flags=re.S | re.M)
    wide = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > 120 and not line.startswith("|")]
    assert not wide, f"{path.relative_to(REPOSITORY)}, lines {wide}"
