"""Domain XML as a tree that knows the position of everything in the source text.

The reader uses expat and treats its input as hostile: it refuses document type declarations (and with them entities and
anything external) and limits size, nesting and the number of elements. Offsets are bytes in the UTF-8 form of the text.
Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import bisect
import codecs
import collections
import dataclasses
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from xml.parsers import expat

from zseal.errors import FormatError, InputError
from zseal.files import named_path, read_limited

MAX_SIZE = 16 * 1024 * 1024
"""Largest document read, in bytes; libvirt's own largest domains have some hundred KiB."""
MAX_DEPTH = 100
"""Deepest nesting; the deepest element of libvirt's schema is at level 12."""
MAX_ELEMENTS = 20_000
"""Most elements and comments; a domain with every device libvirt allows has some thousand."""
MAX_ATTRIBUTES = 100
"""Most attributes of one element; libvirt's schema has 30 at most."""

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
"""The namespace of ``qemu:commandline``; its elements carry the tag ``{namespace}name``."""

_START_TAG = re.compile(rb"""<[^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")
_DECLARED_ENCODING = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ENCODINGS = {"utf-8", "ascii", "iso8859-1", "utf-16", "utf-8-sig"}


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """A place in a text: line and column from 1, the column in characters."""

    line: int
    column: int


@dataclasses.dataclass(frozen=True)
class AttributeSpan:
    """The place of an attribute: ``start`` includes the blanks before it, ``value_start`` is inside its quotes."""

    start: int
    end: int
    value_start: int
    quote: str


class Element:
    """One element with its attributes, children and offsets. ``tag`` is the plain name, or ``{namespace}name``."""

    __slots__ = (
        "_place",
        "_steps",
        "attributes",
        "children",
        "close",
        "data",
        "name",
        "parent",
        "start",
        "tag",
        "text",
    )

    def __init__(
        self, data: bytes, name: str, tag: str, attributes: dict[str, str], parent: Element | None, start: int
    ) -> None:
        self.data = data
        self.name = name
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.children: list[Element] = []
        self._place = len(parent.children) if parent is not None else 0
        self._steps: list[str] | None = None
        self.text = ""
        self.start = start
        self.close = start  # the end as expat reports it: the end tag's "<", or after the ">" of an empty-element tag

    def get(self, name: str, default: str = "") -> str:
        """Return the value of attribute ``name``, or ``default``."""
        return self.attributes.get(name, default)

    def find(self, *path: str) -> Element | None:
        """Return the first element down the ``path`` of child tags, or None."""
        element: Element | None = self
        for tag in path:
            element = next((child for child in element.children if child.tag == tag), None) if element else None
        return element

    def all(self, *tags: str) -> Iterator[Element]:
        """Yield the children with one of ``tags``, in document order."""
        return (child for child in self.children if child.tag in tags)

    def walk(self) -> Iterator[Element]:
        """Yield this element and everything below it, in document order."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack.extend(reversed(element.children))

    @property
    def value(self) -> str:
        """The element's own text without surrounding blanks."""
        return self.text.strip()

    @property
    def open_end(self) -> int:
        """The offset after the ``>`` of the start tag."""
        match = _START_TAG.match(self.data, self.start)
        if match is None:  # expat accepted the tag, so it has an end
            raise FormatError(f"no end of the start tag of {self.name}")
        return match.end()

    @property
    def empty_tag(self) -> bool:
        """Whether the element is one tag, ``<x/>``."""
        return self.data[self.open_end - 2 : self.open_end] == b"/>"

    @property
    def end(self) -> int:
        """The offset after the whole element."""
        return self.open_end if self.empty_tag else self.data.index(b">", self.close) + 1

    def attribute_spans(self) -> dict[str, AttributeSpan]:
        """Return the place of each attribute, in order."""
        spans = {}
        offset = self.start + 1 + len(self.name.encode())
        while match := _ATTRIBUTE.match(self.data, offset):
            spans[match[1].decode()] = AttributeSpan(match.start(), match.end(), match.start(2) + 1, chr(match[2][0]))
            offset = match.end()
        return spans

    @property
    def path(self) -> str:
        """An XPath of the element, such as ``/domain/devices/disk[2]``; with a position only if there are several."""
        parts: list[str] = []
        element = self
        while element.parent is not None:
            parts.append(element.parent.steps[element._place])
            element = element.parent
        return "/" + "/".join(reversed([*parts, element.name]))

    @property
    def steps(self) -> list[str]:
        """The XPath step to each child, in order; computed once, because a document can have thousands."""
        if self._steps is None:
            totals = collections.Counter(child.name for child in self.children)
            seen: collections.Counter[str] = collections.Counter()
            self._steps = []
            for child in self.children:
                seen[child.name] += 1
                self._steps.append(f"{child.name}[{seen[child.name]}]" if totals[child.name] > 1 else child.name)
        return self._steps


class NotWellFormedError(FormatError):
    """XML that does not parse: expat's reason, the place, and the elements open there (outermost first)."""

    def __init__(self, reason: str, offset: int, open_elements: tuple[Element, ...]) -> None:
        super().__init__(f"the XML is not well-formed: {reason}")
        self.reason = reason
        self.offset = offset
        self.open_elements = open_elements


class LineIndex:
    """Turns byte offsets of a UTF-8 text into positions; fast for ascending offsets."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", data))]
        self._ascii = data.isascii()
        self._known = (0, 0)
        """An offset and its column from 0: a line can be as long as the text."""

    def position(self, offset: int) -> Position:
        """Return the line and column of the byte ``offset``."""
        line = bisect.bisect_right(self._starts, offset) - 1
        start = self._starts[line]
        if self._ascii:
            return Position(line + 1, offset - start + 1)
        known, column = self._known
        if not start <= known <= offset:
            known, column = start, 0
        column += len(self._data[known:offset].decode("utf-8", "replace"))
        self._known = (offset, column)
        return Position(line + 1, column + 1)


class Document:
    """A parsed domain XML: its name for messages, its UTF-8 text and its root element.

    Raises NotWellFormedError, and FormatError for hostile XML.
    """

    def __init__(self, name: str, data: bytes, encoding: str = "utf-8") -> None:
        self.name = name
        self.data = data
        self.encoding = encoding
        reader = _Reader(data)
        try:
            self.root = reader.run()
        except NotWellFormedError as error:
            position = self.position(error.offset)
            error.where = f"{name}:{position.line}:{position.column}"
            error.hint = "`fix_domain()` repairs common mistakes"
            raise
        except FormatError as error:
            error.where = name
            raise
        self.comments = tuple(reader.comments)
        """The texts of the document's comments."""

    @cached_property
    def lines(self) -> LineIndex:
        """The line index of the text."""
        return LineIndex(self.data)

    def position(self, offset: int) -> Position:
        """Return the line and column of a byte offset."""
        return self.lines.position(offset)

    @cached_property
    def newline(self) -> str:
        """The line ends of the text."""
        return "\r\n" if b"\r\n" in self.data else "\n"

    @cached_property
    def indent_unit(self) -> str:
        """The indentation of one level, taken from the root's first child; two blanks by default."""
        for child in self.root.children:
            line_start = self.data.rfind(b"\n", 0, child.start) + 1
            blanks = self.data[line_start : child.start]
            if line_start and blanks and not blanks.strip():
                return blanks.decode()
        return "  "


def decode(name: str, raw: bytes) -> tuple[bytes, str]:
    """Return ``raw`` as UTF-8 without byte order mark, and its encoding, for writing it back.

    Raises InputError if it is larger than MAX_SIZE or not text in an encoding that domain XML uses.
    """
    if len(raw) > MAX_SIZE:
        raise InputError(f"too large for a domain XML: more than {MAX_SIZE} bytes", where=name)
    encoding = next((encoding for bom, encoding in _BOMS if raw.startswith(bom)), None)
    if encoding is None:
        declared = _DECLARED_ENCODING.match(raw)
        label = declared[1].decode() if declared else "utf-8"
        try:
            encoding = codecs.lookup(label).name
        except LookupError:
            encoding = label
    if encoding not in _ENCODINGS:
        raise InputError(f"the XML is in the encoding {encoding!r}", where=name, hint="save it as UTF-8")
    try:
        text = raw.decode(encoding)
    except UnicodeError as error:
        raise InputError(f"the file is not {encoding} text", where=name, hint="save it as UTF-8") from error
    return text.encode(), encoding


def encode(data: bytes, encoding: str) -> bytes:
    """Return UTF-8 ``data`` in the ``encoding`` that :func:`decode` reported."""
    return data if encoding in ("utf-8", "ascii") else data.decode().encode(encoding, "xmlcharrefreplace")


def read_document_bytes(path: Path) -> bytes:
    """Return the raw content of the domain XML file ``path``; raises InputError as :func:`read_limited` does.

    Only regular files and pipes are read, because a device may never end.
    """
    if path.exists() and not (path.is_file() or path.is_fifo()):
        raise InputError("not a file", where=str(path))
    return read_limited(path, MAX_SIZE, "domain XML")


DomainSource = str | os.PathLike[str] | bytes
"""A domain XML: the path of its file, or its content."""


def read_source(source: DomainSource) -> tuple[str, bytes]:
    """Return a name for messages and the raw content of ``source``; raises InputError if its file cannot be read."""
    if isinstance(source, bytes):
        return "<bytes>", source
    return os.fspath(source), read_document_bytes(named_path(source))


def load_document(source: DomainSource) -> Document:
    """Return the parsed ``source``; raises InputError, NotWellFormedError or FormatError."""
    name, raw = read_source(source)
    return Document(name, *decode(name, raw))


class _Reader:
    """The expat handlers that build the tree."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._finish
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.CommentHandler = self._comment
        self.comments: list[str] = []
        self.stack: list[Element] = []
        self.texts: list[list[str]] = []
        self.root: Element | None = None
        self.count = 0

    def _comment(self, text: str) -> None:
        self._count()
        self.comments.append(text)

    def _count(self) -> None:
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise FormatError(f"the XML has more than {MAX_ELEMENTS:,} elements and comments, more than any domain has")

    def _doctype(self, *_: object) -> None:
        raise FormatError(
            "the XML has a document type declaration, which only hostile domain XML needs",
            hint="remove the <!DOCTYPE …> part",
        )

    def _tag(self, name: str, attributes: dict[str, str]) -> str:
        prefix, colon, local = name.rpartition(":")
        key = f"xmlns:{prefix}" if colon else "xmlns"
        uri = attributes.get(key)
        for element in reversed(self.stack):
            if uri is not None:
                break
            uri = element.attributes.get(key)
        if colon and not uri:
            raise NotWellFormedError(
                f"the prefix {prefix!r} is used without its xmlns:{prefix} declaration",
                self.parser.CurrentByteIndex,
                tuple(self.stack),
            )
        return f"{{{uri}}}{local}" if uri else name

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count()
        if len(self.stack) >= MAX_DEPTH:
            raise FormatError(f"the XML is nested deeper than {MAX_DEPTH} elements, deeper than any domain")
        if len(attributes) > MAX_ATTRIBUTES:
            raise FormatError(
                f"an element of the XML has more than {MAX_ATTRIBUTES} attributes, more than any element of a domain"
            )
        parent = self.stack[-1] if self.stack else None
        tag = name if ":" not in name and "xmlns" not in attributes and self._plain else self._tag(name, attributes)
        element = Element(self.data, name, tag, attributes, parent, self.parser.CurrentByteIndex)
        if parent is None:
            self.root = element
        else:
            parent.children.append(element)
        self.stack.append(element)
        self.texts.append([])

    @property
    def _plain(self) -> bool:
        return self.root is None or "xmlns" not in self.root.attributes

    def _finish(self, _name: str) -> None:
        element = self.stack.pop()
        element.close = self.parser.CurrentByteIndex
        element.text = "".join(self.texts.pop())

    def _text(self, text: str) -> None:
        if self.texts:
            self.texts[-1].append(text)

    def run(self) -> Element:
        try:
            self.parser.Parse(self.data, True)
        except expat.ExpatError as error:
            offset = max(self.parser.ErrorByteIndex, 0)
            raise NotWellFormedError(expat.ErrorString(error.code), offset, tuple(self.stack)) from None
        if self.root is None:  # expat reports an empty document itself
            raise NotWellFormedError("no element found", 0, ())
        return self.root
