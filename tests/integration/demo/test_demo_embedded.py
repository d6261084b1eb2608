"""``zseal demo`` and ``zseal run`` on a computer without QEMU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.testguest import kernel


def zseal(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with no program in reach."""
    environment = {name: value for name, value in os.environ.items() if name != "ZSEAL_QEMU"}
    return subprocess.run(
        [sys.executable, "-m", "zseal", *arguments],
        env=environment | {"PATH": "/nonexistent", "TMPDIR": str(tmp_path), "COLUMNS": "120"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--engine", "embedded")])
def test_the_demonstration_shows_what_it_can(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = zseal(tmp_path, "demo", *arguments, "--report", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    shown = json.loads((tmp_path / "report.json").read_text())
    refusals = {name: shown.pop(name) for name in ("wrong_machine", "tampered")}
    assert {name: (start["refused"], start["rc"], start["rrc"]) for name, start in refusals.items()} == {
        "wrong_machine": (True, 0x108, 5),
        "tampered": (True, 0x102, 0x1B),
    }
    assert min(shown.pop("boot_seconds"), shown.pop("plain_boot_seconds")) > 0
    assert shown == {
        "booted": True,
        "kernel": None,
        "prot_virt_guest": None,
        "facility_158": True,
        "marker_in_guest": True,
        "marker_in_host_view": False,
        "marker_after_share": True,
        "marker_in_plain_host_view": True,
        "shared_pages": 2,
    }
    assert done.stdout.count("as promised") == 7
    assert "BROKEN" not in done.stdout
    lines = done.stdout.splitlines()
    assert sum(line.startswith("Not shown: Linux and its devices.") for line in lines) == 1
    assert ("QEMU for s390x is not installed" in done.stderr) is (not arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--engine", "qemu"), 1, "qemu-system-s390x is needed to run guests and is not installed"),
        (("--kernel", "kernel"), 1, "qemu-system-s390x is needed to run guests and is not installed"),
        (("--engine", "embedded", "--kernel", "kernel"), 2, "the embedded engine has no Linux"),
    ],
)
def test_what_needs_qemu_says_so(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = zseal(tmp_path, "demo", *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(f"error: {words}")
    assert len(done.stderr.splitlines()) == 1


def test_an_image_runs_from_creation_to_power_off(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel())
    (tmp_path / "words").write_text("facility=158 share=2 poweroff")
    assert zseal(tmp_path, "machine", "create", "m").returncode == 0
    sealing = ("image", "create", "-i", "kernel", "-p", "words", "-k", "m/host-key.crt", "--no-verify", "-o", "image")
    assert zseal(tmp_path, *sealing).returncode == 0
    run = ("run", "image", "--machine", "m", "--memory", "16M", "--engine", "embedded")
    done = zseal(tmp_path, *run, "--report", "report.json", "--html", "page.html", "--host-dump", "dump")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "zseal-test-guest: facility 158 yes"
    assert done.stderr == "the guest powered off\n"
    assert json.loads((tmp_path / "report.json").read_text())["engine"]["name"] == "embedded"
    assert (tmp_path / "page.html").stat().st_size > 0
    assert (tmp_path / "dump").stat().st_size == 16 << 20
    refused = zseal(tmp_path, *run, "--rng")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: the embedded engine has no random sources; use --engine qemu\n",
    )
