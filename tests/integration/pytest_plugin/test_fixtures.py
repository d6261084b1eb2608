"""The pytest plugin: guests start, end with their test, and their console is shown where a test fails."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal import testguest
from zseal.errors import ZsealError
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.pytest_plugin import ProtectedGuests

pytestmark = pytest.mark.qemu


def test_a_sealed_kernel_runs_protected(protected_guest: ProtectedGuests) -> None:
    guest = protected_guest(kernel=testguest.kernel(), cmdline="hello facility poweroff", memory=128 << 20)
    assert "facility 158 yes" in guest.wait_for_output("facility 161 no")
    result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF


def test_an_image_is_refused_on_another_machine(protected_guest: ProtectedGuests, tmp_path: Path) -> None:
    protected_guest(kernel=testguest.kernel(), cmdline="poweroff", memory=128 << 20).wait(PATIENCE)
    (image,) = protected_guest.directory.glob("sealed-*.img")
    other = Machine.create(tmp_path / "other")
    result = protected_guest(image, machine=other, memory=128 << 20).wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.REFUSED


def test_what_to_boot_has_to_be_given_once(protected_guest: ProtectedGuests, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either an image or a kernel"):
        protected_guest()
    with pytest.raises(ZsealError, match="cannot read the image"):
        protected_guest(tmp_path / "absent.img")


def processes_with(setting: str) -> list[Path]:
    """Return the processes that have ``setting`` in their environment, which children inherit."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if setting.encode() in environment.read_bytes():
                found.append(environment)
    return found


def test_a_failing_test_shows_the_console_and_leaves_no_guest(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from zseal import testguest\n"
        "def test_mine(protected_guest):\n"
        "    guest = protected_guest(kernel=testguest.kernel(), cmdline='hello loop', memory=128 << 20)\n"
        "    guest.wait_for_output('hello')\n"
        "    assert False\n"
    )
    mark = f"ZSEAL_TEST_MARK={tmp_path}"
    assert processes_with("PATH=") != []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "ZSEAL_TEST_MARK": str(tmp_path)},
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    shown = done.stdout.split("console of guest 0", 1)
    assert len(shown) == 2, done.stdout
    assert "zseal-test-guest: hello" in shown[1]
    assert processes_with(mark) == []


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, zseal.pytest_plugin\n"
        "print([name for name in ('numpy', 'cryptography', 'unicorn', 'lxml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
