"""Changes to domain XML as replacements of source text, so that everything else stays as it is, byte for byte.

Every function returns the edits of one change; nothing is re-serialised. New elements take the indentation, line ends
and quote character of the text around them.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from zseal.domain.document import Document, Element

_LINE_REST = re.compile(rb"[ \t]*(?:<!--(?:(?!-->)[^\n])*-->)?[ \t]*(?=\r?\n)")


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replace the bytes ``start`` to ``end`` with ``text``; an insertion if both are equal."""

    start: int
    end: int
    text: bytes


class Change(tuple[Edit, ...]):
    """Edits that belong together: applied as a whole or not at all."""

    __slots__ = ()


class _Taken:
    """The edits to apply, in the order of their places."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []

    def touches(self, edit: Edit) -> bool:
        """Whether the edit begins at the start of another one, or overlaps one."""
        place = bisect.bisect_left(self.edits, edit.start, key=lambda edit: edit.start)
        if place and self.edits[place - 1].end > edit.start:
            return True
        return place < len(self.edits) and (self.edits[place].start == edit.start or self.edits[place].start < edit.end)

    def add(self, change: Change) -> None:
        """Add a change; several insertions at one place keep their order."""
        for edit in change:
            bisect.insort_right(self.edits, edit, key=lambda edit: (edit.start, edit.end))


def apply(data: bytes, changes: Iterable[Change]) -> tuple[bytes, int]:
    """Apply the ``changes`` that do not touch an earlier one; return the text and their number.

    A change that repeats an applied one is dropped; one that overlaps it is left for another round.
    """
    taken = _Taken()
    done: set[Change] = set()
    for change in changes:
        if not change or change in done:
            continue
        if not any(taken.touches(edit) for edit in change):
            taken.add(change)
            done.add(change)
    pieces = []
    offset = 0
    for edit in taken.edits:
        pieces += [data[offset : edit.start], edit.text]
        offset = edit.end
    return b"".join([*pieces, data[offset:]]), len(done)


def _quoted(value: str, quote: str) -> str:
    return quote + escape(value, {quote: "&quot;" if quote == '"' else "&apos;"}) + quote


def set_attributes(element: Element, **values: str) -> Change:
    """Set attributes of the element: existing ones keep their place and quotes, new ones come last, in order."""
    spans = element.attribute_spans()
    quote = next((span.quote for span in spans.values()), "'")
    edits = []
    added = ""
    for name, value in values.items():
        if name in spans:
            span = spans[name]
            edits.append(Edit(span.value_start - 1, span.end, _quoted(value, span.quote).encode()))
        else:
            added += f" {name}={_quoted(value, quote)}"
    if added:
        tag_end = element.start + 1 + len(element.name.encode())
        place = max((span.end for span in spans.values()), default=tag_end)
        edits.append(Edit(place, place, added.encode()))
    return Change(edits)


def remove_attributes(element: Element, *names: str) -> Change:
    """Remove the attributes ``names`` with the blanks before them; those that do not exist are ignored."""
    spans = element.attribute_spans()
    return Change(Edit(spans[name].start, spans[name].end, b"") for name in names if name in spans)


def set_text(element: Element, text: str) -> Change:
    """Replace the content of an element that holds text only."""
    new = escape(text).encode()
    if element.empty_tag:
        start = _empty_mark(element)
        return Change([Edit(start, element.end, b">" + new + f"</{element.name}>".encode())])
    return Change([Edit(element.open_end, element.close, new)])


def _empty_mark(element: Element) -> int:
    """The offset of the ``/>`` of an empty-element tag, including the blanks before it."""
    end = element.open_end - 2
    return element.start + len(element.data[element.start : end].rstrip())


def indentation(element: Element) -> str | None:
    """The blanks before the element if it is the first thing on its line, otherwise None."""
    line_start = element.data.rfind(b"\n", 0, element.start) + 1
    blanks = element.data[line_start : element.start]
    return blanks.decode() if not blanks.strip() and (line_start or not blanks) else None


def _laid_out(fragment: str, indent: str, document: Document) -> str:
    """The fragment, written with two blanks a level, in the document's indentation."""
    lines = []
    for line in fragment.strip("\n").split("\n"):
        body = line.lstrip(" ")
        lines.append(indent + document.indent_unit * ((len(line) - len(body)) // 2) + body)
    return document.newline.join(lines)


def insert_child(
    document: Document, parent: Element, fragment: str, *, after: Element | None = None, first: bool = False
) -> Change:
    """Insert the XML ``fragment`` (levels of two blanks, no outer indentation) into ``parent``.

    It becomes the child after ``after``, the first child with ``first``, otherwise the last child.
    """
    newline = document.newline
    if parent.children and not first:
        sibling = after or parent.children[-1]
        indent = indentation(sibling)
        if indent is None:
            return Change([Edit(sibling.end, sibling.end, _laid_out(fragment, "", document).encode())])
        rest = _LINE_REST.match(document.data, sibling.end)
        place = rest.end() if rest else sibling.end
        text = newline + _laid_out(fragment, indent, document)
        return Change([Edit(place, place, text.encode())])
    outer = indentation(parent)
    inner = indentation(parent.children[0]) if parent.children else (outer or "") + document.indent_unit
    if outer is None or inner is None:
        text = _laid_out(fragment, "", document)
    else:
        text = newline + _laid_out(fragment, inner, document)
    if parent.empty_tag:
        tail = f"{newline}{outer}" if outer is not None else ""
        return Change([Edit(_empty_mark(parent), parent.open_end, f">{text}{tail}</{parent.name}>".encode())])
    if not parent.children and outer is not None and not document.data[parent.open_end : parent.close].strip():
        return Change([Edit(parent.open_end, parent.close, f"{text}{newline}{outer}".encode())])
    return Change([Edit(parent.open_end, parent.open_end, text.encode())])


def _lonely(element: Element) -> bool:
    """Whether the parent contains nothing else: no other element, text or comment."""
    parent = element.parent
    if parent is None or len(parent.children) > 1:
        return False
    data = element.data
    return not (data[parent.open_end : element.start] + data[element.end : parent.close]).strip()


def remove_element(element: Element, *, collapse: bool = True) -> Change:
    """Remove the element with its line; a parent that is empty then becomes an empty-element tag."""
    parent = element.parent
    if collapse and parent is not None and parent.parent is not None and _lonely(element):
        start = parent.open_end - 1
        return Change([Edit(start, parent.end, b"/>")])
    data = element.data
    start, end = element.start, element.end
    line_start = data.rfind(b"\n", 0, start) + 1
    rest = re.compile(rb"[ \t]*\r?\n").match(data, end)
    if not data[line_start:start].strip() and rest:
        start, end = line_start, rest.end()
    return Change([Edit(start, end, b"")])


def remove_elements(elements: Sequence[Element]) -> Change:
    """Remove several elements, none of them inside another."""
    return Change(edit for element in elements for edit in remove_element(element, collapse=False))


def replace_element(document: Document, element: Element, fragment: str) -> Change:
    """Replace the element with the XML ``fragment``."""
    indent = indentation(element) or ""
    text = _laid_out(fragment, indent, document)[len(indent) :]
    return Change([Edit(element.start, element.end, text.encode())])


def unwrap_to_start(element: Element) -> Change:
    """Drop the element's content: ``<x a='b'>…</x>`` becomes ``<x a='b'/>``."""
    if element.empty_tag:
        return Change()
    return Change([Edit(element.open_end - 1, element.end, b"/>")])
