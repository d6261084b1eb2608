"""Run a boot image as a protected guest: the class that ``zseal run`` uses, for programs and tests.

::

    with Guest(Path("linux.img"), machine=Machine.load(Path("my-machine")), memory=1 << 30) as guest:
        for event in guest.events():
            if isinstance(event, ConsoleOutput):
                sys.stdout.buffer.write(event.data)
    print(guest.report["outcome"], guest.report["ultravisor"])

A guest runs in a thread of its own with an event loop; QEMU ends when that thread ends, also when this process is
killed. A guest that still runs when the interpreter exits is ended first. A control socket, the I/O audit and a live
view run in that loop: see :meth:`Guest.in_loop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar, Unpack

from zseal.engine.errors import EngineError
from zseal.engine.interface import Engine
from zseal.files import named_path
from zseal.guest.audit.audit import IoAudit
from zseal.guest.boot import UNPROTECTED, Boot, BootDisk, PlainKernel, SealedImage, Unprotected
from zseal.guest.control.registry import listen
from zseal.guest.control.server import ControlServer
from zseal.guest.diagnosis import Diagnosis
from zseal.guest.events import ConsoleOutput, Ended, Event, EventStream, Protected
from zseal.guest.host_view import HostView
from zseal.guest.observation import Observation
from zseal.guest.options import GuestKeywords, GuestOptions
from zseal.guest.outcome import Result
from zseal.guest.paging.paging import Paging, finish
from zseal.guest.records import RunRecord
from zseal.guest.session import STOPPED, Session
from zseal.guest.thread import GuestThread, end_at_exit, finish_despite_cancel, forget
from zseal.guest.watch.monitor import Monitor
from zseal.guest.watch.recorder import Recorder
from zseal.hostkeys.machine import Machine
from zseal.hypervisor.vmm import Vmm
from zseal.jsonvalue import Json

_T = TypeVar("_T")


class Guest:
    """One run of ``image`` on ``machine``; a context manager that starts it and always ends it.

    ``machine`` may also be a machine's directory. Without an image (None) the firmware boots an image that zipl
    installed on the disk with the lowest boot index, or on the first. :class:`zseal.guest.GuestOptions`
    explains the other keyword arguments. Raises ZsealError if the guest cannot be run: the image is not a boot image,
    the memory is too small for it or more than this computer has free, QEMU is missing or does not start.
    """

    def __init__(
        self,
        image: str | os.PathLike[str] | Boot | None,
        *,
        machine: Machine | str | os.PathLike[str] | Unprotected,
        **options: Unpack[GuestKeywords],
    ) -> None:
        self._options = GuestOptions(**options)
        if not isinstance(machine, Machine | Unprotected):
            machine = Machine.load(machine)
        if not isinstance(image, Boot):
            image = BootDisk() if image is None else SealedImage(named_path(image))
        self._control: ControlServer | None = None
        self._started = self._closed = False
        with contextlib.ExitStack() as files:
            plan = image.plan(self._options, machine, files)
            self._expected = plan.expected
            self._thread = GuestThread("zseal-guest")
            files.callback(self._thread.close)
            self._session = Session(
                plan.engine,
                EventStream(),
                plan.subject,
                loop=self._thread.loop,
                protect=plan.protect,
            )
            files.callback(self._session.protection.close)
            self._monitor = Monitor(self._session, self._options.name or "")
            self._recorder = Recorder(self._monitor) if self._options.record else None
            self._files = files.pop_all()

    @classmethod
    def plain(
        cls, kernel: Path, *, ramdisk: Path | None = None, cmdline: str = "", **options: Unpack[GuestKeywords]
    ) -> Self:
        """Return a guest that boots ``kernel`` without any protection, like plain QEMU, for comparison.

        Its devices are not audited, so the options ``io_policy`` and ``run_ahead`` have no effect.
        """
        return cls(PlainKernel(kernel, ramdisk, cmdline), machine=UNPROTECTED, **options)

    # --- life ---

    def start(self) -> None:
        """Create the machine and let the guest run; entering a ``with`` block does so unless it was done before."""
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
        if self._options.name is not None:
            listener = listen(self._options.name, numbered=self._options.number_name)
            self._monitor.name = listener.name
            self._control = ControlServer(listener, self._monitor)
            self._control.start(loop)
            self._session.at_end.append(self._control.ended)
        if self._recorder is not None:
            self._recorder.start(loop)
        if self._expected is not None:
            self._session.protection.expect(self._expected)
        self._session.start(self._options.timeout)

    def __enter__(self) -> Self:
        if not self._started:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            if not self._started:
                await finish_despite_cancel(self.start)
        except asyncio.CancelledError:
            await finish_despite_cancel(self.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await finish_despite_cancel(self.close)

    def close(self) -> None:
        """End the guest if it runs, and release everything that it used; a second call has no effect."""
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
            steps.callback(self._session.engine.close)
            steps.callback(self._session.protection.close)
            steps.callback(self._session.end, STOPPED)
            if self._control is not None:
                steps.callback(self._control.close)

    # --- events ---

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield events from the start on, until the guest has ended (or there was none for ``timeout`` s)."""
        return self._session.events.read(timeout)

    def events_async(self) -> AsyncIterator[Event]:
        """Yield events, for a program with an event loop of its own."""
        return self._session.events.read_async()

    def wait(self, timeout: float | None = None) -> Result | None:
        """Wait until the guest has ended and return its result, or None after ``timeout`` s."""
        return self._session.events.wait_for_end(timeout)

    def wait_for_protection(self, timeout: float = 60.0) -> None:
        """Wait until the guest runs protected for the first time; raises EngineError if it never does."""
        for event in self._session.events.read_until(timeout):
            if isinstance(event, Protected):
                return
            if isinstance(event, Ended):
                raise EngineError(f"the guest was never protected: {event.result.message}")
        raise EngineError(f"the guest was not protected within {timeout:g} s")

    def wait_for_output(self, text: str, timeout: float = 60.0) -> str:
        """Return the guest's output up to and including ``text``; raises EngineError if it never writes that."""
        if not isinstance(text, str):
            raise TypeError(f"wait_for_output takes a str, not {type(text).__name__}")
        written = bytearray()
        for event in self._session.events.read_until(timeout):
            if isinstance(event, ConsoleOutput):
                written += event.data
                if (at := written.find(text.encode())) >= 0:
                    return written[: at + len(text.encode())].decode("utf-8", "replace")
            elif isinstance(event, Ended):
                raise EngineError(f"the guest ended before it wrote {text!r}: {event.result.message}")
        raise EngineError(f"the guest did not write {text!r} within {timeout:g} s")

    @property
    def result(self) -> Result | None:
        """The result of the run; None until the run ends."""
        return self._session.result

    @property
    def report(self) -> dict[str, Json]:
        """The report of the run, empty until the run ends; docs/run-results.md has the keys."""
        return self._session.report

    @property
    def diagnoses(self) -> Sequence[Diagnosis]:
        """Known failures that the guest's console has shown so far, explained."""
        return self._session.diagnoses

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know about the execution of the guest, one sentence each."""
        return self._session.engine.notices()

    @property
    def protected(self) -> bool:
        """Whether the guest runs protected now; False once it has ended."""
        return self._session.protection.protected and self.result is None

    def observe(self, *, lines: int = 10) -> Observation:
        """Return an observation of the guest, with the last ``lines`` lines of its console."""
        return self._thread.call(lambda: self._monitor.observe(lines=lines))

    @property
    def record(self) -> RunRecord:
        """The record of the run over time, for ``zseal.guest.watch.html``; EngineError without ``record=True``."""
        if self._recorder is None:
            raise EngineError("this run is not recorded", hint="start the guest with record=True")
        return self._thread.call(self._recorder.record)

    # --- control ---

    def write_console(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Type ``data`` at the guest's console, where all of it waits until the guest takes it or has ended.

        ``when_room`` is called in the guest's thread once there is room for more: immediately, later, or at the guest's
        end.
        """
        self._thread.call(lambda: self._session.engine.write_console(data, when_room))

    def pause(self) -> None:
        """Stop the guest's CPUs; raises EngineError if it has ended."""
        self._thread.call(self._session.pause)

    def resume(self) -> None:
        """Bring back and verify the pages that are out, then let the CPUs run again.

        Raises PageIntegrityError, with the guest ended, if a page was changed.
        """
        self._thread.call(self._session.resume)

    def page_out(self, path: Path, count: int | None = None, *, start: int = 0, overwrite: bool = False) -> int:
        """Pause the guest and move ``count`` private pages (None: all) from ``start`` on to the new file ``path``.

        ``start`` is a guest absolute address. The file contains the pages' exports. Returns their number; raises as
        described in ``zseal.guest.paging.paging``.
        """
        paging = self._paging
        path = Path(os.path.abspath(path))  # noqa: PTH100 - a name stays as the user wrote it
        before = paging.pages_out
        self._thread.call(lambda: finish(paging.page_out(path, count, start=start, overwrite=overwrite)))
        return paging.pages_out - before

    def page_in(self, path: Path) -> int:
        """Bring back and verify the pages in ``path``; returns their number. The guest stays paused.

        Raises PageIntegrityError, with the guest ended, if a page was changed.
        """
        paging = self._paging
        path = Path(os.path.abspath(path))  # noqa: PTH100
        before = paging.pages_in
        self._thread.call(lambda: finish(paging.page_in(path)))
        return paging.pages_in - before

    @property
    def _paging(self) -> Paging:
        if self._session.protection.paging is None:
            raise EngineError("the guest is not protected, so there are no private pages to export")
        return self._session.protection.paging

    def stop(self, result: Result | None = None) -> None:
        """End the guest so that its disks are written out, but not the programs in it; ``result`` is the reason."""
        self._thread.call(lambda: self._session.end(result or STOPPED))

    @property
    def host(self) -> HostView:
        """The host view of the guest's memory, also after its end until ``close``."""
        return HostView(self._session.protection.host_memory, closed=lambda: self._closed)

    @property
    def io(self) -> IoAudit | None:
        """The requests and data of the guest's devices, from any thread; None without an audit."""
        return self._session.protection.audit

    def in_loop(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the guest's thread, where no trap is being handled, and return what it returns."""
        return self._thread.call(function)

    @property
    def engine(self) -> Engine:
        """The engine that executes the guest, for extensions: use it only in the guest's loop."""
        return self._session.engine

    @property
    def vmm(self) -> Vmm | None:
        """The protection of the guest, None for a plain one, for extensions: use it only in the guest's loop."""
        return self._session.protection.vmm

    @property
    def session(self) -> Session:
        """The session that listens to the engine, for extensions: use it only in the guest's loop."""
        return self._session
