"""The events of a guest: what is kept for those who read them late."""

from __future__ import annotations

import asyncio

import pytest

from zseal.engine.interface import Console
from zseal.guest import events as guest_events
from zseal.guest.events import ConsoleOutput, Event, EventStream, Started


def outputs(stream: EventStream) -> list[bytes]:
    return [event.data for event in stream.read(0) if isinstance(event, ConsoleOutput)]


def test_only_so_many_bytes_of_output_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_events, "OUTPUT_LIMIT", 10)
    stream = EventStream()
    stream.add(Started(0.0))
    reader = stream.read(0)
    assert isinstance(next(reader), Started)
    for data in (b"aaaa", b"bbbb", b"cc", b"dd"):
        stream.add(ConsoleOutput(0.0, Console.TERMINAL, data))
    assert outputs(stream) == [b"bbbb", b"cc", b"dd"]
    assert [event.data for event in reader if isinstance(event, ConsoleOutput)] == [b"bbbb", b"cc", b"dd"]
    stream.add(ConsoleOutput(0.0, Console.TERMINAL, b"e" * 10))
    assert outputs(stream) == [b"e" * 10]


def test_only_so_many_events_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_events, "EVENT_LIMIT", 3)
    stream = EventStream()
    for second in range(5):
        stream.add(Event(float(second)))
    assert [event.seconds for event in stream.read(0)] == [2.0, 3.0, 4.0]


def test_a_guest_that_never_falls_silent_leaves_its_readers_loop_to_others() -> None:
    stream = EventStream()

    async def read() -> None:
        stream.add(Started(0.0))
        async for event in stream.read_async():
            if event.seconds == 1000:
                break
            stream.add(Event(event.seconds + 1))  # so there always is another

    async def run() -> bool:
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(run())


def test_a_reader_that_goes_follows_no_longer() -> None:
    stream = EventStream()

    async def read_one() -> Event:
        return await anext(stream.read_async())

    async def run() -> None:
        reader = asyncio.create_task(read_one())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(stream._followers) == 1
        reader.cancel()
        await asyncio.wait([reader])
        assert not stream._followers

    asyncio.run(run())
