"""A real kernel shares its bounce buffers with run-ahead exactly as it does without, in a fraction of the stops."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from zseal.arch.storage import MIB
from zseal.debian.archive import DebianArchive
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.engine import QemuEngine
from zseal.guest.events import ConsoleOutput, EventStream
from zseal.guest.outcome import Outcome
from zseal.guest.protection import SecureExecution
from zseal.guest.session import Session
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

MEMORY = 512 * MIB
SLABS = 4096
POOL_PAGES = SLABS * 2048 // 4096


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_a_boot_with_run_ahead_shares_the_same_pages(tmp_path: Path, suite: str) -> None:
    Machine.create(tmp_path / "machine", name="machine")
    machine = Machine.load(tmp_path / "machine")
    image = tmp_path / "image"
    build_image(
        image,
        kernel=DebianArchive(suite).kernel().kernel.read_bytes(),
        cmdline=f"console=ttysclp0 swiotlb={SLABS} nokaslr panic=0".encode(),
        host_keys=[machine.host_key_document.public_key()],  # type: ignore[list-item]  # a host key is always P-521
    )
    fast, fast_pages, fast_console = boot(image, machine, run_ahead=True)
    slow, slow_pages, slow_console = boot(image, machine, run_ahead=False)
    assert fast_pages["shared"] == slow_pages["shared"] >= POOL_PAGES
    for console in (fast_console, slow_console):
        assert "Unable to mount root fs" in console  # there is none: this is the boot's regular end
        assert "Oops" not in console
    assert isinstance(fast["calls_without_stop"], int)
    assert fast["calls_without_stop"] > 0.98 * POOL_PAGES
    assert isinstance(fast["stops"], int)
    assert isinstance(slow["stops"], int)
    assert fast["stops"] < slow["stops"] / 4
    assert slow["calls_without_stop"] == 0


def boot(image: Path, machine: Machine, *, run_ahead: bool) -> tuple[dict[str, int | float | str], dict[str, int], str]:
    kernel = os.open(image, os.O_RDONLY)
    entry = int.from_bytes(os.pread(kernel, 4, 4), "big") & 0x7FFFFFFF
    engine = QemuEngine(MachineConfig(kernel=kernel, memory=MEMORY), entry=entry, run_ahead=run_ahead)
    events = EventStream()
    loop = asyncio.new_event_loop()
    session = Session(engine, events, {}, loop=loop, protect=lambda run: SecureExecution(run, keys=machine.keys))
    pages: dict[str, int] = {}
    session.at_end.append(lambda: pages.update(session.protection.page_counts))
    try:
        session.start(200)
        while session.result is None:
            loop.run_until_complete(asyncio.sleep(0.01))
        assert session.result.outcome is Outcome.PANIC, session.result.message
        output = b"".join(event.data for event in events.read(0.0) if isinstance(event, ConsoleOutput))
        return engine.statistics(), pages, output.decode("ascii", "replace")
    finally:
        session.protection.close()
        engine.close()
        loop.close()
        os.close(kernel)
