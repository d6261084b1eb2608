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
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import VECTORS
from tests.waiting import PATIENCE
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

pytestmark = pytest.mark.qemu

DOMAIN = VECTORS / "domains" / "ok-ls-minimal.xml"
SCRIPT = Path(__file__).with_name("daemon_guest.py")
SOMEBODY = 1
"""A user and a group that every system has, for libvirt looks their names up."""
ROOT = os.geteuid() == 0


def _session(folder: Path) -> list[str]:
    """The command that makes root somebody with a session: in a user namespace, or where there is none, in earnest."""
    namespace = ["unshare", "--user", f"--map-user={SOMEBODY}", f"--map-group={SOMEBODY}"]
    if not ROOT:
        return []
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0:
        return namespace
    for path in (folder, *folder.rglob("*")):  # in a chroot; Python and these files have to be readable for all there
        os.chown(path, SOMEBODY, SOMEBODY)
    return ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name (a Unix socket's path has at most 107 characters) that others may enter."""
    path = Path(tempfile.mkdtemp(prefix="z-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("uri", ["qemu:///session", "qemu:///system"])
def test_virsh_sees_suspends_resets_and_ends_a_guest(uri: str, folder: Path) -> None:
    machine = Machine.create(folder / "machine")
    image, disk, domain = folder / "image", folder / "disk.img", folder / "domain.xml"
    build_image(image, kernel=kernel(), cmdline=b"hello wait", host_keys=[machine.keys.host.public_key()])
    disk.write_bytes(bytes(1 << 20))
    raw = DOMAIN.read_bytes().replace(b"/var/lib/libvirt/images/se-guest.qcow2", str(disk).encode())
    raw = raw.replace(b"type='qcow2' cache='none' io='native'", b"type='raw'").replace(b"'GiB'>4", b"'MiB'>64")
    domain.write_bytes(raw)
    if uri == "qemu:///session":
        prefix = _session(folder)
    else:
        # not made private: that is refused in a chroot, and the script takes its mounts away itself
        prefix = ["unshare", "--mount", "--propagation", "unchanged"]
        prefix = prefix if ROOT else ["sudo", "-n", *prefix]
    command = [*prefix, sys.executable, str(SCRIPT), uri, str(domain), str(image), str(folder / "machine"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
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
