"""A capture is judged like the host it came from, and tells nothing it should not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paths import VECTORS
from zseal.errors import OutputError
from zseal.readiness import CapturedHost, check_host
from zseal.readiness.capture import capture_host

HOSTS = VECTORS / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_capturing_a_capture_changes_no_verdict(tmp_path: Path, name: str) -> None:
    source = CapturedHost(HOSTS / name)
    capture_host(source, tmp_path / "copy")
    assert check_host(CapturedHost(tmp_path / "copy")).results == check_host(source).results


def test_secrets_and_serial_numbers_stay_on_the_host(tmp_path: Path) -> None:
    root = tmp_path / "host"
    files = {
        "proc/cmdline": "rd.iscsi.password=hunter2 prot_virt=1 ip=10.1.2.3 hunter2 -- hunter2\n",
        "proc/cpuinfo": "processor 0: version = FF,  identification = 0A1B2C,  machine = 3931\n",
        "proc/sysinfo": "Type: 3931\nSequence Code:        0000000000012345\nPlant: 02\nLPAR Name: BANK01\n"
        "VM00 Name: BANK02\n",
        "commands/uname.out": "Linux 6.1.0 #1 SMP (joe@build.example) s390x\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    written = capture_host(CapturedHost(root), tmp_path / "copy")
    everything = "".join(path.read_text() for path in written)
    assert "prot_virt=1" in everything
    assert "machine = 3931" in everything
    for secret in ("hunter2", "10.1.2.3", "0A1B2C", "12345", "BANK", "joe@"):
        assert secret not in everything


def test_only_lines_about_protected_virtualization_are_kept_of_the_log() -> None:
    from zseal.readiness.commands import KERNEL_LOG

    log = "[1] usb 1-1: SerialNumber: 42\n[2] prot_virt: Reserving 98MB as ultravisor base storage\n"
    assert KERNEL_LOG.clean(log) == "[2] prot_virt: Reserving 98MB as ultravisor base storage\n"


def test_a_directory_with_content_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        capture_host(CapturedHost(HOSTS / "x86"), tmp_path)
