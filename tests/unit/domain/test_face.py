"""The interface of zseal.domain: its names, which take paths and contents and raise one readable line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import zseal.domain
from tests.unit.domain.samples import VECTORS, read
from zseal.domain import (
    LintSettings,
    NewDisk,
    NewDomain,
    Severity,
    Style,
    convert_domain,
    create_domain,
    export_domain,
    fix_domain,
    lint_domain,
)
from zseal.domain.lint import lint_bytes
from zseal.errors import InputError, ZsealError

GOOD, BAD = "ok-ls-full.xml", "bad-PV202-interface.xml"


def test_the_names_are_these() -> None:
    assert zseal.domain.__all__ == [
        "RULES", "Converted", "Exported", "FixResult", "GuestInputs", "LintFinding", "LintReport", "LintRule",
        "LintSettings", "NewDisk", "NewDomain", "Safety", "Severity", "Style", "Target", "TargetHost",
        "convert_domain", "create_domain", "explain_rule", "export_domain", "fix_domain", "from_host", "lint_domain",
        "read_guest_inputs",
    ]  # fmt: skip
    assert [name for name in dir(zseal.domain) if not name.startswith("_")] == sorted(zseal.domain.__all__)


@pytest.mark.parametrize("name", [name for name in zseal.domain.__all__ if name != "RULES"])
def test_a_name_is_documented(name: str) -> None:
    assert getattr(zseal.domain, name).__doc__


@pytest.mark.parametrize("kind", [str, Path, bytes])
def test_a_path_and_the_content_give_the_same(kind: type) -> None:
    source = read(BAD) if kind is bytes else kind(VECTORS / BAD)
    settings = LintSettings(local_files=False)
    found = lint_domain(source, settings).findings
    assert [(f.rule.id, f.position) for f in found] == [
        (f.rule.id, f.position) for f in lint_bytes("x", read(BAD), settings).findings
    ]
    assert {f.file for f in found} == {"<bytes>" if kind is bytes else os.fspath(source)}
    repaired = fix_domain(source, settings).after
    assert not any(f.severity is Severity.ERROR for f in lint_domain(repaired, settings).findings)
    assert lint_domain(convert_domain(source, Style.LAUNCH_SECURITY).xml).style is Style.LAUNCH_SECURITY
    assert "qemu-system-s390x" in export_domain(repaired, "qemu").text


def test_no_function_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "guest.xml"
    path.write_bytes(read(BAD))
    assert fix_domain(path).changed
    assert path.read_bytes() == read(BAD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_converted_domain_keeps_its_encoding() -> None:
    raw = read(GOOD).decode().replace("<name>", "<!-- größe --><name>").encode("utf-16")
    assert convert_domain(raw, Style.IOMMU).xml.decode("utf-16").count("größe") == 1


def test_a_created_domain_is_clean() -> None:
    text = create_domain(NewDomain(name="first", disks=(NewDisk("/images/first.qcow2"),)))
    assert not lint_domain(text.encode()).fails(strict=True)


@pytest.mark.parametrize("function", [lint_domain, fix_domain, lambda s: convert_domain(s, Style.IOMMU)])
def test_a_file_that_cannot_be_read_is_an_error_of_one_line(function: object, tmp_path: Path) -> None:
    assert callable(function)
    for path in (tmp_path / "missing.xml", tmp_path, Path("/dev/null")):
        with pytest.raises(InputError) as caught:
            function(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    for hostile in (b"", b"\0\xff", b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>"):
        try:
            function(hostile)
        except ZsealError as error:
            assert "\n" not in str(error)
