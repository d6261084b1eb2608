"""Validation against libvirt's own RNG schema, if it is installed.

Elements newer than the installed schema are removed before, because an old schema rejects them through no fault of the
document.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

from zseal.domain.document import Document, Element
from zseal.errors import InputError

SCHEMA_FOLDERS = ("/usr/share/libvirt/schemas", "/usr/local/share/libvirt/schemas")
SCHEMA_VARIABLE = "VIRTXML_SCHEMA_DIR"
"""The environment variable that names another schema directory, also for libvirt's virt-xml-validate."""

# (path of an element, XPath that finds something in libvirt's domaincommon.rng if the schema knows the element)
_NEWER = (
    ("features/async-teardown", "//r:element[@name='async-teardown']"),
    ("devices/crypto", "//r:element[@name='crypto']//r:element[@name='driver']"),
    ("devices/sound[virtio]", "//r:element[@name='sound']//r:value[.='virtio']"),
)


@dataclasses.dataclass(frozen=True)
class SchemaError:
    """The schema's first objection: the line in the document and libxml2's words."""

    line: int
    message: str


def schema_folder() -> Path | None:
    """The directory with libvirt's domain.rng, or None if libvirt's schemas are not installed."""
    override = os.environ.get(SCHEMA_VARIABLE)
    for folder in (override,) if override else SCHEMA_FOLDERS:
        path = Path(folder)
        if (path / "domain.rng").is_file():
            return path
    return None


class Schema:
    """libvirt's domain schema, loaded once."""

    def __init__(self, folder: Path) -> None:
        from lxml import etree

        self.folder = folder
        try:
            self._schema = etree.RelaxNG(etree.parse(str(folder / "domain.rng")))
            common = etree.parse(str(folder / "domaincommon.rng"))
        except (etree.Error, OSError) as error:
            raise InputError(f"libvirt's schema cannot be loaded: {error}", where=str(folder)) from error
        namespaces = {"r": "http://relaxng.org/ns/structure/1.0"}
        self._unknown = [path for path, mark in _NEWER if not common.xpath(mark, namespaces=namespaces)]

    def newer_than_schema(self, document: Document) -> list[Element]:
        """The elements of the document that are newer than the installed schema."""
        found = []
        for path in self._unknown:
            found += _matching(document.root, path)
        return found

    def validate(self, document: Document) -> SchemaError | None:
        """Return the schema's objection to the document, or None."""
        from lxml import etree

        data = document.data
        for element in sorted(self.newer_than_schema(document), key=lambda element: -element.start):
            text = data[element.start : element.end]
            # blanks instead of the text keep the line numbers
            data = data[: element.start] + bytes(c if c in b"\r\n" else 0x20 for c in text) + data[element.end :]
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            tree = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            return SchemaError(error.lineno or 1, error.msg or "not well-formed")
        if self._schema.validate(tree):
            return None
        first = self._schema.error_log[0]
        return SchemaError(first.line, first.message)


def _matching(root: Element, path: str) -> list[Element]:
    section, _, name = path.partition("/")
    tag, bracket, model = name.partition("[")
    wanted = model.rstrip("]")
    return [
        element
        for parent in root.all(section)
        for element in parent.all(tag)
        if not bracket or element.get("model") == wanted
    ]


@functools.cache
def installed_schema() -> Schema | None:
    """The installed schema, or None; searched for once in a process."""
    folder = schema_folder()
    return Schema(folder) if folder is not None else None
