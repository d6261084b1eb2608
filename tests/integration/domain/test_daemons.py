"""Domains run through libvirt's daemons too, where virsh sees them and has its way with them.

The daemons are started here, apart from the computer's own: the session's in folders of its own, the system's in a
mount namespace (as root, through sudo where the tests are not).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

pytestmark = pytest.mark.qemu

DOMAIN = Path(__file__).parents[2] / "vectors" / "domains" / "ok-ls-minimal.xml"
SCRIPT = Path(__file__).with_name("daemon_guest.py")
ROOT = os.geteuid() == 0


def _namespace(uri: str) -> list[str]:
    """The command that gives the script its surroundings."""
    if uri.endswith("/session"):
        # root has no session: it becomes somebody else, with the rights it needs on its own files
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if ROOT else []
    return ["unshare", "--mount"] if ROOT else ["sudo", "-n", "unshare", "--mount"]


@pytest.mark.parametrize("uri", ["qemu:///session", "qemu:///system"])
def test_virsh_sees_suspends_resets_and_ends_a_guest(uri: str, tmp_path: Path) -> None:
    machine = Machine.create(tmp_path / "machine")
    image = tmp_path / "image"
    build_image(image, kernel=kernel(), cmdline=b"hello wait", host_keys=[machine.keys.host.public_key()])
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    raw = DOMAIN.read_bytes().replace(b"/var/lib/libvirt/images/se-guest.qcow2", str(disk).encode())
    raw = raw.replace(b"type='qcow2' cache='none' io='native'", b"type='raw'").replace(b"'GiB'>4", b"'MiB'>64")
    domain = tmp_path / "domain.xml"
    domain.write_bytes(raw)
    short = Path(tempfile.mkdtemp(prefix="z-"))  # a Unix socket's path has at most 107 characters
    try:
        command = [
            *_namespace(uri),
            sys.executable,
            str(SCRIPT),
            uri,
            str(domain),
            str(image),
            str(tmp_path / "machine"),
        ]
        done = subprocess.run([*command, str(short)], capture_output=True, text=True, timeout=300, check=False)
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout) == {
        "protected": True,
        "listed": "ok-ls-minimal",
        "suspended": "paused",
        "still suspended": "paused",
        "protected after a reset while suspended": True,
        "protected after a reset": True,
        "outcome": "stopped",
        "left": "",
    }
