"""The command: exit codes as of lint tools, standard input, files changed in place, errors in one line."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from tests.unit.domain.samples import VECTORS, read
from zseal.cli.main import main


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that runs ``zseal domain`` and gives exit code, stdout and stderr."""

    def call(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            main(["domain", *arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


GOOD, BAD = str(VECTORS / "ok-ls-minimal.xml"), str(VECTORS / "bad-PV201-disk.xml")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lint", GOOD], 0),
        (["lint", GOOD, BAD], 1),
        (["lint", "--strict", GOOD], 1),
        (["lint", "--strict", "--ignore", "PV6", GOOD], 0),
        (["lint", "/nowhere.xml"], 1),
        (["lint"], 2),
        (["lint", "--format", "xml", GOOD], 2),
        (["lint", "--target", "xen-4", GOOD], 2),
        (["lint", "--select", "PV999", GOOD], 2),
        (["fix", BAD], 0),
        (["fix", "--diff", BAD], 1),
        (["fix", "--diff", GOOD], 0),
        (["fix", "--diff", "--in-place", BAD], 2),
        (["fix", "-i", "-"], 2),
        (["fix", BAD, GOOD], 2),
        (["convert", BAD], 2),
        (["convert", "--style", "iommu", GOOD], 0),
        (["new", "--name", "a"], 2),
        (["new", "--name", "a", "--disk", "/a"], 0),
        (["export", "--to", "qemu", GOOD], 0),
        (["export", "--to", "qemu", BAD], 1),
        (["rules"], 0),
        (["rules", "pv201"], 0),
        (["rules", "PV000"], 2),
    ],
)
def test_exit_codes(run, arguments: list[str], code: int) -> None:  # type: ignore[no-untyped-def]
    found, _, err = run(*arguments)
    assert found == code
    assert "Traceback" not in err


def test_everything_works_in_a_pipe(run) -> None:  # type: ignore[no-untyped-def]
    code, fixed, told = run("fix", "-", stdin=read("bad-PV001-unclosed-driver.xml"))
    assert code == 0
    assert "<stdin>: repaired PV001" in told
    code, out, _ = run("lint", "--format", "json", "-", stdin=fixed.encode())
    assert code == 0
    assert json.loads(out)["files"][0]["file"] == "<stdin>"
    code, out, _ = run("new", "--name", "a", "--image", "/i", "--network", "user", "--style", "iommu")
    assert run("lint", "--strict", "--format", "github", "-", stdin=out.encode()) == (0, "", "")


def test_in_place_keeps_links_and_permissions(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    real, link = tmp_path / "real.xml", tmp_path / "link.xml"
    real.write_bytes(read("bad-PV201-disk.xml"))
    real.chmod(0o640)
    link.symlink_to(real)
    other = tmp_path / "other.xml"
    other.write_bytes(read("bad-PV302-balloon-virtio.xml"))
    code, out, _ = run("fix", "--in-place", str(link), str(other))
    assert (code, out) == (0, "")
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert run("lint", str(real), str(other))[0] == 0
    code, _, _ = run("convert", "--style", "launch-security", "--in-place", str(link))
    assert code == 0
    assert b"launchSecurity" in real.read_bytes()


def test_outputs_are_not_replaced_unasked(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "out.xml"
    target.write_text("mine")
    code, _, err = run("fix", BAD, "-o", str(target))
    assert code == 1
    assert "exists" in err
    assert target.read_text() == "mine"
    assert run("fix", BAD, "-o", str(target), "--overwrite")[0] == 0
    assert target.read_text().startswith("<domain")


def test_one_bad_file_does_not_hide_the_others(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    hostile = tmp_path / "hostile.xml"
    hostile.write_text("<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>")
    code, out, _ = run("lint", "--format", "json", str(hostile), "/nowhere.xml", GOOD)
    assert code == 1
    document = json.loads(out)
    assert [item["file"] for item in document["unreadable"]] == [str(hostile), "/nowhere.xml"]
    assert "document type" in document["unreadable"][0]["message"]
    assert [item["file"] for item in document["files"]] == [GOOD]


def test_the_inside_of_the_guest(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    parmfile = tmp_path / "parm"
    parmfile.write_text("root=/dev/vda1 swiotlb=512M rd.shell=0\n")
    code, out, _ = run("lint", "--parmfile", str(parmfile), GOOD)
    assert code == 1
    assert f"{parmfile}:1:16: error PV903" in out
    code, _, err = run("lint", "--kernel", GOOD, GOOD)
    assert code == 1
    assert "not a Linux kernel for s390x" in err


def test_capabilities_of_a_host(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("lint", "--capabilities", str(VECTORS / "caps-host-off.xml"), GOOD)
    assert code == 1
    assert "PV801" in out
    assert run("lint", "--capabilities", str(VECTORS / "caps-ready.xml"), GOOD)[0] == 0


def test_without_libvirt_python_it_says_what_to_install(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    code, _, err = run("lint", "--connect", "qemu:///system", "guest")
    assert code == 1
    assert "pip install zseal[libvirt]" in err


def test_rules_as_json(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("rules", "--format", "json")
    assert code == 0
    rules = json.loads(out)
    assert len(rules) == 135
    assert set(rules[0]) == {
        "id", "severity", "title", "why", "effect", "fix", "fix_safety", "caught_by_schema", "caught_by_libvirt",
        "needs", "example", "source",
    }  # fmt: skip
