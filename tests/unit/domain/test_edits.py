"""Edits change what they name and nothing else: comments, quotes, order, blanks and line ends survive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zseal.domain.document import Document, Element
from zseal.domain.edits import (
    Change,
    Edit,
    apply,
    insert_child,
    remove_attributes,
    remove_element,
    replace_element,
    set_attributes,
    set_text,
)
from zseal.domain.fix import fix_bytes, unified_diff


def _edit(text: str, path: tuple[str, ...], change: Callable[[Document, Element], Change]) -> str:
    document = Document("x", text.encode())
    element = document.root.find(*path)
    assert element is not None
    return apply(document.data, [change(document, element)])[0].decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a><b/></a>", "<a><b x='1'/></a>"),
        ("<a><b /></a>", "<a><b x='1' /></a>"),
        ('<a><b y="2" z = "3"></b></a>', '<a><b y="2" z = "3" x="1"></b></a>'),
        ("<a><b x='0' y='2'/></a>", "<a><b x='1' y='2'/></a>"),
        ('<a><b\n   x="0"/></a>', '<a><b\n   x="1"/></a>'),
    ],
)
def test_an_attribute_is_set_in_its_place_and_style(text: str, expected: str) -> None:
    assert _edit(text, ("b",), lambda _, b: set_attributes(b, x="1")) == expected


def test_values_are_escaped_for_their_quotes() -> None:
    assert _edit("<a><b x='0'/></a>", ("b",), lambda _, b: set_attributes(b, x="<&'\"")) == (
        "<a><b x='&lt;&amp;&apos;\"'/></a>"
    )
    assert _edit("<a><b>x</b></a>", ("b",), lambda _, b: set_text(b, "<&")) == "<a><b>&lt;&amp;</b></a>"
    assert _edit("<a><b/></a>", ("b",), lambda _, b: set_text(b, "t")) == "<a><b>t</b></a>"


def test_attributes_go_with_the_blanks_before_them() -> None:
    assert _edit("<a><b x='1'\n  y='2' z='3'/></a>", ("b",), lambda _, b: remove_attributes(b, "y", "no")) == (
        "<a><b x='1' z='3'/></a>"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a>\n\t<b/>\n</a>", "<a>\n\t<b>\n\t\t<c/>\n\t</b>\n</a>"),
        ("<a>\n  <b>\n  </b>\n</a>", "<a>\n  <b>\n    <c/>\n  </b>\n</a>"),
        ("<a>\n  <b></b>\n</a>", "<a>\n  <b>\n    <c/>\n  </b>\n</a>"),
        ("<a>\n  <b>\n    <d/> <!-- d -->\n  </b>\n</a>", "<a>\n  <b>\n    <d/> <!-- d -->\n    <c/>\n  </b>\n</a>"),
        ("<a>\r\n  <b>\r\n    <d/>\r\n  </b>\r\n</a>", "<a>\r\n  <b>\r\n    <d/>\r\n    <c/>\r\n  </b>\r\n</a>"),
        ("<a><b><d/></b></a>", "<a><b><d/><c/></b></a>"),
        ("<a><b/></a>", "<a><b><c/></b></a>"),
    ],
)  # fmt: skip
def test_a_child_is_inserted_in_the_layout_around_it(text: str, expected: str) -> None:
    assert _edit(text, ("b",), lambda document, b: insert_child(document, b, "<c/>")) == expected


def test_several_lines_take_the_documents_indentation() -> None:
    text = "<a>\n    <b/>\n</a>"
    assert _edit(text, (), lambda document, a: insert_child(document, a, "<c>\n  <d/>\n</c>")) == (
        "<a>\n    <b/>\n    <c>\n        <d/>\n    </c>\n</a>"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a>\n  <b/>\n  <c/>\n</a>", "<a>\n  <c/>\n</a>"),
        ("<a>\n  <b/> <!-- kept -->\n</a>", "<a>\n   <!-- kept -->\n</a>"),
        ("<a><b/><c/></a>", "<a><c/></a>"),
        ("<a>\n  <b>\n    text\n  </b>\n</a>\n", "<a>\n</a>\n"),
    ],
)
def test_an_element_goes_with_its_line(text: str, expected: str) -> None:
    assert _edit(text, ("b",), lambda _, b: remove_element(b)) == expected


def test_a_parent_that_only_held_the_element_becomes_an_empty_tag_unless_it_holds_a_comment() -> None:
    assert _edit("<a>\n  <b x='1'>\n    <c/>\n  </b>\n</a>", ("b", "c"), lambda _, c: remove_element(c)) == (
        "<a>\n  <b x='1'/>\n</a>"
    )
    assert _edit("<a>\n  <b>\n    <!-- k -->\n    <c/>\n  </b>\n</a>", ("b", "c"), lambda _, c: remove_element(c)) == (
        "<a>\n  <b>\n    <!-- k -->\n  </b>\n</a>"
    )


def test_an_element_is_replaced_in_its_place() -> None:
    text = "<a>\n  <b>\n    <c/>\n  </b> <!-- k -->\n</a>"
    assert _edit(text, ("b",), lambda document, b: replace_element(document, b, "<d>\n  <e/>\n</d>")) == (
        "<a>\n  <d>\n    <e/>\n  </d> <!-- k -->\n</a>"
    )


def test_changes_that_touch_each_other_wait_for_another_round() -> None:
    first, same = Change([Edit(1, 2, b"x")]), Change([Edit(1, 2, b"x")])
    overlapping, apart = Change([Edit(0, 3, b"")]), Change([Edit(3, 3, b"y"), Edit(3, 3, b"z")])
    assert apply(b"abcd", [first, same, overlapping, apart]) == (b"axcyzd", 2)


def test_the_difference_shows_what_a_repair_changes_and_only_that() -> None:
    raw = (
        b"<?xml version='1.0'?>\r\n<!-- top -->\r\n"
        b"<domain  id=\"3\"   type='kvm' ><!-- odd   blanks -->\r\n"
        b"  <name>g</name>\r\n  <memory>4194304</memory>\r\n  <vcpu>1</vcpu>\r\n"
        b"  <os><type machine='s390-ccw-virtio' arch=\"s390x\">hvm</type></os>\r\n  <cpu mode='host-model'/>\r\n"
        b"  <devices><!-- disks -->\r\n    <disk device='disk' type='file'>\r\n      <target  dev='vda'/>\r\n"
        b"      <source file='/a'/>\r\n    </disk>\r\n    <memballoon model='virtio'/>\r\n  </devices>\r\n"
        b"  <launchSecurity type='s390-pv'/></domain>"
    )
    result = fix_bytes("g.xml", raw)
    assert result.after == raw.replace(b"model='virtio'", b"model='none'")
    diff = unified_diff(result, "g.xml").decode()
    changed = [line for line in diff.splitlines() if line.startswith(("+ ", "- "))]
    assert changed == ["-    <memballoon model='virtio'/>", "+    <memballoon model='none'/>"]
    assert diff.startswith("--- a/g.xml\n+++ b/g.xml\n")
