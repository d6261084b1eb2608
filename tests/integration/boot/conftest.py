"""A plain machine of stock QEMU: no ultravisor, no facility 161."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

QEMU = "qemu-system-s390x"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left: the console, and why QEMU ended (QMP's events)."""

    console: str
    events: list[dict[str, object]]

    @property
    def lines(self) -> list[str]:
        return [line for line in self.console.replace("\r", "").split("\n") if line]

    def event(self, name: str) -> dict[str, object]:
        """The data of the first event called ``name``."""
        data = next(event["data"] for event in self.events if event["event"] == name)
        assert isinstance(data, dict)
        return data


class PlainMachine:
    """Starts QEMU, waits for the guest to end, and reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, image: bytes, *options: str, console: str = "sclpconsole") -> Run:
        kernel = self.folder / "kernel"
        kernel.write_bytes(image)
        output = self.folder / "console"
        ended = subprocess.run(
            [
                *(QEMU, "-machine", "accel=tcg", "-m", "128", "-nodefaults", "-display", "none"),
                *("-S", "-no-reboot", "-action", "panic=shutdown"),
                *("-chardev", f"file,id=console,path={output}", "-device", f"{console},chardev=console"),
                *("-qmp", "stdio", "-kernel", str(kernel), *options),
            ],
            input='{"execute": "qmp_capabilities"}\n{"execute": "cont"}\n',  # events are sent from here on
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended.stderr
        replies = [json.loads(line) for line in ended.stdout.splitlines()]
        return Run(output.read_text("ascii"), [reply for reply in replies if "event" in reply])


@pytest.fixture
def plain_machine(tmp_path: Path) -> PlainMachine:
    assert shutil.which(QEMU), f"{QEMU} is not installed"
    return PlainMachine(tmp_path)
