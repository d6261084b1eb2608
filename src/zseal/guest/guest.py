"""Run a boot image as a protected guest: the class behind ``zseal run``, for programs and tests.

::

    with Guest(Path("linux.img"), machine=Machine.load(Path("my-machine")), memory=1 << 30) as guest:
        for event in guest.events():
            if isinstance(event, ConsoleOutput):
                sys.stdout.buffer.write(event.data)
    print(guest.report["outcome"], guest.report["ultravisor"])

A guest lives in a thread of its own with an event loop; QEMU ends when that thread does, so also when this process is
killed. A guest that still runs when the interpreter exits is ended first. A control socket, an audit of input/output or
a live view run in that loop: see :meth:`Guest.in_loop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from zseal.arch.storage import PAGE_SHIFT
from zseal.crypto.keyexchange import MachineKeys
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.engine.errors import EngineError
from zseal.engine.interface import NO_HOOKS, Engine, EngineHooks
from zseal.engine.machine import DEFAULT_MACHINE_TYPE, MachineConfig, fixed_memory_size
from zseal.engine.qemu.plugin_queues import QueueWatch
from zseal.errors import InputError, UsageError
from zseal.guest.async_steps import to_its_end
from zseal.guest.at_exit import end_at_exit, forget
from zseal.guest.audit.audit import IoAudit
from zseal.guest.audit.pages import SHARED_STATES
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.control.registry import check_name, listen
from zseal.guest.control.server import ControlServer
from zseal.guest.devices import with_boot_disk
from zseal.guest.diagnosis import Diagnosis
from zseal.guest.engines import EngineName, create_engine
from zseal.guest.events import ConsoleOutput, Ended, Event, EventStream, Outcome, Protected, Result
from zseal.guest.fences import check_arguments
from zseal.guest.host_view import Host
from zseal.guest.image import BootImage, inspect_image
from zseal.guest.observation import Observation
from zseal.guest.paging.paging import Paging, finish
from zseal.guest.records import Record
from zseal.guest.resources import check_memory
from zseal.guest.session import Session
from zseal.guest.thread import GuestThread
from zseal.guest.watch.monitor import Monitor
from zseal.guest.watch.recorder import Recorder
from zseal.hostkeys.machine import Machine
from zseal.hypervisor.vmm import Vmm
from zseal.jsonvalue import Json
from zseal.linux import kernel_file
from zseal.ultravisor.tables import blank_states

DEFAULT_MEMORY = 1 << 30
_T = TypeVar("_T")


class Guest:
    """One run of ``image`` on ``machine``; a context manager that starts it and, at the end, ends it in any case.

    ``machine`` may be the directory of one as well.
    Without an image (None) the firmware boots from the disk with the lowest boot index, or the first: an image that
    zipl has installed there. ``memory`` is in bytes (rounded up to what QEMU can have), ``timeout`` in seconds.
    ``qemu`` is the program to use, ``qemu_arguments`` are given to it (see ``zseal.guest.fences``).
    ``engine`` is what executes the guest, "qemu" or "embedded": the latter needs no QEMU, but the package unicorn, and
    has neither devices nor Linux (docs/engines.md); UsageError where something else asks for them.
    ``run_ahead`` False makes every ultravisor call stop QEMU, as without the package unicorn. ``io_policy`` says what
    happens where a device is given a page that the guest does not share: "enforce", "audit" or "off". Raises ZsealError
    if the image cannot be run: it is none, the memory is too little for it or more than this computer has free, QEMU is
    missing or does not start.

    With a ``name`` (letters, digits, dots, dashes, underscores) other processes of this user find and control it, see
    ``zseal.guest.control``; it must not be in use, but with ``number_name``, which makes it ``name-2`` and so on then.
    ``record`` collects what :attr:`record` tells.
    """

    def __init__(
        self,
        image: Path | None,
        *,
        machine: Machine | Path,
        memory: int = DEFAULT_MEMORY,
        cpus: int = 1,
        disks: Sequence[Disk] = (),
        networks: Sequence[UserNetwork] = (),
        random_sources: Sequence[RandomSource] = (),
        machine_type: str = DEFAULT_MACHINE_TYPE,
        line_mode_console: bool = False,
        timeout: float | None = None,
        qemu: str | None = None,
        qemu_arguments: Sequence[str] = (),
        engine: EngineName | str = EngineName.QEMU,
        run_ahead: bool = True,
        io_policy: IoPolicy | str = IoPolicy.ENFORCE,
        name: str | None = None,
        number_name: bool = False,
        record: bool = False,
    ) -> None:
        policy = IoPolicy.of(io_policy)
        check_arguments(qemu_arguments, protected=True, audited=policy is not IoPolicy.OFF)
        if name is not None:
            check_name(name)
        if not isinstance(machine, Machine):
            machine = Machine.load(Path(machine))
        with contextlib.ExitStack() as files:
            subject: dict[str, Json]
            if image is None:
                disks, first = with_boot_disk(disks)
                kernel, entry, boot = None, kernel_file.ENTRY, None
                subject = {"image": None, "boot_disk": first.path, "machine": machine.name}
            else:
                boot = inspect_image(image)
                files.callback(boot.close)
                kernel, entry = boot.descriptor, boot.entry
                subject = {"image": str(image), "image_bytes": boot.size, "machine": machine.name}
            config = MachineConfig(
                kernel=kernel,
                memory=fixed_memory_size(memory),
                cpus=cpus,
                disks=tuple(disks),
                networks=tuple(networks),
                random_sources=tuple(random_sources),
                line_mode_console=line_mode_console,
                machine_type=machine_type,
                extra=tuple(qemu_arguments),
                audited=policy is not IoPolicy.OFF,
            )
            if boot is not None:
                boot.check_memory(config.memory)
            check_memory(config.memory)
            self._prepare(
                config,
                subject,
                files,
                engine=create_engine(engine, config, entry=entry, program=qemu, run_ahead=run_ahead),
                keys=machine.keys,
                boot=boot,
                timeout=timeout,
                io_policy=policy,
                name=name,
                number_name=number_name,
                record=record,
            )

    @classmethod
    def plain(
        cls,
        kernel: Path,
        *,
        ramdisk: Path | None = None,
        cmdline: str = "",
        memory: int = DEFAULT_MEMORY,
        cpus: int = 1,
        disks: Sequence[Disk] = (),
        networks: Sequence[UserNetwork] = (),
        timeout: float | None = None,
        qemu: str | None = None,
        qemu_arguments: Sequence[str] = (),
        engine: EngineName | str = EngineName.QEMU,
    ) -> Self:
        """Return a guest that boots ``kernel`` without any protection, as QEMU alone does: to compare with."""
        check_arguments(qemu_arguments, protected=False)
        self = cls.__new__(cls)
        with contextlib.ExitStack() as files:
            config = MachineConfig(
                kernel=_open(kernel, "kernel", files),
                ramdisk=None if ramdisk is None else _open(ramdisk, "ramdisk", files),
                cmdline=cmdline,
                memory=fixed_memory_size(memory),
                cpus=cpus,
                disks=tuple(disks),
                networks=tuple(networks),
                extra=tuple(qemu_arguments),
            )
            check_memory(config.memory)
            subject: dict[str, Json] = {"kernel": str(kernel)}
            subject_engine = create_engine(engine, config, program=qemu)
            self._prepare(config, subject, files, engine=subject_engine, keys=None, timeout=timeout)
        return self

    def _prepare(
        self,
        config: MachineConfig,
        subject: dict[str, Json],
        files: contextlib.ExitStack,
        *,
        engine: Engine,
        keys: MachineKeys | None,
        boot: BootImage | None = None,
        timeout: float | None,
        io_policy: IoPolicy = IoPolicy.OFF,
        name: str | None = None,
        number_name: bool = False,
        record: bool = False,
    ) -> None:
        self._name = name
        self._number_name = number_name
        self._boot = boot
        self._timeout = timeout
        self._stream = EventStream()
        self._engine = engine
        self._control: ControlServer | None = None
        self._started = self._closed = False
        with contextlib.ExitStack() as undo:
            undo.callback(engine.close)
            if timeout is not None and not timeout > 0:  # NaN is not above 0 either
                raise UsageError(f"a guest's timeout is a number of seconds above 0, not {timeout:g}")
            self._watch: QueueWatch | None = None
            if keys is not None and io_policy is not IoPolicy.OFF and engine.capabilities.notifications:
                self._watch = QueueWatch(engine.memory.size >> PAGE_SHIFT, SHARED_STATES)
                undo.callback(self._watch.close)
            place = blank_states if self._watch is None else self._watch.blank_states
            self._vmm = None if keys is None else Vmm(engine.memory, config.cpus, keys, blank_states=place)
            if self._vmm is not None:
                undo.callback(self._vmm.close)
            subject |= {"memory": config.memory, "cpus": config.cpus, "disks": [disk.path for disk in config.disks]}
            self._session = Session(self._engine, self._vmm, self._stream, subject)
            self._hooks = self._make_hooks(io_policy)
            self._monitor = Monitor(self._session, name or "")
            self._recorder = Recorder(self._monitor) if record else None
            self._thread = GuestThread("zseal-guest")
            undo.pop_all()
        self._files = files.pop_all()

    def _make_hooks(self, io_policy: IoPolicy) -> EngineHooks:
        """Return what the engine is to ask, as far as it can."""
        if self._vmm is None:
            return NO_HOOKS
        watched = self._watch is not None
        return EngineHooks(
            notification=self._session.audit_io(io_policy, self._watch).notified if watched else None,
            queues=self._watch.descriptor if self._watch is not None else None,
            first_touch=self._vmm.touch if self._engine.capabilities.first_touch else None,
        )

    # --- life ---

    def start(self) -> None:
        """Create the machine and let the guest run."""
        if self._started:
            raise EngineError("a guest cannot be started twice")
        self._started = True
        end_at_exit(self.close)
        try:
            self._thread.start()
            self._thread.call(self._begin)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        loop = self._thread.loop
        if self._name is not None:
            listener = listen(self._name, numbered=self._number_name)
            self._monitor.name = listener.name
            self._control = ControlServer(listener, self._monitor)
            self._control.start(loop)
            self._session.at_end.append(self._control.ended)
        if self._recorder is not None:
            self._recorder.start(loop)
        if self._vmm is not None and self._boot is not None:
            self._boot.announce(self._vmm)
        self._session.start(loop, self._timeout, self._hooks)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await to_its_end(self.start)
        except asyncio.CancelledError:
            await to_its_end(self.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await to_its_end(self.close)

    def close(self) -> None:
        """End the guest if it runs, and give back all it used; no effect the second time."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._started and self._thread.alive:
                self._thread.call(self._release)
            else:
                self._release()
        finally:
            self._thread.close()
            self._files.close()
            forget(self.close)

    def _release(self) -> None:
        with contextlib.ExitStack() as steps:
            if self._watch is not None:
                steps.callback(self._watch.close)
            steps.callback(self._engine.close)
            if self._vmm is not None:
                steps.callback(self._vmm.close)
            steps.callback(self._session.end, Result(Outcome.STOPPED, "the guest was stopped"))
            if self._control is not None:
                steps.callback(self._control.close)

    # --- what happens ---

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield what happens, from the start on, until the guest has ended (or nothing happened for ``timeout`` s)."""
        return self._stream.read(timeout)

    def events_async(self) -> AsyncIterator[Event]:
        """Yield what happens, for a program with an event loop of its own."""
        return self._stream.read_async()

    def wait(self, timeout: float | None = None) -> Result | None:
        """Wait until the guest has ended and return how, or None after ``timeout`` s."""
        return self._stream.wait_for_end(timeout)

    def wait_for_protection(self, timeout: float = 60.0) -> None:
        """Wait until the guest runs protected for the first time; raises EngineError if it never does."""
        for event in self._stream.read_until(timeout):
            if isinstance(event, Protected):
                return
            if isinstance(event, Ended):
                raise EngineError(f"the guest was never protected: {event.result.message}")
        raise EngineError(f"the guest was not protected within {timeout:g} s")

    def wait_for_output(self, text: str, timeout: float = 60.0) -> str:
        """Return what the guest has written up to and including ``text``; raises EngineError if it never does."""
        if not isinstance(text, str):
            raise TypeError(f"wait_for_output takes a str, not {type(text).__name__}")
        written = bytearray()
        for event in self._stream.read_until(timeout):
            if isinstance(event, ConsoleOutput):
                written += event.data
                if (at := written.find(text.encode())) >= 0:
                    return written[: at + len(text.encode())].decode("utf-8", "replace")
            elif isinstance(event, Ended):
                raise EngineError(f"the guest ended before it wrote {text!r}: {event.result.message}")
        raise EngineError(f"the guest did not write {text!r} within {timeout:g} s")

    @property
    def result(self) -> Result | None:
        """How the run ended; None while it has not."""
        return self._session.result

    @property
    def report(self) -> dict[str, Json]:
        """The account of the run, empty while it has not ended; docs/run-results.md has the keys."""
        return self._session.report

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """Known failures that the guest's console told of so far, explained."""
        return self._session.diagnoses

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected now; what has ended does not run."""
        return self._vmm is not None and self._vmm.protected and self.result is None

    def observe(self, *, lines: int = 10) -> Observation:
        """Return what can be seen of the guest now, with so many last lines of its console."""
        return self._thread.call(lambda: self._monitor.observe(lines=lines))

    @property
    def record(self) -> Record:
        """What happened over time, for ``zseal.guest.watch.html``; raises EngineError unless that was asked for."""
        if self._recorder is None:
            raise EngineError("this run is not recorded", hint="start the guest with record=True")
        return self._thread.call(self._recorder.record)

    # --- what can be done ---

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data`` at the guest's console: all of it waits there until the guest takes it, or has ended.

        ``when_room`` is called in the guest's thread once little of it waits, so that more may be typed; at once where
        so, and at the guest's end.
        """
        self._thread.call(lambda: self._engine.write_console(data, when_room))

    def pause(self) -> None:
        """Stop the guest's CPUs; raises EngineError if it has ended."""
        self._thread.call(self._session.pause)

    def resume(self) -> None:
        """Let them run again, once the pages that are out are back and verified.

        Raises PageIntegrityError, with the guest ended, where a page is not what it was.
        """
        self._thread.call(self._session.resume)

    def page_out(self, path: Path, count: int | None = None, *, start: int = 0, overwrite: bool = False) -> int:
        """Pause the guest and move ``count`` private pages (None: all) from ``start`` on to the new file ``path``.

        ``start`` is a guest absolute address. What lands in the file is what an export gives. Returns their number;
        raises as ``zseal.guest.paging.paging`` says.
        """
        paging = self._paging
        path = Path(os.path.abspath(path))  # noqa: PTH100 - a name stays what its user called it
        before = paging.pages_out
        self._thread.call(lambda: finish(paging.page_out(path, count, start=start, overwrite=overwrite)))
        return paging.pages_out - before

    def page_in(self, path: Path) -> int:
        """Bring back the pages that wait in ``path``, verified; returns their number. The guest goes on standing still.

        Raises PageIntegrityError, with the guest ended, where a page is not what it was.
        """
        paging = self._paging
        path = Path(os.path.abspath(path))  # noqa: PTH100
        before = paging.pages_in
        self._thread.call(lambda: finish(paging.page_in(path)))
        return paging.pages_in - before

    @property
    def _paging(self) -> Paging:
        if self._session.paging is None:
            raise EngineError("the guest is not protected, so there are no private pages to export")
        return self._session.paging

    def stop(self, result: Result | None = None) -> None:
        """End the guest in an orderly way for its disks, not for what runs in it; ``result`` says why."""
        reason = result or Result(Outcome.STOPPED, "the guest was stopped")
        self._thread.call(lambda: self._session.end(reason))

    @property
    def host(self) -> Host:
        """The host's view of the guest's memory, also after its end until ``close``."""
        memory = self._engine.memory if self._vmm is None else self._vmm.host_side
        return Host(memory, closed=lambda: self._closed)

    @property
    def io(self) -> IoAudit | None:
        """What the guest's devices were told to do and moved, from any thread; None without an audit."""
        return self._session.io

    def in_loop(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the guest's thread, where no trap is being handled, and return what it returns."""
        return self._thread.call(function)

    @property
    def engine(self) -> Engine:
        """What executes the guest, for extensions: touch it in the guest's loop only."""
        return self._engine

    @property
    def vmm(self) -> Vmm | None:
        """What protects the guest, None for a plain one, for extensions: touch it in the guest's loop only."""
        return self._vmm

    @property
    def session(self) -> Session:
        """What listens to the engine, for extensions: touch it in the guest's loop only."""
        return self._session


def _open(path: Path, what: str, files: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot read the {what}: {error.strerror}", where=str(path)) from error
    files.callback(os.close, descriptor)
    return descriptor
