"""Validation against libvirt's own RNG schema, if it is installed.

Elements newer than the installed schema are removed before, because an old schema rejects them through no fault of the
document.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from pathlib import Path

from zseal.domain.document import Document
from zseal.domain.newer import newer_parts
from zseal.domain.versions import Version
from zseal.errors import InputError

SCHEMA_DIRECTORIES = ("/usr/share/libvirt/schemas", "/usr/local/share/libvirt/schemas")
SCHEMA_VARIABLE = "VIRTXML_SCHEMA_DIR"
"""The environment variable that names another schema directory, also for libvirt's virt-xml-validate."""

_LANDMARKS: tuple[tuple[str, Version], ...] = (
    ("throttlegroups", (11, 2, 0)), ("aia", (11, 1, 0)), ("dataStore", (10, 10, 0)), ("ps2", (10, 7, 0)),
    ("pstore", (10, 6, 0)), ("ras", (10, 4, 0)), ("async-teardown", (9, 6, 0)), ("crypto", (9, 1, 0)),
)  # fmt: skip
"""Elements by which a schema's release is estimated if its library does not name it, the newest first."""
_OLDEST: Version = (9, 0, 0)


@dataclasses.dataclass(frozen=True)
class SchemaError:
    """The schema's first objection: the line in the document and libxml2's words."""

    line: int
    message: str


def schema_directory() -> Path | None:
    """The directory with libvirt's domain.rng, or None if libvirt's schemas are not installed."""
    override = os.environ.get(SCHEMA_VARIABLE)
    for directory in (override,) if override else SCHEMA_DIRECTORIES:
        path = Path(directory)
        if (path / "domain.rng").is_file():
            return path
    return None


class Schema:
    """libvirt's domain schema, loaded once; ``version`` is its release, and an estimate unless ``exact`` is true.

    libvirt does not write its release into its schemas. Its library, which is installed with them, has it in its name.
    """

    def __init__(self, directory: Path) -> None:
        from lxml import etree

        self.directory = directory
        try:
            self._schema = etree.RelaxNG(etree.parse(str(directory / "domain.rng")))
            common = etree.parse(str(directory / "domaincommon.rng"))
        except (etree.Error, OSError) as error:
            raise InputError(f"libvirt's schema cannot be loaded: {error}", where=str(directory)) from error
        installed = _library_version(directory)
        names = {element.get("name") for element in common.iter("{http://relaxng.org/ns/structure/1.0}element")}
        estimated = next((version for name, version in _LANDMARKS if name in names), _OLDEST)
        self.exact = installed is not None
        self.version = installed or estimated

    def validate(self, document: Document) -> SchemaError | None:
        """Return the schema's objection to the document, or None."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            tree = etree.fromstring(self._without_newer(document), parser)
        except etree.XMLSyntaxError as error:
            return SchemaError(error.lineno or 1, error.msg or "not well-formed")
        if self._schema.validate(tree):
            return None
        first = self._schema.error_log[0]
        return SchemaError(first.line, first.message)

    def _without_newer(self, document: Document) -> bytes:
        """The text with blanks in the place of what the schema is too old for."""
        data = document.data
        for part in newer_parts(document.root, self.version):
            start, end = part.element.start, part.element.end
            if part.attribute:
                span = part.element.attribute_spans()[part.attribute]
                start, end = span.start, span.end
            # blanks instead of the text keep the line numbers
            blanks = bytes(c if c in b"\r\n" else 0x20 for c in data[start:end])
            data = data[:start] + blanks + data[end:]
        return data


def _library_version(directory: Path) -> Version | None:
    """The release of the libvirt whose library is installed under the prefix of the schema ``directory``."""
    parts = directory.parts
    if parts[-3:] != ("share", "libvirt", "schemas"):
        return None
    prefix = Path(*parts[:-3])
    for pattern in ("lib*/libvirt.so.0.*", "lib/*/libvirt.so.0.*"):
        for library in sorted(prefix.glob(pattern)):
            match = re.fullmatch(r"libvirt\.so\.0\.(\d{4,6})\.\d+", library.name)
            if match:
                number = int(match[1])
                return number // 1000, number % 1000, 0
    return None


@functools.cache
def installed_schema() -> Schema | None:
    """The installed schema, or None; searched for once in a process."""
    directory = schema_directory()
    return Schema(directory) if directory is not None else None
