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
main()
"""


def zseal(folder: Path, command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *command.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_images_and_host_keys_on_another_system(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(fake_kernel())
    zseal(tmp_path, "machine create m")
    trust = "--bundle m --root-ca m/root-ca.crt --offline"
    zseal(tmp_path, f"image create -i vmlinuz -k m/host-key.crt {trust} -o a.img")
    zseal(tmp_path, f"hostkey verify -k m/host-key.crt {trust}")
    zseal(tmp_path, "hostkey bundle create kept -C m/signing-key.crt,m/intermediate-ca.crt --offline")
    assert "would start it" in zseal(tmp_path, "image verify a.img --machine m --extract parts")
    assert (tmp_path / "parts" / "kernel").read_bytes() == (tmp_path / "vmlinuz").read_bytes()
    assert "boot image" in zseal(tmp_path, "inspect a.img")
