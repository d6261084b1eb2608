"""Guests in a program with an event loop: waiting takes no thread, and cancelling leaves no guest behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

MEMORY = 8 * MIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machine") / "m", name="m")


@pytest.fixture
def image(tmp_path: Path, machine: Machine) -> Path:
    path = tmp_path / "image"
    build_image(path, kernel=kernel(), cmdline=b"say=ready loop", host_keys=[machine.keys.host.public_key()])
    return path


async def read_to_the_end(guest: Guest) -> None:
    async for _ in guest.events_async():
        pass


def test_nothing_waits_for_a_thread_of_the_executor(image: Path, machine: Machine) -> None:
    free = threading.Event()

    async def one() -> Result | None:
        async with Guest(image, machine=machine, memory=MEMORY, engine="embedded") as guest:
            readers = [asyncio.create_task(read_to_the_end(guest)) for _ in range(3)]
            async for event in guest.events_async():
                if isinstance(event, ConsoleOutput) and b"ready" in event.data:
                    break
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
        return guest.result

    async def run() -> list[Result | None]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait)
        try:
            async with asyncio.timeout(PATIENCE):
                return list(await asyncio.gather(one(), one()))
        finally:
            free.set()
            await busy

    assert [result and result.outcome for result in asyncio.run(run())] == [Outcome.STOPPED] * 2


class SlowGuest(Guest):
    """Takes its ``slow`` step only once it may."""

    slow: str
    loop: asyncio.AbstractEventLoop
    begun: asyncio.Event
    may: threading.Event

    def prepare(self, slow: str) -> None:
        self.slow, self.may, self.begun = slow, threading.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def take(self, name: str, step: Callable[[], None]) -> None:
        if name == self.slow:
            self.loop.call_soon_threadsafe(self.begun.set)
            self.may.wait(PATIENCE)
        step()

    def start(self) -> None:
        self.take("start", super().start)

    def close(self) -> None:
        self.take("close", super().close)


@pytest.mark.parametrize("slow", ["start", "close"])
def test_a_guest_is_ended_also_where_entering_or_leaving_is_cancelled(image: Path, machine: Machine, slow: str) -> None:
    async def run() -> Result | None:
        guest = SlowGuest(image, machine=machine, memory=MEMORY, engine="embedded")
        guest.prepare(slow)

        async def use() -> None:
            async with guest:
                if slow == "start":
                    raise AssertionError("entered in spite of the cancel")

        task = asyncio.create_task(use())
        await guest.begun.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        guest.may.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([task])
        assert task.cancelled()
        return guest.result

    result = asyncio.run(run())
    assert result is not None
    assert result.outcome is Outcome.STOPPED
