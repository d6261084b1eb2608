"""The commands of the control socket; docs/guest-control.md describes them for users.

A command is a generator that runs in the guest's loop between traps, with at most a MiB of work at a time. It yields
what the client gets before the end, and returns the result. If the guest ends first, ControlError is thrown into it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeAlias

from zseal.arch.storage import MIB
from zseal.guest.control.protocol import Arguments, ControlError
from zseal.guest.host_view import HostView
from zseal.guest.outcome import Outcome, Result
from zseal.guest.paging.paging import Paging, Steps
from zseal.guest.watch.monitor import Monitor
from zseal.jsonvalue import Json


@dataclasses.dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` pages; not sent to a client that does not keep up."""

    done: int
    total: int


@dataclasses.dataclass(frozen=True)
class Data:
    """At most a MiB of raw bytes."""

    data: bytes


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing to send: continue after ``seconds``."""

    seconds: float


Part: TypeAlias = Progress | Data | Wait
Answer: TypeAlias = Generator[Part, None, dict[str, Json]]
Command: TypeAlias = Callable[["Controlled", Arguments], Answer]

_END_SECONDS = 10.0
"""How long a guest that was ended may take to disappear."""
_POLL_SECONDS = 0.05
_MAX_WAIT = 3600
_MAX_LINES = 10_000
_ASKED = ("kernel", "running")
"""Phases in which an operating system may take a request to power off."""


@dataclasses.dataclass(frozen=True)
class Controlled:
    """The guest on which commands act."""

    monitor: Monitor

    @property
    def paging(self) -> Paging:
        """The pages of the guest; raises ControlError if it is not a protected one."""
        paging = self.monitor.session.protection.paging
        if paging is None:
            raise ControlError("the guest is not protected, so there are no private pages to export")
        return paging

    @property
    def host(self) -> HostView:
        """The host view of the guest's memory."""
        return HostView(self.monitor.session.protection.host_memory)


def _status(guest: Controlled, arguments: Arguments) -> Answer:
    yield from ()
    lines = arguments.number("lines", 0)
    return {"pid": os.getpid(), **guest.monitor.observe(lines=min(lines, _MAX_LINES)).to_json()}


def _console(guest: Controlled, arguments: Arguments) -> Answer:
    yield from ()
    lines = arguments.optional_number("lines", least=1)
    shown: list[Json] = [*guest.monitor.console.lines(lines)]
    return {"lines": shown}


def _pages(guest: Controlled, _: Arguments) -> Answer:
    pages = guest.monitor.page_map()
    data = pages.states.tobytes()
    for at in range(0, len(data), MIB):
        yield Data(data[at : at + MIB])
    counts: dict[str, Json] = {**guest.monitor.page_counts()}
    names: dict[str, Json] = {str(code): kind.name for code, kind in pages.kinds.items()}
    return {"title": guest.monitor.name, "pages": len(data), "counts": counts, "states": names}


def _read_memory(guest: Controlled, arguments: Arguments) -> Answer:
    address, length = arguments.number("address"), arguments.number("length", least=1)
    yield from _view(guest.host, address, length)
    return {"address": address, "length": length}


def _dump(guest: Controlled, _: Arguments) -> Answer:
    length = guest.host.memory_size
    yield from _view(guest.host, 0, length)
    return {"address": 0, "length": length}


def _view(host: HostView, address: int, length: int) -> Generator[Part, None, None]:
    host.check(address, length)
    for at in range(address, address + length, MIB):
        yield Data(host.read_memory(at, min(MIB, address + length - at)))


def _pause(guest: Controlled, _: Arguments) -> Answer:
    yield from ()
    guest.monitor.session.pause()
    return {"state": guest.monitor.state}


def _resume(guest: Controlled, _: Arguments) -> Answer:
    protection = guest.monitor.session.protection
    before = protection.pages_in
    yield from _progress(guest.monitor.session.resume_steps())
    return {"state": guest.monitor.state, "pages": protection.pages_in - before}


def _page_out(guest: Controlled, arguments: Arguments) -> Answer:
    paging, path = guest.paging, _path(arguments)
    steps = paging.page_out(
        path,
        arguments.optional_number("count", least=1),
        start=arguments.number("start", 0),
        overwrite=arguments.flag("overwrite"),
    )
    before = paging.pages_out
    yield from _progress(steps)
    return {"state": guest.monitor.state, "pages": paging.pages_out - before, "path": str(path)}


def _page_in(guest: Controlled, arguments: Arguments) -> Answer:
    paging = guest.paging
    before = paging.pages_in
    yield from _progress(paging.page_in(_path(arguments)))
    return {"state": guest.monitor.state, "pages": paging.pages_in - before}


def _path(arguments: Arguments) -> Path:
    path = Path(arguments.text("path"))
    if not path.is_absolute():
        raise ControlError("the path of a page file must be absolute", where=str(path))
    return path


def _progress(steps: Steps) -> Generator[Part, None, None]:
    for done, total in steps:
        yield Progress(done, total)


def _stop(guest: Controlled, arguments: Arguments) -> Answer:
    session = guest.monitor.session
    patience = min(arguments.number("wait", 0), _MAX_WAIT)
    try:
        if patience and guest.monitor.phase in _ASKED and session.engine.request_poweroff():
            yield from _until_ended(guest, patience)
        session.end(Result(Outcome.STOPPED, "stopped by zseal guest stop"))
        yield from _until_ended(guest, _END_SECONDS)
    except ControlError:
        if session.result is None:
            raise
    return _ended(guest)


def _kill(guest: Controlled, _: Arguments) -> Answer:
    session = guest.monitor.session
    try:
        session.kill(Result(Outcome.STOPPED, "killed by zseal guest kill"))
        yield from _until_ended(guest, _END_SECONDS)
    except ControlError:
        if session.result is None:
            raise
    return _ended(guest)


def _until_ended(guest: Controlled, seconds: float) -> Generator[Part, None, None]:
    limit = time.monotonic() + seconds
    while guest.monitor.session.result is None and time.monotonic() < limit:
        yield Wait(_POLL_SECONDS)


def _ended(guest: Controlled) -> dict[str, Json]:
    result = guest.monitor.session.result
    if result is None:
        raise ControlError("the guest did not end")
    return {"outcome": result.outcome.value, "message": result.message}


COMMANDS: dict[str, Command] = {
    "status": _status,
    "console": _console,
    "pages": _pages,
    "read-memory": _read_memory,
    "dump": _dump,
    "pause": _pause,
    "resume": _resume,
    "page-out": _page_out,
    "page-in": _page_in,
    "stop": _stop,
    "kill": _kill,
}
