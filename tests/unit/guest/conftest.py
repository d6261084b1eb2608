"""A guest without QEMU: an engine that only remembers what it was told, in a loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.waiting import PATIENCE
from zseal.arch.psw import Psw
from zseal.engine.interface import NO_HOOKS, Capabilities, Console, Engine, EngineHooks, EngineListener, Stop, StopKind
from zseal.engine.memory import SharedMemory
from zseal.guest.control.registry import Directory, listen
from zseal.guest.control.server import ControlServer
from zseal.guest.events import EventStream
from zseal.guest.session import Session
from zseal.guest.watch.monitor import Monitor
from zseal.jsonvalue import Json

_T = TypeVar("_T")
MEMORY = 4 << 20


class IdleEngine(Engine):
    """Runs nothing; ``told`` lists what was asked of it."""

    name = "idle"
    capabilities = Capabilities()

    def __init__(self) -> None:
        self._memory = SharedMemory(MEMORY)
        self._listener: EngineListener | None = None
        self._ended = False
        self.told: list[str] = []
        self.powers_off = False

    @property
    def memory(self) -> SharedMemory:
        return self._memory

    @property
    def cpu_count(self) -> int:
        return 1

    def statistics(self) -> dict[str, int | float | str]:
        return {"version": "0"}

    def start(self, loop: asyncio.AbstractEventLoop, listener: EngineListener, hooks: EngineHooks = NO_HOOKS) -> None:
        self._listener = listener

    def protected(self, entry: Psw) -> None:
        pass

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        pass

    def write(self, text: str) -> None:
        assert self._listener is not None
        self._listener.console(Console.TERMINAL, text.encode())

    def stop(self, kind: StopKind) -> None:
        assert self._listener is not None
        if not self._ended:
            self._ended = True
            self._listener.stopped(Stop(kind))

    def request_poweroff(self) -> bool:
        self.told.append("poweroff")
        if self.powers_off:
            asyncio.get_running_loop().call_later(0.1, self.stop, StopKind.POWEROFF)
        return True

    def kill(self) -> None:
        self.told.append("kill")
        asyncio.get_running_loop().call_soon(self.stop, StopKind.LOST)

    def end(self) -> None:
        self.told.append("end")
        self.stop(StopKind.CLOSED)

    def close(self) -> None:
        self.stop(StopKind.CLOSED)
        self._memory.close()


class IdleGuest:
    """A guest that listens as ``name``."""

    def __init__(self, name: str) -> None:
        self.engine = IdleEngine()
        self.loop = asyncio.new_event_loop()
        subject: dict[str, Json] = {"kernel": "idle", "memory": MEMORY, "cpus": 1, "disks": []}
        self.session = Session(self.engine, EventStream(), subject, loop=self.loop)
        self.server = ControlServer(listen(name), Monitor(self.session, name))
        self.session.at_end.append(self.server.ended)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.do(lambda: self.server.start(self.loop))
        self.do(lambda: self.session.start())

    def do(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the guest's loop, where it has 10 s at most: a client that blocks it is found out."""

        async def call() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def close(self) -> None:
        self.do(self.server.close)
        self.do(self.engine.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of guests; its path is longer than a socket's address may be."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder / "zseal"


@pytest.fixture
def guest(runtime: Path) -> Iterator[IdleGuest]:
    guest = IdleGuest("idle")
    yield guest
    guest.close()


@pytest.fixture
def connect(guest: IdleGuest) -> Iterator[Callable[[], socket.socket]]:
    """Makes connections that have read the greeting."""
    made: list[socket.socket] = []

    def new() -> socket.socket:
        with Directory() as directory:
            connection = directory.connect("idle")
        connection.settimeout(PATIENCE)
        made.append(connection)
        assert b'"protocol":1' in connection.recv(1000)
        return connection

    yield new
    for connection in made:
        connection.close()
