"""The guest's console with zseal run: on a pseudo-terminal, a socket, and the terminal of its user."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.waiting import PATIENCE
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from .conftest import Seal
else:
    Seal = object

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]


def command(image: Path, machine: Machine, *options: str) -> list[str]:
    zseal = [sys.executable, "-m", "zseal", "run", str(image), "--machine", str(machine.directory)]
    return [*zseal, "--memory", "512M", *options]


class Terminal:
    """One end of a terminal or connection, read until something comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = b""

    def wait_for(self, text: bytes) -> bytes:
        while text not in self.seen:
            ready, _, _ = select.select([self._descriptor], [], [], PATIENCE)
            assert ready, self.seen
            data = os.read(self._descriptor, 1 << 16)
            assert data, self.seen
            self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, data: bytes) -> None:
        os.write(self._descriptor, data)


def use(terminal: Terminal) -> None:
    """Use the guest's shell, and power it off with it."""
    terminal.wait_for(b"@ready")
    terminal.type(b"echo guest $(cat /sys/firmware/uv/prot_virt_guest)\r")
    terminal.wait_for(b"guest 1")
    terminal.type(b"poweroff -f\r")


def announced(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    match = re.fullmatch(r"Console of the guest: (.*)\n", process.stderr.readline().decode())
    assert match is not None
    return match[1]


def ends_well(process: subprocess.Popen[bytes]) -> None:
    output, errors = process.communicate(timeout=PATIENCE)
    assert output == b""
    assert errors == b"the guest powered off\n"
    assert process.returncode == 0


def test_pty(seal: Seal, machine: Machine) -> None:
    arguments = command(seal(), machine, "--console", "pty")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        terminal = os.open(announced(process), os.O_RDWR | os.O_NOCTTY)
        try:
            use(Terminal(terminal))
            ends_well(process)
        finally:
            os.close(terminal)


def test_socket(seal: Seal, machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "console"
    arguments = command(seal(), machine, "--console", f"socket:{path}")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert announced(process) == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            use(Terminal(connection.fileno()))
            ends_well(process)
    assert not path.exists()


@pytest.mark.parametrize("leave", [False, True], ids=["power off", "escape key"])
def test_stdio(seal: Seal, machine: Machine, leave: bool) -> None:
    user, program = pty.openpty()
    try:
        arguments = command(seal(), machine, "--console", "stdio")
        with subprocess.Popen(arguments, stdin=program, stdout=program, stderr=program) as process:
            terminal = Terminal(user)
            terminal.wait_for(b"Ctrl-]")
            if leave:
                terminal.wait_for(b"@ready")
                terminal.type(b"\x03echo still $((1 + 1))\r")  # Ctrl-C is a key like any other
                terminal.wait_for(b"still 2")
                terminal.type(b"\x1d")
                terminal.wait_for(b"error: ended at its console")
            else:
                use(terminal)
                terminal.wait_for(b"the guest powered off")
            assert process.wait(PATIENCE) == (130 if leave else 0)
    finally:
        os.close(user)
        os.close(program)


def test_input_from_a_pipe_is_typed(seal: Seal, machine: Machine) -> None:
    arguments = command(seal(), machine, "--console", "stdio")
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        terminal = Terminal(process.stdout.fileno())
        terminal.wait_for(b"@ready")
        process.stdin.write(b"echo sum $((40 + 2))\npoweroff -f\n")
        process.stdin.close()
        terminal.wait_for(b"sum 42")
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "diagnosis: the guest refused the virtio_blk device virtio0"),
        ("quiet", "diagnosis: the guest made no use of virtio-blk 0.0.000"),
    ],
    ids=["shown", "quiet"],
)
def test_disk_without_iommu_is_refused_by_the_guest_and_explained_once_at_the_end(
    seal: Seal, machine: Machine, tmp_path: Path, words: str, said: str
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    report = tmp_path / "report.json"
    image = seal(f"swiotlb=4096 {words}")
    arguments = command(image, machine, "--disk", f"{disk},iommu=off", "--console", "stdio", "--report", str(report))
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        Terminal(process.stdout.fileno()).wait_for(b"@ready")
        output, errors = process.communicate(
            b"[ -b /dev/vda ] || echo no $((40 + 2)) disk\npoweroff -f\n", timeout=PATIENCE
        )
    assert b"no 42 disk" in output
    lines = errors.decode().splitlines()
    assert lines[-1] == "the guest powered off"
    assert lines[-2].startswith(said)
    assert "iommu_platform=on" in lines[-2]
    (listed,) = json.loads(report.read_text())["diagnoses"]
    assert listed["id"] == "virtio-without-iommu"
    assert listed["hint"] in lines[-2]
