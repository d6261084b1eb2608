"""The slips of hand-written XML are named at their place and repaired; what is unclear is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.domain.samples import GOOD, read
from zseal.domain.document import Document, NotWellFormedError, decode
from zseal.domain.fix import fix_bytes
from zseal.domain.lint import LintSettings, lint_bytes
from zseal.domain.repair import Repaired, repair
from zseal.errors import FormatError, InputError


def _repair(text: str) -> Repaired:
    data = text.encode()
    try:
        Document("x", data)
    except NotWellFormedError as error:
        return repair("x", data, error)
    raise AssertionError("well-formed")


GOOD_TEXT = """<domain type='kvm'>
  <name>a</name>
  <devices>
    <disk type='file'>
      <driver name='qemu'/>
      <target dev='vda'/>
    </disk>
    <console type='pty'/>
  </devices>
</domain>
"""


@pytest.mark.parametrize(
    ("wrong", "right", "place", "message"),
    [
        ("<driver name='qemu'>\n", "<driver name='qemu'/>\n", (5, 7), "<driver> of line 5 is not closed"),
        ("    </disk>\n    <console", None, (4, 5), ""),
        ("<name>a\n", "<name>a</name>\n", (2, 3), "<name> of line 2 is not closed"),
        ("<driver name=qemu/>", "<driver name='qemu'/>", (5, 15), "needs quotes"),
        ("<driver name=“qemu”/>", "<driver name='qemu'/>", (5, 15), "typographic quotes"),
        ("<driver name=‘qemu’/>", "<driver name='qemu'/>", (5, 15), "typographic quotes"),
        ("<driver name='qemu'type='raw'/>", "<driver name='qemu' type='raw'/>", (5, 26), "blank is missing"),
        ("<driver name='qemu'\n      <target", "<driver name='qemu'/>\n      <target", (5, 7), "is not finished"),
        ("<name>a&b</name>", "<name>a&amp;b</name>", (2, 10), "bare '&'"),
        ("<name>a &b; c</name>", "<name>a &amp;b; c</name>", (2, 11), "bare '&'"),
        ("< name>a</name>", "<name>a</name>", (2, 3), "blank after '<'"),
        ("</Disk>", "</disk>", (7, 5), "</Disk> should be </disk>"),
        ("<driver name='qemu'/></driver>", "<driver name='qemu'/>", (5, 28), "already closed"),
        ("<driver name='qemu' name='qemu'/>", "<driver name='qemu'/>", (5, 27), "is repeated"),
    ],
)
def test_a_slip_is_repaired_and_found_at_its_place(
    wrong: str, right: str | None, place: tuple[int, int], message: str
) -> None:
    if right is None:  # a missing end tag
        text = GOOD_TEXT.replace("    </disk>\n", "")
        expected = GOOD_TEXT
    else:
        old = {"d": "<driver name='qemu'/>", "n": "<name>a</name>", "D": "</disk>"}[wrong.lstrip("</ ")[0]]
        old += "\n      <target" if wrong.endswith("<target") else "\n" if wrong.endswith("\n") else ""
        text, expected = GOOD_TEXT.replace(old, wrong, 1), GOOD_TEXT.replace(old, right, 1)
    result = _repair(text)
    assert result.complete
    assert result.data.decode() == expected
    first = result.diagnoses[0]
    assert (first.position.line, first.position.column) == place
    assert message in first.message


def test_several_slips_are_repaired_one_after_the_other() -> None:
    text = GOOD_TEXT.replace("<driver name='qemu'/>", "<driver name=qemu>").replace("<name>a<", "<name>a & b<")
    result = _repair(text)
    assert result.complete
    assert len(result.diagnoses) == 3
    Document("x", result.data)


def test_blanks_before_the_declaration_and_a_missing_last_tag() -> None:
    result = _repair("\n <?xml version='1.0'?>\n" + GOOD_TEXT.replace("</domain>\n", ""))
    assert result.complete
    assert result.data.startswith(b"<?xml")
    assert result.data.rstrip().endswith(b"</domain>")


def test_the_qemu_namespace_is_declared_where_it_was_forgotten() -> None:
    text = GOOD_TEXT.replace("</domain>", "  <qemu:commandline/>\n</domain>")
    result = _repair(text)
    assert result.complete
    assert b"<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>" in result.data


@pytest.mark.parametrize(
    "text",
    ["", "just text", "<domain", "<domain><!-- never closed", "<domain a='1>", "<a/><b/>", "<domain><x></y></domain>"],
)
def test_what_is_unclear_is_diagnosed_and_not_guessed(text: str) -> None:
    report = lint_bytes("x", text.encode())
    assert [finding.rule.id for finding in report.findings][:1] == ["PV001"]
    with pytest.raises(InputError, match="not well-formed"):
        fix_bytes("x", text.encode())


def test_findings_after_a_repair_are_placed_in_the_text_as_it_is() -> None:
    raw = read("bad-PV303-hugepages.xml").replace(b"<vcpu", b"<title>a&b&c</title> <vcpu")
    report = lint_bytes("x", raw, LintSettings(local_files=False))
    lines = raw.decode().split("\n")
    for finding in report.findings:
        if finding.rule.id == "PV303":
            assert lines[finding.position.line - 1][finding.position.column - 1 :].startswith("<hugepages>")
            break
    else:
        raise AssertionError("PV303 not found")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.integers(0, 3000),
    st.integers(0, 30),
    st.sampled_from(["", "<", ">", "'", "&", "</", "/"]),
)
def test_no_damage_makes_lint_or_fix_fail_otherwise_than_with_one_line(
    sample: object, start: int, length: int, inserted: str
) -> None:
    raw = sample.raw  # type: ignore[attr-defined]  # a Sample
    damaged = raw[:start] + inserted.encode() + raw[start + length :]
    lint_bytes("x", damaged, LintSettings(local_files=False))
    try:
        fixed = fix_bytes("x", damaged)
    except FormatError:
        return
    except InputError as error:
        assert "\n" not in str(error)
        return
    data, encoding = decode("x", fixed.after)
    Document("x", data, encoding)
