"""QEMU takes the plugin, and the plugin wants its socket and the address to watch."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.waiting import PATIENCE
from zseal.engine.qemu.plugin import find_plugin
from zseal.engine.qemu.process import find_program


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("argument", "accepted"),
    [
        ("socket={},entry=65536", True),
        ("entry=65536,notifications=off,socket={}", True),
        ("lock=off,socket={},entry=65536", True),
        ("socket={}", False),
        ("entry=65536", False),
        ("socket=,entry=65536", False),
        ("socket=1x,entry=65536", False),
        ("socket={},entry=65536,notifications=no", False),
        ("socket={},entry=65536,lock=", False),
        ("socket={},entry=65536,other=3", False),
        (None, False),
    ],
)
def test_qemu_loads_it_and_it_wants_its_arguments(argument: str | None, accepted: bool) -> None:
    plugin = find_plugin()
    assert plugin is not None, "there is no plugin for this kind of computer"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        options = f"file={plugin.path}" + (f",{argument.format(theirs.fileno())}" if argument else "")
        ended = subprocess.run(
            [find_program(), "-display", "none", "-nodefaults", "-S", "-qmp", "stdio", "-plugin", options],
            input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            pass_fds=[theirs.fileno()],
        )
    assert (ended.returncode == 0) is accepted, ended.stderr
    assert accepted or "plugin" in ended.stderr.lower()
