"""Lint asks a real libvirt for a domain and its host; libvirt's own test driver has one domain called test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.integration.domain.conftest import NEEDED
from tests.waiting import PATIENCE
from zseal.errors import InputError
from zseal.libvirt.fetch import fetch


@pytest.fixture(autouse=True)
def _libvirt() -> None:
    if importlib.util.find_spec("libvirt") is None:
        pytest.fail(NEEDED)


def test_a_domain_is_fetched_by_name_and_by_uuid() -> None:
    by_name = fetch("test:///default", "test")
    assert b"<name>test</name>" in by_name.xml
    uuid = by_name.xml.split(b"<uuid>")[1].split(b"<")[0].decode()
    assert fetch("test:///default", uuid).xml == by_name.xml


def test_what_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match=r"test:///default: no domain 'gone'; virsh list --all"):
        fetch("test:///default", "gone")
    with pytest.raises(InputError, match="libvirt cannot connect"):
        fetch("nothing:///here", "gone")


def test_the_command_lints_what_libvirt_knows() -> None:
    command = [
        sys.executable,
        "-m",
        "zseal",
        "domain",
        "lint",
        "--format",
        "json",
        "--connect",
        "test:///default",
        "test",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    (report,) = json.loads(done.stdout)["files"]
    assert report["file"] == "test:///default/test"
    assert "PV101" in [finding["rule"] for finding in report["findings"]]
