"""Native code with AddressSanitizer and UndefinedBehaviorSanitizer: its tests pass there as well, beside its twins."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.unit.native.building import sanitized_environment
from tests.waiting import PATIENCE

AGAIN = (
    "tests/unit/engine/qemu/test_plugin_queues.py",
    "tests/unit/engine/unicorn/test_series.py",
    "tests/unit/native/test_series_calls.py",
    "tests/unit/native/test_plugin_events.py",
    "tests/unit/native/test_guest_code.py",
)

FAULT = """
import ctypes
from pathlib import Path
from tests.unit.native.building import HARNESS, build

library = ctypes.CDLL(str(build(Path({folder!r}), "faults", [HARNESS / "faults.c"])))
buffer = bytes(1000)
print(library.{call}, flush=True)
"""


def test_native_code_passes_its_tests_with_sanitizers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-v", "-x", "-s", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ended = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'again'}", *AGAIN],
        cwd=REPOSITORY,
        env=sanitized_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-8000:]
    for file in AGAIN:
        assert re.search(rf"^{re.escape(file)}::test_.* PASSED", ended.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("call", "report"),
    [
        ("read_past(buffer, 0)", None),
        ("read_past(buffer, 1001)", "heap-buffer-overflow"),
        ("read_past_array(5)", "out of bounds"),
        ("shift(1, 33)", "shift exponent 33 is too large"),
        ("add(2147483647, 1)", "signed integer overflow"),
    ],
)
def test_the_sanitizers_find_faults(call: str, report: str | None, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAULT.format(folder=str(tmp_path), call=call)],
        cwd=REPOSITORY,
        env=sanitized_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if report is None:
        assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr
    else:
        assert ended.returncode != 0
        assert ended.stdout == ""
        assert report in ended.stderr
