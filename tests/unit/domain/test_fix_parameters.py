"""The kernel parameters for the image are repaired as the domain is: what is safe, and the rest when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.domain.samples import VECTORS, read
from zseal.cli.domain.app import app
from zseal.domain.document import Document
from zseal.domain.fix import fix_parameters
from zseal.domain.guest import ParameterFile

HARDENED = "rd.shell=0 rd.emergency=halt"


def _fixed(text: str, *, unsafe: bool = False, raw: bytes = read("ok-ls-minimal.xml")) -> str:
    result = fix_parameters(ParameterFile("parm", text), Document("x", raw), unsafe=unsafe)
    again = fix_parameters(ParameterFile("parm", result.after.decode()), Document("x", raw), unsafe=unsafe)
    assert not again.changed, "one run repairs all"
    assert bool(result.repaired) == result.changed
    return result.after.decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("swiotlb=512M", "swiotlb=262144"),
        ("swiotlb=1g", "swiotlb=524288"),
        ("swiotlb=262144,force", "swiotlb=262144"),
        ("swiotlb=262144,4,noforce", "swiotlb=262144,4"),
        ("swiotlb=0x40001,4", "swiotlb=524288,4"),
        ("swiotlb=100000", "swiotlb=131072"),
        ("swiotlb=lots", "swiotlb=lots"),
        ("swiotlb=512", "swiotlb=512"),
    ],
)
def test_a_pool_is_written_as_the_kernel_reads_it(before: str, after: str) -> None:
    assert _fixed(f"root=/dev/vda1\t{before}  quiet\n") == f"root=/dev/vda1\t{after}  quiet\n"


def test_what_is_removed_takes_its_blanks_along() -> None:
    assert _fixed("a=1 prot_virt=1 b=2") == "a=1 b=2"
    assert _fixed("prot_virt=1 b=2\n") == "b=2\n"
    assert _fixed("a=1\nprot_virt=1\n") == "a=1\n\n"
    assert _fixed("swiotlb=noforce ö=1") == "ö=1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"swiotlb=262144 {HARDENED}"),
        ("swiotlb=512 rd.shell=0\n", "swiotlb=262144 rd.shell=0\n"),
        ("ü swiotlb=1048576 panic=0", "ü swiotlb=524288 panic=0"),
        ("init=/bin/sh swiotlb=262144 panic=0", "swiotlb=262144 panic=0"),
        ("console=ttysclp0 swiotlb=262144 panic=0", "console=ttysclp0 swiotlb=262144 panic=0 systemd.getty_auto=0"),
    ],
)
def test_the_rest_is_repaired_when_asked_for(before: str, after: str) -> None:
    assert _fixed(before, unsafe=True) == after
    assert _fixed(before) == before, "not unasked"


def test_a_pool_of_more_than_half_the_memory_becomes_half_of_it() -> None:
    raw = read("ok-ls-minimal.xml").replace(b"'GiB'>4", b"'MiB'>768")
    assert _fixed("swiotlb=262144 panic=0", unsafe=True, raw=raw) == "swiotlb=131072 panic=0"


def test_the_command_repairs_both_files(tmp_path: Path) -> None:
    domain, parameters = tmp_path / "d.xml", tmp_path / "parm"
    domain.write_bytes((VECTORS / "bad-PV301-balloon-absent.xml").read_bytes())
    parameters.write_text("swiotlb=512M panic=0\n")
    arguments = ["fix", "--parmfile", str(parameters), str(domain)]
    shown = CliRunner().invoke(app, [*arguments, "--diff"])
    assert shown.exit_code == 1
    assert "+swiotlb=262144 panic=0" in shown.output
    assert "+    <memballoon model='none'/>" in shown.output
    assert CliRunner().invoke(app, [*arguments, "--in-place"]).exit_code == 0
    assert parameters.read_text() == "swiotlb=262144 panic=0\n"
    assert b"<memballoon model='none'/>" in domain.read_bytes()
    assert CliRunner().invoke(app, arguments).exit_code != 0, "two files don't go to standard output"
