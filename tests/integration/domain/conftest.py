"""A libvirt in this process; the tests fail, and never skip, where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zseal.libvirt.connection import Connection, open_connection

NEEDED = (
    "libvirt is missing: install libvirt-daemon-driver-qemu, libvirt-daemon-system, libvirt-dev, pkg-config and gcc "
    "(Debian), and the Python package libvirt-python"
)


@pytest.fixture(scope="session")
def connection() -> Iterator[Connection]:
    if importlib.util.find_spec("libvirt") is None:
        pytest.fail(NEEDED)
    # not below pytest's directory: the name of a socket in it has at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="zseal-", ignore_cleanup_errors=True) as root:
        os.environ["LIBVIRT_LOG_OUTPUTS"] = f"3:file:{root}/libvirt.log"
        with open_connection(f"qemu:///embed?root={root}") as opened:
            yield opened


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path
