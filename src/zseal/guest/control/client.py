"""Controls a running guest from any process of its user.

::

    with GuestControl("demo") as guest:
        print(guest.status()["state"])
        guest.page_out(Path("demo.pages"), 1000)
        guest.resume()
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from zseal.errors import FormatError
from zseal.files import atomic_output
from zseal.guest.control.protocol import (
    ANSWER_LIMIT,
    DATA_LIMIT,
    VERSION,
    ControlError,
    Request,
    parse_object,
)
from zseal.guest.control.registry import Directory, NoDirectoryError, check_name, no_such_guest, peer_credentials
from zseal.jsonvalue import Json

if TYPE_CHECKING:
    from zseal.ultravisor.pagemap import PageMap

ANSWER_SECONDS = 60.0
"""How long a guest may be silent while it works on a request; paging reports every MiB."""
_LIST_SECONDS = 2.0

Report = Callable[[int, int], None]
"""Called with pages done and the total."""


class GuestControl:
    """A connection to the running guest ``name``; a context manager.

    Raises ControlError if it does not run, does not answer within ``timeout`` s, or refuses.
    """

    def __init__(self, name: str, *, timeout: float = ANSWER_SECONDS) -> None:
        check_name(name)
        self.name = name
        self._number = 0
        try:
            with Directory() as directory:
                self._socket = directory.connect(name)
        except NoDirectoryError:
            raise no_such_guest(name) from None
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            self._pid, uid = peer_credentials(self._socket)
            if os.geteuid() not in (uid, 0):
                raise ControlError(f"the guest {name} belongs to another user")
            self._socket.settimeout(timeout)
            self._stream: BinaryIO = self._socket.makefile("rb")
            undo.callback(self._stream.close)
            greeting = self._line()
            if greeting.get("protocol") != VERSION:
                raise ControlError(
                    f"the guest {name} speaks version {greeting.get('protocol')!r} of the protocol, not {VERSION}",
                    hint="use the zseal that started it",
                )
            undo.pop_all()

    def close(self) -> None:
        """End the connection; the guest goes on."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> GuestControl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- requests ---

    def request(
        self,
        command: str,
        *,
        data: Callable[[bytes], object] | None = None,
        progress: Report | None = None,
        **arguments: Json,
    ) -> dict[str, Json]:
        """Send ``command`` and return its result; ``data`` gets the raw bytes as they arrive.

        Arguments that are None are omitted.
        """
        self._number += 1
        given = {key: value for key, value in arguments.items() if value is not None}
        with self._talking():
            self._socket.sendall(Request(command, given, self._number).pack())
        while True:
            message = self._line()
            size = message.get("data")
            if isinstance(size, int):
                piece = self._bytes(size)
                if data is not None:
                    data(piece)
            elif isinstance(error := message.get("error"), dict):
                raise ControlError(str(error.get("message")))
            elif isinstance(result := message.get("result"), dict):
                return result
            elif isinstance(step := message.get("progress"), dict) and progress is not None:
                done, total = step.get("done"), step.get("total")
                if isinstance(done, int) and isinstance(total, int):
                    progress(done, total)

    def _line(self) -> dict[str, Json]:
        with self._talking():
            line = self._stream.readline(ANSWER_LIMIT)
        if not line.endswith(b"\n"):
            raise self._ended()
        return parse_object(line)

    def _bytes(self, size: int) -> bytes:
        if not 0 <= size <= DATA_LIMIT:
            raise ControlError(f"the guest {self.name} announces {size} bytes, more than is allowed")
        with self._talking():
            piece = self._stream.read(size)
        if len(piece) < size:
            raise self._ended()
        return piece

    def _ended(self) -> ControlError:
        return ControlError(f"the guest {self.name} ended the conversation", hint="it has ended, or was too busy")

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise ControlError(
                f"the guest {self.name} is not responding (PID {self._pid})",
                hint="check whether its process is stopped",
            ) from None
        except ConnectionError:
            raise self._ended() from None
        except OSError as error:
            raise ControlError(f"the connection to the guest {self.name} broke: {error.strerror}") from None

    # --- requests to the guest ---

    def status(self, *, lines: int = 0) -> dict[str, Json]:
        """Return the guest's state, with the last ``lines`` lines of its console; see docs/guest-control.md."""
        return self.request("status", lines=lines)

    def console(self, *, lines: int | None = None) -> list[str]:
        """Return the last lines of the console: all that are kept, or ``lines``."""
        shown = self.request("console", lines=lines).get("lines")
        return [str(line) for line in shown] if isinstance(shown, list) else []

    def pages(self) -> PageMap:
        """Return the state of every page."""
        import numpy as np

        from zseal.ultravisor.pagemap import GUEST_KINDS, PageMap

        states = bytearray()
        answer = self.request("pages", data=states.extend)
        codes = np.frombuffer(bytes(states), np.uint8)
        if set(np.unique(codes).tolist()) - set(GUEST_KINDS):
            raise FormatError("the guest has page states that this zseal does not know")
        return PageMap(str(answer.get("title")), codes, GUEST_KINDS)

    def read_memory(self, address: int, length: int) -> bytes:
        """Return what the host sees of ``length`` bytes at guest absolute ``address``."""
        found = bytearray()
        self.request("read-memory", data=found.extend, address=address, length=length)
        return bytes(found)

    def dump(self, path: Path, *, overwrite: bool = False, progress: Report | None = None) -> int:
        """Write what the host sees of all guest memory to the new file ``path``; return the number of bytes.

        ``progress`` is called with bytes. Raises OutputError if the file cannot be written.
        """
        total = self.status()["memory"]
        with atomic_output(path, overwrite=overwrite) as stream:

            def take(piece: bytes) -> None:
                stream.write(piece)
                if progress is not None and isinstance(total, int):
                    progress(stream.tell(), total)

            self.request("dump", data=take)
            return stream.tell()

    def pause(self) -> None:
        """Stop the CPUs."""
        self.request("pause")

    def resume(self, *, progress: Report | None = None) -> int:
        """Bring back and verify all pages that are out, and let the CPUs run; return the number of pages."""
        return _count(self.request("resume", progress=progress), "pages")

    def page_out(
        self,
        path: Path,
        count: int | None = None,
        *,
        start: int = 0,
        overwrite: bool = False,
        progress: Report | None = None,
    ) -> int:
        """Move ``count`` private pages (None: all) from address ``start`` on to the new file ``path``; return how many.

        The guest is paused until they are back. Its own process writes the file.
        """
        place = os.path.abspath(path)  # noqa: PTH100 - a name stays as the user wrote it
        answer = self.request(
            "page-out", progress=progress, path=place, count=count, start=start, overwrite=overwrite
        )  # fmt: skip
        return _count(answer, "pages")

    def page_in(self, path: Path, *, progress: Report | None = None) -> int:
        """Bring back the pages in ``path``; return their number. A page that was changed ends the guest."""
        place = os.path.abspath(path)  # noqa: PTH100
        return _count(self.request("page-in", progress=progress, path=place), "pages")

    def stop(self, *, wait: int = 0) -> str:
        """Ask the guest's system to power off and end the guest after ``wait`` s, with its disks written out; return
        its result.

        0 ends it immediately.
        """
        self._socket.settimeout(wait + ANSWER_SECONDS)
        return str(self.request("stop", wait=wait).get("message"))

    def kill(self) -> str:
        """End the guest immediately, its disks as they are; return its result."""
        return str(self.request("kill").get("message"))


def _count(answer: dict[str, Json], name: str) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) else 0


def list_guests() -> list[dict[str, Json]]:
    """Return the status of each guest of this user, and remove what killed ones left behind.

    A guest that does not answer has the ``state`` "not answering".
    """
    try:
        with Directory() as directory:
            directory.clean()
            names = directory.names()
    except NoDirectoryError:
        return []
    found = []
    for name in names:
        try:
            with GuestControl(name, timeout=_LIST_SECONDS) as guest:
                found.append(guest.status())
        except ControlError:
            if _still_there(name):
                found.append({"name": name, "state": "not answering"})
    return found


def _still_there(name: str) -> bool:
    with Directory() as directory:
        return name in directory.names()
