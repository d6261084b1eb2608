"""Positions are exact, hostile XML is refused quickly, and encodings survive."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.domain.document import MAX_SIZE, Document, decode, encode, read_document_bytes
from zseal.errors import FormatError, InputError

TEXT = """<?xml version='1.0'?>
<domain type='kvm'
        id="4">
  <!-- ä comment -->
  <name>größe</name>   <title>x</title>
\t<devices><disk/><disk type = "file" ><source  file='a>b'/></disk></devices>
</domain>
"""


def test_lines_and_columns_of_elements() -> None:
    document = Document("x", TEXT.encode())
    places = {e.path: document.position(e.start) for e in document.root.walk()}
    found = {path: (place.line, place.column) for path, place in places.items()}
    assert found == {
        "/domain": (2, 1),
        "/domain/name": (5, 3),
        "/domain/title": (5, 24),
        "/domain/devices": (6, 2),
        "/domain/devices/disk[1]": (6, 11),
        "/domain/devices/disk[2]": (6, 18),
        "/domain/devices/disk[2]/source": (6, 39),
    }


def test_spans_cover_the_source_text() -> None:
    document = Document("x", TEXT.encode())
    disk = document.root.find("devices")
    assert disk is not None
    first, second = disk.children
    assert document.data[first.start : first.end] == b"<disk/>"
    assert document.data[second.start : second.end] == b"""<disk type = "file" ><source  file='a>b'/></disk>"""
    span = second.attribute_spans()["type"]
    assert document.data[span.start : span.end] == b' type = "file"'
    assert second.children[0].attribute_spans()["file"].quote == "'"


@given(st.lists(st.sampled_from(["<a>", "</a>", "<a/>", "t", "<!--c-->", "\n", "<a x='1'>", " "]), max_size=30))
def test_every_element_that_expat_sees_has_its_span(pieces: list[str]) -> None:
    data = ("<domain>" + "".join(pieces) + "</domain>").encode()
    try:
        document = Document("x", data)
    except FormatError:
        return
    for element in document.root.walk():
        text = data[element.start : element.end]
        assert text.startswith(b"<" + element.name.encode())
        assert text.endswith((b"/>", b"</" + element.name.encode() + b">"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>", "document type"),
        (b"<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "document type"),
        (b"<!DOCTYPE d PUBLIC '-//x' 'http://127.0.0.1/x'><domain/>", "document type"),
        (b"<a>" * 200 + b"</a>" * 200, "nested deeper"),
        (b"<a>" * 2_000_000, "nested deeper"),
        (b"<domain>" + b"<a/>" * 200_000 + b"</domain>", "more than 20,000 elements"),
        (b"<domain>" + b"x<!---->" * 200_000 + b"</domain>", "more than 20,000 elements and comments"),
        (b"<domain " + b" ".join(b"a%d=''" % i for i in range(100_000)) + b"/>", "more than 100 attributes"),
        (b"<domain a='1' a='2'/>", "duplicate attribute"),
        (b"<domain>&undefined;</domain>", "undefined entity"),
        (b"<domain>\x00</domain>", "not well-formed"),
        (b"", "no element found"),
    ],
)
def test_hostile_or_broken_xml_is_refused_at_once(data: bytes, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(FormatError, match=reason):
        Document("x", data)
    assert time.process_time() - start < 60  # refused, not worked through


def test_billion_laughs_never_expands() -> None:
    entities = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
    with pytest.raises(FormatError, match="document type"):
        Document("x", f"<!DOCTYPE d [<!ENTITY l0 'ha'>{entities}]><domain>&l9;</domain>".encode())


def test_a_hundred_megabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.xml"
    with huge.open("wb") as stream:
        stream.truncate(100 << 20)
    start = time.process_time()
    with pytest.raises(InputError, match="too large"):
        read_document_bytes(huge)
    assert time.process_time() - start < 60
    with pytest.raises(InputError, match="too large"):
        decode("x", b"a" * (MAX_SIZE + 1))


def test_a_device_is_not_read() -> None:
    with pytest.raises(InputError, match="not a file"):
        read_document_bytes(Path("/dev/zero"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "utf-8-sig"])
def test_encodings_are_read_and_written_back(encoding: str) -> None:
    label = encoding.removesuffix("-sig")
    raw = f"<?xml version='1.0' encoding='{label}'?><domain><name>grö</name></domain>".encode(encoding)
    data, found = decode("x", raw)
    document = Document("x", data, found)
    name = document.root.find("name")
    assert name is not None
    assert name.value == "grö"
    if encoding != "utf-8-sig":  # its mark is put back with the file
        assert encode(data, found) == raw


def test_unknown_or_wrong_encodings_are_refused() -> None:
    with pytest.raises(InputError, match="encoding"):
        decode("x", b"<?xml version='1.0' encoding='utf-7'?><domain/>")
    with pytest.raises(InputError, match="not utf-8 text"):
        decode("x", b"<domain>\xff</domain>")


def test_qemu_elements_are_known_by_namespace_not_by_prefix() -> None:
    uri = "http://libvirt.org/schemas/domain/qemu/1.0"
    document = Document("x", f"<domain xmlns:q='{uri}'><q:commandline/></domain>".encode())
    assert document.root.children[0].tag == f"{{{uri}}}commandline"
