"""Debian on a disk as a protected guest: a login prompt, a disk that keeps what was synchronised, a network."""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zseal.engine.devices import Disk, UserNetwork
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome

if TYPE_CHECKING:
    from .conftest import Debian
else:
    Debian = object

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.kernel,
    pytest.mark.timeout(2400),  # the disk may have to be built first
    pytest.mark.xdist_group("debian-disk"),
]

SECONDS = 600.0
PAGE = random.Random(10).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[int]:
    """A web server on this computer alone; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


class Shell:
    """Root's shell on the guest's console."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._count = 0
        guest.wait_for_output("login: ", SECONDS)
        guest.write_console(b"root\n")
        guest.wait_for_output("~#", SECONDS)  # what is typed before, login throws away
        # the first prompt comes with sequences for the terminal: from the next on it is known
        # the kernel may yet have to say something, of the network for one: not in the middle of an answer
        self.run("dmesg --console-off; stty -echo; PS1=; bind 'set enable-bracketed-paste off'; cd /root")

    def run(self, command: str) -> str:
        """Run ``command``; returns what it wrote."""
        self._count += 1
        begin, end = f"@begin{self._count}@", f"@end{self._count}@"
        line = f"echo {begin[:3]}''{begin[3:]}; {command}; echo {end[:3]}''{end[3:]}\n"
        self._guest.write_console(line.encode())
        text = self._guest.wait_for_output(end, SECONDS)
        return text.rpartition(begin)[2].removesuffix(end).replace("\r", "").strip()


def test_debian_lives_as_a_protected_guest(debian: Debian, server: int, tmp_path: Path) -> None:
    disk = debian.disk(tmp_path)
    before = digest(debian.built.disk)
    data = random.Random(11).randbytes(1000).hex()
    began = time.monotonic()
    with Guest(
        debian.image,
        machine=debian.machine,
        cpus=2,
        disks=[Disk(str(disk))],
        networks=[UserNetwork()],
        timeout=2000,
    ) as guest:
        shell = Shell(guest)
        print(f"login prompt and shell after {time.monotonic() - began:.1f} s")
        assert guest.protected
        assert shell.run("cat /sys/firmware/uv/prot_virt_guest") == "1"
        assert debian.suite in shell.run("cat /etc/os-release")
        assert shell.run("dpkg --audit; dpkg-query -Wf '${Status}\\n' | sort -u") == "install ok installed"
        assert shell.run("stat -c '%U:%G %a' /etc/shadow /usr/bin/su /tmp | tr '\\n' ' '") == (
            "root:shadow 640 root:root 4755 root:root 1777"
        )
        assert re.fullmatch(r"[0-9a-f]{32}", shell.run("cat /etc/machine-id"))

        shell.run(f"echo {data} > /srv/kept && sync /srv/kept && echo unsynced > /dev/shm/x")
        shell.run("echo 3 > /proc/sys/vm/drop_caches")
        assert shell.run("sha256sum < /srv/kept").split()[0] == hashlib.sha256(f"{data}\n".encode()).hexdigest()
        assert "copied" in shell.run("dd if=/dev/urandom of=large bs=1M count=16 conv=fsync 2>&1")

        fetch = f"exec 3<>/dev/tcp/10.0.2.2/{server} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 > page"
        tries = f"for i in $(seq 200); do ({fetch}) 2>/dev/null && break; sleep 1; done"
        assert shell.run(f"{tries}; tail -c 300000 page | sha256sum").split()[0] == hashlib.sha256(PAGE).hexdigest()

        guest.write_console(b"poweroff\n")
        result = guest.wait(SECONDS)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
    assert guest.diagnoses == ()
    assert guest.report["boots"] == 1
    assert read_from_disk(disk, "/srv/kept") == f"{data}\n".encode()
    subprocess.run(["e2fsck", "-fn", partition(disk, tmp_path)], check=True, capture_output=True)
    assert digest(debian.built.disk) == before, "the cached disk is as it was"


def digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def partition(disk: Path, folder: Path) -> Path:
    """Copy the disk's partition to a file of its own."""
    copy = folder / "partition"
    subprocess.run(["dd", f"if={disk}", f"of={copy}", "bs=1M", "skip=1", "conv=sparse", "status=none"], check=True)
    return copy


def read_from_disk(disk: Path, path: str) -> bytes:
    """Return a file of the disk's partition, read on this computer."""
    copied = subprocess.run(["debugfs", "-R", f"cat {path}", f"{disk}?offset=1048576"], capture_output=True, check=True)
    return copied.stdout
