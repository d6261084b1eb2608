"""Explain why XML is not well-formed, and repair the mistakes that are common in hand-written domains.

One mistake is repaired at a time and the text is parsed again, so a document may have several. Unclear mistakes are
reported, not guessed at.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from xml.parsers import expat

from zseal.domain.document import Document, Element, LineIndex, NotWellFormedError, Position
from zseal.domain.edits import Edit

MAX_REPAIRS = 64
MAX_REPAIR_SIZE = 1 << 20
"""Larger documents are only diagnosed, because each repair parses the text again."""

_DEVICES = frozenset({
    "audio", "channel", "console", "controller", "crypto", "disk", "emulator", "filesystem", "graphics",
    "hostdev", "hub", "input", "interface", "iommu", "lease", "memballoon", "nvram", "panic", "parallel",
    "pstore", "redirdev", "redirfilter", "rng", "serial", "shmem", "smartcard", "sound", "tpm", "video",
    "vsock", "watchdog",
})  # fmt: skip
_SECTIONS = frozenset({
    "blkiotune", "bootloader", "clock", "cpu", "cputune", "currentMemory", "description", "devices", "features",
    "genid", "idmap", "iothreadids", "iothreads", "keywrap", "launchSecurity", "maxMemory", "memoryBacking",
    "memtune", "metadata", "numatune", "on_crash", "on_poweroff", "on_reboot", "os", "perf", "pm", "resource",
    "seclabel", "sysinfo", "title", "uuid", "vcpu", "vcpus",
})  # fmt: skip
# elements that are usually empty, and what they may contain
_EMPTY = frozenset({
    "acpi", "address", "alias", "apic", "boot", "cid", "feature", "mac", "page", "readonly", "shareable",
    "topology", "type",
})  # fmt: skip
_SOURCE = frozenset({
    "address", "auth", "config", "cookies", "encryption", "host", "reservations", "seclabel", "slices",
    "snapshot", "ssl",
})  # fmt: skip
_LEAVES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_EMPTY, frozenset[str]()),
    "driver": frozenset({"host", "guest", "metadata_cache", "statistics", "iothreads"}),
    "source": _SOURCE,
    "target": frozenset({"model", "size", "node", "block", "requested", "label"}),
    "model": frozenset({"acceleration", "resolution"}),
}

MAX_ENTITY = 64
_ENTITY = re.compile(rb"&(?:#\d+|#x[0-9A-Fa-f]+|lt|gt|amp|apos|quot);")
_NAME = re.compile(rb"[A-Za-z_][\w:.-]*")
_BAD_QUOTES = "“”„‟‘’‚‛«»"
_UNQUOTED = re.compile(rb"""([\w:.-]+)\s*=\s*(?=[^\s"'<>=])((?:[^\s"'<>/=]|/(?!>))+)""")
_GOOD_ATTRIBUTES = re.compile(rb"""<[A-Za-z_][\w:.-]*(?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*""")


@dataclasses.dataclass(frozen=True)
class XmlMistake:
    """A mistake that keeps the text from being XML: its place in the original text, and the elements open there."""

    message: str
    position: Position
    element: str
    edits: tuple[Edit, ...] = ()
    """The repair, in the text that the repairs before it left; empty if there is none."""


@dataclasses.dataclass(frozen=True)
class Repaired:
    """The text as far as it was repaired; ``complete`` means that it is well-formed now."""

    data: bytes
    diagnoses: tuple[XmlMistake, ...]
    complete: bool
    edits: tuple[Edit, ...]
    source: bytes

    def original(self, position: Position) -> Position:
        """The place in the original text of ``position`` in the repaired text."""
        starts = [0, *(match.end() for match in re.finditer(rb"\n", self.data))]
        start = starts[min(position.line, len(starts)) - 1]
        line = self.data[start:].split(b"\n", 1)[0].decode("utf-8", "replace")
        offset = start + len(line[: position.column - 1].encode())
        return LineIndex(self.source).position(_before(offset, self.edits))


def _before(offset: int, edits: tuple[Edit, ...] | list[Edit]) -> int:
    """The offset in the text before the ``edits``, which were applied in this order."""
    for edit in reversed(edits):
        if offset >= edit.start + len(edit.text):
            offset += edit.end - edit.start - len(edit.text)
        elif offset > edit.start:
            offset = edit.start
    return offset


@dataclasses.dataclass(frozen=True)
class _Slip:
    message: str
    offset: int
    edit: Edit | None = None


def repair(name: str, data: bytes, error: NotWellFormedError) -> Repaired:
    """Repair the known mistakes in the text ``data`` (UTF-8), whose parsing ended with ``error``."""
    source = data
    diagnoses: list[XmlMistake] = []
    edits: list[Edit] = []
    lines = LineIndex(source)
    while True:
        slip = _slip(data, error)
        path = "".join(f"/{element.name}" for element in error.open_elements)
        position = lines.position(_before(slip.offset, edits))
        edit = (slip.edit,) if slip.edit is not None else ()
        diagnoses.append(XmlMistake(f"the XML is not well-formed: {slip.message}", position, path, edit))
        if slip.edit is None or len(edits) == MAX_REPAIRS or len(data) > MAX_REPAIR_SIZE:
            return Repaired(data, tuple(diagnoses), False, tuple(edits), source)
        edits.append(slip.edit)
        data = data[: slip.edit.start] + slip.edit.text + data[slip.edit.end :]
        try:
            Document(name, data)
        except NotWellFormedError as next_error:
            error = next_error
        else:
            return Repaired(data, tuple(diagnoses), True, tuple(edits), source)


def _slip(data: bytes, error: NotWellFormedError) -> _Slip:
    reason, offset, stack = error.reason, error.offset, error.open_elements
    errors = expat.errors
    if reason == errors.XML_ERROR_TAG_MISMATCH and stack:
        return _mismatch(data, offset, stack)
    if reason == errors.XML_ERROR_NO_ELEMENTS and stack:
        return _unclosed(data, stack[-1], len(data), "the end of the file")
    if reason in (errors.XML_ERROR_UNDEFINED_ENTITY, errors.XML_ERROR_INVALID_TOKEN):
        for place in range(offset, max(offset - MAX_ENTITY, -1), -1):
            if data[place : place + 1] == b"&" and not _ENTITY.match(data, place):
                return _Slip("a bare '&' must be written '&amp;'", place, Edit(place, place + 1, b"&amp;"))
    if reason == errors.XML_ERROR_MISPLACED_XML_PI and not data[:offset].strip():
        return _Slip("there are blanks before the XML declaration", 0, Edit(0, offset, b""))
    if reason == errors.XML_ERROR_DUPLICATE_ATTRIBUTE:
        return _duplicate(data, offset)
    if reason == errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT:
        return _Slip("there is content after the end of the domain; XML has one root element", offset)
    if "xmlns:qemu" in reason:
        place = (stack[0].start if stack else offset) + 1
        match = _NAME.match(data, place)
        end = match.end() if match else place
        from zseal.domain.document import QEMU_NAMESPACE

        return _Slip(reason, offset, Edit(end, end, f" xmlns:qemu='{QEMU_NAMESPACE}'".encode()))
    return _invalid_token(data, offset, stack) or _Slip(reason, offset)


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _mismatch(data: bytes, offset: int, stack: tuple[Element, ...]) -> _Slip:
    """An end tag that does not belong to the innermost open element."""
    match = _NAME.match(data, offset)
    name = match[0].decode("utf-8", "replace") if match else "?"
    start = data.rfind(b"<", 0, offset + 1)
    end = data.find(b">", offset) + 1
    top = stack[-1]
    if any(element.name == name for element in stack):
        return _unclosed(data, top, start, f"</{name}> on line {_line(data, offset)}")
    if top.children and top.children[-1].name == name:
        message = f"</{name}> closes an element that is already closed"
        return _Slip(message, start, Edit(start, end, b"") if end else None)
    if difflib.SequenceMatcher(None, name.lower(), top.name.lower()).ratio() >= 0.7 and end:
        message = f"</{name}> should be </{top.name}>, which was opened on line {_line(data, top.start)}"
        return _Slip(message, start, Edit(start, end, f"</{top.name}>".encode()))
    return _Slip(f"</{name}> closes nothing; <{top.name}> of line {_line(data, top.start)} is open", start)


def _belongs(parent: Element, child: Element) -> bool:
    """Whether the child belongs into the element it was parsed into."""
    if parent.name in _LEAVES:
        return child.name in _LEAVES[parent.name]
    if parent.name == "disk" and child.name == "serial":
        return not child.children and not child.attributes
    if child.name in _DEVICES and (child.children or child.attributes):
        return parent.name == "devices"
    if child.name in _SECTIONS:
        return parent.name in ("domain", "metadata", "vcpus")
    return True


def _unclosed(data: bytes, element: Element, before: int, what: str) -> _Slip:
    """An element that is still open at the offset ``before`` of ``what``."""
    inside = element.parent.name if element.parent is not None else ""
    message = f"<{element.name}> of line {_line(data, element.start)} is not closed before {what}"
    if (element.name, inside) == ("driver", "disk"):
        message += (
            "; close it with '/>' (the samples on libvirt's page about protected virtualization have this mistake)"
        )
    place = element.open_end
    owned = 0
    for child in element.children:
        if not _belongs(element, child):
            break
        place = child.end if child.close > child.start or child.empty_tag else before
        owned += 1
    text = data[element.open_end : element.children[0].start if element.children else before]
    if owned == 0 and not text.strip():
        return _Slip(message, element.start, Edit(element.open_end - 1, element.open_end, b"/>"))
    if owned == 0:
        place = element.open_end + len(text.rstrip())
        return _Slip(message, element.start, Edit(place, place, f"</{element.name}>".encode()))
    line_start = data.rfind(b"\n", 0, element.start) + 1
    indent = data[line_start : element.start]
    end_tag = f"</{element.name}>".encode()
    own_line = b"\n" + indent if (line_start and not indent.strip()) or element.parent is None else b""
    return _Slip(message, element.start, Edit(place, place, own_line + end_tag))


def _duplicate(data: bytes, offset: int) -> _Slip:
    """A repeated attribute; repaired only if both values are equal."""
    match = re.compile(rb"""([\w:.-]+)\s*=\s*("[^"]*"|'[^']*')""").match(data, offset)
    if match is None:
        return _Slip("an attribute is repeated", offset)
    name, value = match[1].decode("utf-8", "replace"), match[2][1:-1]
    tag = data[data.rfind(b"<", 0, offset) : offset]
    first = re.search(rb"\s" + re.escape(match[1]) + rb"""\s*=\s*("[^"]*"|'[^']*')""", tag)
    same = first is not None and first[1][1:-1] == value
    blanks = len(data[:offset]) - len(data[:offset].rstrip())
    edit = Edit(offset - blanks, match.end(), b"") if same else None
    return _Slip(f"the attribute {name} is repeated", offset, edit)


def _invalid_token(data: bytes, offset: int, stack: tuple[Element, ...]) -> _Slip | None:
    """Look for common mistakes in the tag around ``offset``."""
    start = data.rfind(b"<", 0, offset + 1)
    if start < 0:
        return None
    if data.startswith(b"<!--", start) or data.startswith(b"<?", start):
        return None
    blank = re.compile(rb"<([ \t]+)/?[A-Za-z_]").match(data, start)
    if blank:
        return _Slip("a blank after '<'", start, Edit(blank.start(1), blank.end(1), b""))
    if start == offset:  # a '<' inside a tag: the tag before was not finished
        previous = data.rfind(b"<", 0, start)
        if previous >= 0 and b">" not in data[previous:start]:
            start = previous
    good = _GOOD_ATTRIBUTES.match(data, start)
    if good is None:
        return None
    place = good.end()
    rest = data[place : place + 4096]
    line = _line(data, place)
    unquoted = re.compile(rb"\s+" + _UNQUOTED.pattern).match(data, place)
    quoted_badly = _bad_quotes(data, place)
    if quoted_badly is not None:
        return quoted_badly
    if unquoted:
        value = unquoted[2]
        message = f"the value of {unquoted[1].decode('utf-8', 'replace')} needs quotes"
        return _Slip(message, unquoted.start(1), Edit(unquoted.start(2), unquoted.end(2), b"'" + value + b"'"))
    if re.match(rb"""[A-Za-z_][\w:.-]*\s*=\s*["']""", rest) and data[place - 1 : place] in b"'\"":
        return _Slip(f"a blank is missing between two attributes on line {line}", place, Edit(place, place, b" "))
    if re.match(rb"\s*<", rest):
        name = _NAME.match(data, start + 1)
        tag = name[0].decode("utf-8", "replace") if name else ""
        end = b">" if tag in _DEVICES | _SECTIONS | {"domain"} else b"/>"
        return _Slip(f"the tag <{tag} …> is not finished, '{end.decode()}' is missing", start, Edit(place, place, end))
    return None


def _bad_quotes(data: bytes, place: int) -> _Slip | None:
    """Typographic quotes, as word processors and web pages write them, in the attribute at ``place``."""
    text = data[place : place + 4096].decode("utf-8", "replace")
    match = re.match(rf"(\s+([\w:.-]+)\s*=\s*)([{_BAD_QUOTES}])([^<>\"']*?)([{_BAD_QUOTES}\"'])", text)
    if match is None:
        return None
    start = place + len(match[1].encode())
    end = place + len(match[0].encode())
    message = f"the value of {match[2]} is in typographic quotes, XML needs ' or \""
    name = start - len(match[1].encode()) + len(match[1]) - len(match[1].lstrip())
    return _Slip(message, name, Edit(start, end, f"'{match[4]}'".encode()))
