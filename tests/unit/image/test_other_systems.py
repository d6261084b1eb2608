"""Sealing and verifying need nothing that only Linux has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.image.conftest import fake_kernel

# What Windows or macOS lack. Attributes of os go one by one: the standard library has asked for them by then.
_WITHOUT = """
import concurrent.futures, os, pathlib, shutil, socket, ssl, subprocess, sys, tempfile, urllib.request
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "grp", "pwd", "resource", "termios"):
            raise ModuleNotFoundError(name)

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_PATH", "O_TMPFILE", "fchmod", "geteuid", "getuid", "memfd_create",
             "pidfd_open", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "sched_getaffinity", "sendfile"):
    delattr(os, name)
from zseal.cli.main import main
for line in sys.stdin:
    print("$", line, end="", flush=True)
    try:
        main(line.split())
    except SystemExit as end:
        if end.code:
            raise
"""
TRUST = "--bundle m --root-ca m/root-ca.crt --offline"
COMMANDS = f"""\
machine create m
image create -i vmlinuz -k m/host-key.crt {TRUST} -o a.img
hostkey verify -k m/host-key.crt {TRUST}
hostkey bundle create kept -C m/signing-key.crt,m/intermediate-ca.crt --offline
image verify a.img --machine m --extract parts
inspect a.img
"""


def test_images_and_host_keys_on_another_system(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(fake_kernel())
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], cwd=tmp_path, input=COMMANDS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would start it" in done.stdout and "boot image" in done.stdout
    assert (tmp_path / "parts" / "kernel").read_bytes() == (tmp_path / "vmlinuz").read_bytes()
