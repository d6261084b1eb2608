"""PV003: the schema's objections name its release, and what is newer than it is judged by the target."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zseal.domain import lint
from zseal.domain.document import Document
from zseal.domain.examples import base_domain
from zseal.domain.lint import LintReport, LintSettings, lint_bytes
from zseal.domain.model import Style
from zseal.domain.newer import NEWER, newer_parts
from zseal.domain.schema import Schema, schema_directory
from zseal.domain.versions import Target

NEW_DISK = "<driver name='qemu' type='qcow2' discard_no_unref='on'>\n        <iothreads/>\n      </driver>"


def _domain(old: str, new: str) -> bytes:
    text = base_domain(Style.LAUNCH_SECURITY)
    assert old in text
    return text.replace(old, new).encode()


def _lint(raw: bytes, libvirt: tuple[int, ...] | None = None) -> LintReport:
    return lint_bytes("x", raw, LintSettings(target=Target(libvirt=libvirt), local_files=False))


def _messages(raw: bytes, libvirt: tuple[int, ...] | None = None) -> list[str]:
    return [f.message for f in _lint(raw, libvirt).findings if f.rule.id == "PV003"]


@pytest.fixture
def directory() -> Path:
    found = schema_directory()
    assert found is not None, "install libvirt0 (Debian)"
    return found


def test_the_release_of_the_schema_is_that_of_the_library_beside_it(directory: Path) -> None:
    schema = Schema(directory)
    assert schema.exact
    assert schema.version >= (9, 0, 0)


@pytest.mark.parametrize(
    ("library", "version"),
    [("libvirt.so.0.9000.0", (9, 0, 0)), ("libvirt.so.0.11003.0", (11, 3, 0)), ("libvirt.so.0.10010.0", (10, 10, 0))],
)
@pytest.mark.parametrize("place", ["lib64", "lib/s390x-linux-gnu"])
def test_the_library_names_the_release(
    directory: Path, tmp_path: Path, library: str, version: tuple[int, ...], place: str
) -> None:
    schemas = tmp_path / "share" / "libvirt" / "schemas"
    shutil.copytree(directory, schemas)
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / library).touch()
    (tmp_path / place / "libvirt.so.0").touch()
    schema = Schema(schemas)
    assert (schema.version, schema.exact) == (version, True)


def test_without_a_library_the_release_is_estimated_from_what_the_schema_knows(directory: Path, tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(directory, schemas)
    estimated = Schema(schemas)
    assert not estimated.exact
    assert estimated.version <= Schema(directory).version
    common = schemas / "domaincommon.rng"
    text = common.read_text().replace("</grammar>", '<define name="zsealtest"><element name="pstore"><empty/></element>'
                                      "</define></grammar>")  # fmt: skip
    common.write_text(text)
    assert Schema(schemas).version >= (10, 6, 0)


def test_an_objection_names_the_release_of_the_schema(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    schema = Schema(directory)
    schema.version, schema.exact = (9, 0, 0), True
    monkeypatch.setattr(lint, "installed_schema", lambda: schema)
    raw = _domain("<vcpu>2</vcpu>", "<vcpu>2</vcpu>\n  <nonsense/>")
    (message,) = _messages(raw)
    assert message.startswith("the schema of libvirt 9.0.0 does not accept it: ")
    schema.exact = False
    assert _messages(raw)[0].startswith("the schema of libvirt about 9.0.0 does not accept it: ")


def test_what_is_newer_than_the_schema_is_judged_by_the_target(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    schema = Schema(directory)
    schema.version = (9, 0, 0)
    monkeypatch.setattr(lint, "installed_schema", lambda: schema)
    raw = _domain("<driver name='qemu' type='qcow2'/>", NEW_DISK)
    assert _messages(raw) == []
    assert _messages(raw, (11, 3, 0)) == []
    assert _messages(raw, (9, 9, 0)) == ["libvirt 9.9.0 does not have <iothreads>, 10.0.0 does"]
    assert _messages(raw, (9, 0, 0)) == [
        "libvirt 9.0.0 does not have discard_no_unref= of <driver>, 9.5.0 does",
        "libvirt 9.0.0 does not have <iothreads>, 10.0.0 does",
    ]


def test_a_newer_schema_does_not_make_an_older_target_know_more(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    schema = Schema(directory)
    schema.version = (11, 3, 0)
    monkeypatch.setattr(lint, "installed_schema", lambda: schema)
    monkeypatch.setattr(schema, "validate", lambda _: None)
    raw = _domain("<driver name='qemu' type='qcow2'/>", NEW_DISK)
    assert len(_messages(raw, (9, 0, 0))) == 2


def test_what_another_rule_explains_is_said_once() -> None:
    features = "<features>\n    <async-teardown enabled='yes'/>\n    <ps2 state='off'/>\n  </features>\n  <cpu"
    report = _lint(_domain("<cpu", features), (9, 0, 0))
    about = [f.rule.id for f in report.findings if "features/" in f.element]
    assert about == ["PV803", "PV008"]


@pytest.mark.parametrize("path", [path for path, _ in NEWER])
def test_every_newer_part_is_found_and_hidden_from_an_older_schema(path: str, directory: Path) -> None:
    elements, _, attribute = path.partition("@")
    name, _, value = attribute.partition("=")
    tags = elements.split("/")
    stated = f" {name}='{value or 'on'}'" if name else ""
    inner = f"<{tags[-1]}{stated}/>"
    for tag in reversed(tags[:-1]):
        inner = f"<{tag}>{inner}</{tag}>"
    document = Document("x", f"<domain>{inner}</domain>".encode())
    (part,) = newer_parts(document.root, (9, 0, 0))
    assert part.element.tag == tags[-1]
    assert part.attribute == ("" if value or not name else name)
    assert list(newer_parts(document.root, part.since)) == []
    schema = Schema(directory)
    schema.version = (9, 0, 0)
    hidden = Document("x", schema._without_newer(document))
    assert list(newer_parts(hidden.root, (9, 0, 0))) == []
    assert len(hidden.data) == len(document.data)
