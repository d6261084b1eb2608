"""Runs the test guest on either engine, protected or not."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from zseal.arch.storage import MIB
from zseal.engine.embedded import EmbeddedEngine
from zseal.engine.interface import Engine, Milestone
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.engine import QemuEngine
from zseal.guest.events import ConsoleOutput, EventStream, Reached
from zseal.guest.outcome import Result
from zseal.guest.protection import SecureExecution
from zseal.guest.session import Session
from zseal.hostkeys.machine import Machine
from zseal.hypervisor.vmm import Vmm
from zseal.image.build import build_image
from zseal.testguest import kernel

EngineName = Literal["embedded", "qemu"]
MEMORY = 32 * MIB
PREFIX = "zseal-test-guest: "


@dataclasses.dataclass
class Run:
    """What a run left behind."""

    lines: list[str]
    milestones: list[Milestone]
    result: Result
    pages: dict[str, int]
    host: dict[int, bytes]


@dataclasses.dataclass
class Laboratory:
    """Seals and runs guests in ``folder``."""

    folder: Path
    machine: Machine
    other: Machine

    def seal(self, words: str, *, machine: Machine | None = None, ramdisk: bytes | None = None) -> Path:
        path = self.folder / "image"
        path.unlink(missing_ok=True)
        key = (machine or self.machine).host_key_document.public_key()
        build_image(path, kernel=kernel(), ramdisk=ramdisk, cmdline=words.encode(), host_keys=[key])  # type: ignore[list-item]
        return path

    def run(
        self,
        engine: EngineName,
        path: Path,
        *,
        cpus: int = 1,
        look_at: tuple[int, ...] = (),
        meanwhile: Callable[[Session, Vmm, bytes], None] | None = None,
        resets: int = 0,
    ) -> Run:
        """Run the image and return its console lines; ``look_at`` are pages the host reads at the end."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with open_engine(engine, descriptor, path, cpus) as subject:
                return self._run(subject, cpus, look_at, meanwhile, resets)
        finally:
            os.close(descriptor)

    def _run(
        self,
        subject: Subject,
        cpus: int,
        look_at: tuple[int, ...],
        meanwhile: Callable[[Session, Vmm, bytes], None] | None,
        resets: int,
    ) -> Run:
        events = EventStream()
        loop = asyncio.new_event_loop()
        protect = functools.partial(SecureExecution, keys=self.machine.keys, cpus=cpus)
        session = Session(subject.engine, events, {}, loop=loop, protect=protect)
        vmm = session.protection.vmm
        assert vmm is not None
        pages: dict[str, int] = {}
        host: dict[int, bytes] = {}

        def at_end() -> None:
            pages.update(vmm.page_counts())
            for address in look_at:
                host[address] = vmm.ultravisor.host.view(address, 4096, live=True)

        session.at_end.append(at_end)
        output = b""
        seen = 0
        milestones: list[Milestone] = []
        try:
            session.start(60)
            while session.result is None:
                loop.run_until_complete(asyncio.sleep(0.002))
                everything = list(events.read(0.0))
                output = b"".join(event.data for event in everything if isinstance(event, ConsoleOutput))
                milestones = [event.milestone for event in everything if isinstance(event, Reached)]
                if meanwhile is not None and len(output) > seen:
                    seen = len(output)
                    meanwhile(session, vmm, output)
                if resets and milestones.count(Milestone.IMAGE_ENTRY) > resets:
                    subject.engine.end()
        finally:
            session.protection.close()
            subject.engine.close()
            loop.close()
        everything = list(events.read(0.0))
        output = b"".join(event.data for event in everything if isinstance(event, ConsoleOutput))
        milestones = [event.milestone for event in everything if isinstance(event, Reached)]
        lines = [line.removeprefix(PREFIX) for line in output.decode("ascii").splitlines() if line]
        return Run(lines, milestones, session.result, pages, host)


@dataclasses.dataclass
class Subject:
    """An engine that is closed at the end, whatever happens."""

    engine: Engine

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()


def open_engine(name: EngineName, descriptor: int, path: Path, cpus: int) -> Subject:
    if name == "embedded":
        return Subject(EmbeddedEngine(descriptor, memory=MEMORY, cpus=cpus))
    with path.open("rb") as stream:
        stream.seek(4)
        entry = int.from_bytes(stream.read(4), "big") & 0x7FFFFFFF
    return Subject(QemuEngine(MachineConfig(kernel=descriptor, memory=MEMORY, cpus=cpus), entry=entry))


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Machine]:
    folder = tmp_path_factory.mktemp("machines")
    made = []
    for name in ("ours", "theirs"):
        Machine.create(folder / name, name=name)
        made.append(Machine.load(folder / name))
    return made[0], made[1]


@pytest.fixture
def laboratory(tmp_path: Path, machines: tuple[Machine, Machine]) -> Iterator[Laboratory]:
    yield Laboratory(tmp_path, *machines)
