"""``zseal host`` keeps its exit codes and formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.paths import VECTORS
from zseal.cli.main import main

HOSTS = VECTORS / "hosts"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["host", *arguments])
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.mark.parametrize(
    ("name", "expected"), [("z16-ready", 0), ("z16-container", 0), ("x86", 1), ("cpuinfo-only", 1)]
)
def test_check_ends_with_0_only_for_a_host_known_to_be_ready(
    capsys: pytest.CaptureFixture[str], name: str, expected: int
) -> None:
    code, out, err = run(capsys, "check", "--root", str(HOSTS / name))
    assert (code, err) == (expected, "")
    assert out.rstrip().endswith(").")
    code, out, _ = run(capsys, "check", "--root", str(HOSTS / name), "--format", "json")
    assert code == expected
    assert (json.loads(out)["verdict"] == "ready") == (expected == 0)


def test_info_in_text_and_json_and_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "info", "--root", str(HOSTS / "z16-ready"))[1].startswith("Secure Execution host")
    content = json.loads(run(capsys, "info", "--root", str(HOSTS / "z16-ready"), "--format", "json")[1])
    assert content["se_status"] == "Host"
    code, out, err = run(capsys, "info", "--root", str(HOSTS / "x86"))
    assert (code, out) == (1, "")
    assert "no /sys/firmware/uv" in err


def test_a_session_refresh_shows_its_steps_and_does_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    file = tmp_path / "libvirt" / "qemu" / "cache" / "capabilities" / "a.xml"
    file.parent.mkdir(parents=True)
    file.write_text("<qemuCaps/>")
    assert run(capsys, "refresh-libvirt-cache", "--session", "--dry-run")[:2] == (0, f"rm {file}\n")
    assert file.exists()
    code, out, _ = run(capsys, "refresh-libvirt-cache", "--session")
    assert (code, out) == (0, f"1 cached description(s) deleted from {file.parent}\n")
    assert not file.exists()
    assert run(capsys, "refresh-libvirt-cache", "--session", "--dry-run")[1].startswith("# nothing to do")
