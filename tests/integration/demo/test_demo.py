"""``zseal demo`` as a newcomer runs it: a real Debian kernel, both boots, both refusals, the table and the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]


def test_the_demonstration_shows_what_it_promises(tmp_path: Path) -> None:
    scratch, report = tmp_path / "scratch", tmp_path / "report.json"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "zseal", "demo", "--report", str(report)],
        env=os.environ | {"TMPDIR": str(scratch), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(scratch.iterdir()) == []
    shown = json.loads(report.read_text())
    refusals = {name: shown.pop(name) for name in ("wrong_machine", "tampered")}
    assert {name: (start["refused"], start["rc"], start["rrc"]) for name, start in refusals.items()} == {
        "wrong_machine": (True, 0x108, 5),
        "tampered": (True, 0x102, 0x1B),
    }
    assert {name: start["message"].split(" answered")[0] for name, start in refusals.items()} == {
        "wrong_machine": "SET_SEC_CONF_PARAMS",
        "tampered": "VERIFY_IMG",
    }
    assert shown.pop("kernel").endswith("-s390x")
    assert shown.pop("shared_pages") >= 2048  # the bounce buffers of swiotlb=4096
    assert min(shown.pop("boot_seconds"), shown.pop("plain_boot_seconds")) > 0
    assert shown == {
        "booted": True,
        "prot_virt_guest": True,
        "facility_158": True,
        "marker_in_guest": True,
        "marker_in_host_view": False,
        "marker_after_share": True,
        "marker_in_plain_host_view": True,
    }
    assert "/sys/firmware/uv/prot_virt_guest is 1" in done.stdout
    assert done.stdout.count("as promised") == 8
    assert "BROKEN" not in done.stdout
    assert "not a security boundary" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_key_behind(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "zseal", "demo"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        assert demo.stderr is not None
        assert any(b"Booting it as a protected guest" in line for line in demo.stderr)
        assert list(tmp_path.glob("*/machine/host-key.pem"))
        demo.send_signal(number)
        messages = demo.communicate(timeout=PATIENCE)[1]
    assert demo.returncode == code
    assert b"Traceback" not in messages
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF" + bytes(1 << 17))
    (tmp_path / "ramdisk").write_bytes(b"070701")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "zseal", "demo", "--report", str(tmp_path / "report.json")),
            *("--kernel", str(tmp_path / "kernel"), "--ramdisk", str(tmp_path / "ramdisk")),
        ],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'kernel'}: the kernel is an ELF file")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel", "ramdisk"]
