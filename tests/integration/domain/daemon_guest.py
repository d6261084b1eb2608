"""Runs one domain through a libvirt daemon of its own and tells as JSON what virsh did to it; see test_daemons.py.

``python daemon_guest.py URI DOMAIN IMAGE MACHINE FOLDER``: for ``qemu:///system`` as root in a mount namespace of its
own, where libvirt's folders are empty and its daemon is started here; a session's daemon is started by libvirt itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zseal.domain.document import Document
from zseal.domain.launch import DomainGuest, translate
from zseal.guest.events import Ended, Protected
from zseal.hostkeys.machine import Machine
from zseal.libvirt.connection import open_connection

FOLDERS = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
# libvirt 11 does not start without a program to set up firewalls with
PROGRAMS = ("qemu-system-s390x", "libvirtd", "virtqemud", "virsh", "mount", "umount", "iptables", "ip6tables", "nft")
# nothing beside the daemon has to run, and QEMU needs no user of its own
CONFIGURATION = 'stdio_handler = "file"\nuser = "root"\ngroup = "root"\nnamespaces = []\ncgroup_controllers = []\n'
SECONDS = 500.0


def programs(folder: Path) -> None:
    """Let PATH hold what is needed alone: libvirt asks every QEMU that it finds for its abilities, a second each."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in PROGRAMS:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin")
        if path is not None:
            (bin_folder / name).symlink_to(path)
    os.environ["PATH"] = str(bin_folder)


@contextlib.contextmanager
def session_daemon(folder: Path) -> Iterator[None]:
    """libvirt starts the daemon; it is ended here, for it would stay for two minutes."""
    run, configuration = folder / "run", folder / "etc" / "libvirt"
    run.mkdir(mode=0o700)
    configuration.mkdir(parents=True)
    (configuration / "qemu.conf").write_text('stdio_handler = "file"\n', encoding="utf-8")
    os.environ.update(
        HOME=str(folder), XDG_RUNTIME_DIR=str(run), XDG_CONFIG_HOME=str(folder / "etc"),
        XDG_CACHE_HOME=str(folder / "cache"), XDG_DATA_HOME=str(folder / "data"),
    )  # fmt: skip
    try:
        yield
    finally:
        for pid in (run / "libvirt").glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGTERM)


@contextlib.contextmanager
def system_daemon() -> Iterator[None]:
    """A system daemon, seen in this mount namespace only."""
    with contextlib.ExitStack() as undo:
        for name in FOLDERS:
            Path(name).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", name], check=True)
            undo.callback(subprocess.run, ["umount", "--lazy", name], check=False)
        undo.enter_context(_daemon())
        yield


@contextlib.contextmanager
def _daemon() -> Iterator[None]:
    Path("/etc/libvirt/qemu.conf").write_text(CONFIGURATION, encoding="utf-8")
    for name in ("libvirtd", "virtqemud"):
        Path(f"/etc/libvirt/{name}.conf").write_text('auth_unix_rw = "none"\n', encoding="utf-8")
    name = "libvirtd" if shutil.which("libvirtd") else "virtqemud"
    daemon = subprocess.Popen([name, "--pid-file", "/run/libvirt/zseal-test.pid"])
    try:
        deadline = time.monotonic() + SECONDS
        while not list(Path("/run/libvirt").glob("*-sock")):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not start")
            time.sleep(0.05)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def protected_again(guest: DomainGuest) -> bool:
    """Whether the guest enters protected mode once more."""
    for event in guest.events(timeout=SECONDS):
        if isinstance(event, Protected | Ended):
            return isinstance(event, Protected)
    return False


def run(uri: str, domain: Path, image: Path, machine: Path) -> dict[str, object]:
    """Start the guest, let virsh suspend, reset, resume and destroy it; return what was seen."""

    def virsh(*words: str) -> str:
        done = subprocess.run(["virsh", "-q", "-c", uri, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    translated = translate(Document(domain.name, domain.read_bytes()), image=image, user_network=True)
    with (
        open_connection(uri) as connection,
        DomainGuest(translated, connection=connection, machine=Machine.load(machine), timeout=SECONDS) as guest,
    ):
        seen: dict[str, object] = {"protected": protected_again(guest)}
        guest.wait_for_output("waiting", SECONDS)
        name = virsh("list", "--name")
        seen["listed"] = name
        virsh("suspend", name)
        seen["suspended"] = virsh("domstate", name)
        virsh("reset", name)
        time.sleep(1)
        seen["still suspended"] = virsh("domstate", name)
        virsh("resume", name)
        seen["protected after a reset while suspended"] = protected_again(guest)
        guest.wait_for_output("waiting", SECONDS)
        virsh("reset", name)
        seen["protected after a reset"] = protected_again(guest)
        virsh("destroy", name)
        result = guest.wait(SECONDS)
        seen["outcome"] = result.outcome.value if result is not None else None
        seen["left"] = virsh("list", "--all", "--name")
    return seen


def main() -> None:
    """Do it with the daemon that the URI names."""
    uri, folder = sys.argv[1], Path(sys.argv[5])
    programs(folder)
    with session_daemon(folder) if uri.endswith("/session") else system_daemon():
        print(json.dumps(run(uri, *map(Path, sys.argv[2:5]))))


if __name__ == "__main__":
    main()
