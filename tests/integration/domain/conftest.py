"""A libvirt in this process; the tests fail, and never skip, where it is not installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zseal.libvirt.connection import Connection, open_connection

NEEDED = (
    "libvirt is missing: install libvirt-daemon-driver-qemu, libvirt-daemon-system, libvirt-dev, pkg-config and gcc "
    "(Debian), and the Python package libvirt-python"
)


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    if importlib.util.find_spec("libvirt") is None:
        pytest.fail(NEEDED)
    root = tmp_path_factory.mktemp("libvirt")
    os.environ["LIBVIRT_LOG_OUTPUTS"] = f"3:file:{root / 'libvirt.log'}"
    with open_connection(f"qemu:///embed?root={root}") as opened:
        yield opened


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path
