"""A live Linux leaves its memory as ciphertext, comes back to it, and powers off when it is asked to."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.arch.storage import MIB
from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.guest.control.client import GuestControl
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

MEMORY = 512 * MIB
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t tmpfs tmpfs /tmp
$b dd if=/bin/busybox of=/tmp/copy 2>/dev/null
echo "before $($b sha256sum < /tmp/copy)"
while read -r line; do
    echo "after $($b sha256sum < /tmp/copy) $line"
done
"""


def test_linux_survives_the_absence_of_all_its_memory(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    archive = DebianArchive("trixie")
    image = tmp_path / "linux.img"
    build_image(
        image,
        kernel=archive.kernel().kernel,
        ramdisk=busybox_ramdisk(archive.busybox(), INIT),
        cmdline=b"console=ttysclp0 swiotlb=4096 quiet",
        host_keys=[machine.keys.host.public_key()],
    )
    with Guest(image, machine=machine, memory=MEMORY, name="linux", timeout=PATIENCE) as guest:
        before = re.search(r"before ([0-9a-f]{64})", guest.wait_for_output(" -", PATIENCE))
        assert before
        assert guest.observe().phase == "kernel"
        with GuestControl("linux") as control:
            moved = control.page_out(tmp_path / "pages")
            assert moved > 0.9 * MEMORY / 4096
            assert guest.host.find(b"Linux version") is None
            time.sleep(1)
            assert control.resume() == moved
            guest.write_console(b"once-more\n")
            assert answer(guest) == f"after {before[1]}  - once-more"
            assert control.stop(wait=60) == "the guest powered off"
        assert guest.wait(PATIENCE) is not None
        assert guest.result is not None
        assert guest.result.outcome is Outcome.POWEROFF


def answer(guest: Guest) -> str:
    """The line that the guest writes when it has read one."""

    def find() -> str | None:
        lines = guest.observe(lines=5).console
        return next((line for line in lines if line.startswith("after") and line.endswith("once-more")), None)

    return wait_until(find) or ""
