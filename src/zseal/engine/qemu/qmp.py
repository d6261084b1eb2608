"""A client of QEMU's machine protocol (QMP): commands in order, events kept until they are read.

It is small and synchronous on purpose: a reset that came before a breakpoint must be known when the breakpoint is
handled, and only a client that reads at that moment knows it. Source: docs/interop/qmp-spec of QEMU.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections import deque
from collections.abc import Iterator

from zseal.engine.errors import EngineError, EngineLostError, EngineSilentError
from zseal.jsonvalue import Json

LINE_LIMIT = 8 << 20
REPLY_SECONDS = 30.0


class QmpEvent:
    """An event: its ``name`` and its ``data``."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: dict[str, Json]) -> None:
        self.name = name
        self.data = data

    def text(self, key: str) -> str:
        """Return the member ``key`` of the data as text; empty if it is missing."""
        value = self.data.get(key, "")
        return value if isinstance(value, str) else json.dumps(value)


class Qmp:
    """A QMP session over ``connection``, which this object owns.

    Raises EngineLostError if QEMU is gone, EngineError if it refuses a command.
    """

    def __init__(self, connection: socket.socket, *, timeout: float = REPLY_SECONDS) -> None:
        self._socket = connection
        self._set_timeout(timeout)
        self._commands = 0
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._buffer = bytearray()
        self._events: deque[QmpEvent] = deque(maxlen=1024)
        self.version: tuple[int, int, int] = (0, 0, 0)
        self.state_events = False
        """Whether to report STOP and RESUME. Each stop at a breakpoint causes both, so they are not worth parsing."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when an event comes."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    @contextlib.contextmanager
    def answers_within(self, seconds: float) -> Iterator[None]:
        """Give QEMU this long to answer in the block; otherwise EngineLostError."""
        before = self._timeout
        self._set_timeout(seconds)
        try:
            yield
        finally:
            self._set_timeout(before)

    def _set_timeout(self, seconds: float) -> None:
        self._timeout = seconds
        if self._socket.fileno() >= 0:  # otherwise it is closed
            self._socket.settimeout(seconds)

    def handshake(self) -> None:
        """Read the greeting and enter command mode."""
        greeting = self._object("QMP", self._message().get("QMP"))
        numbers = self._object("version", self._object("version", greeting.get("version")).get("qemu"))
        major, minor, micro = (numbers.get(key) for key in ("major", "minor", "micro"))
        if not (isinstance(major, int) and isinstance(minor, int) and isinstance(micro, int)):
            raise EngineError("QEMU's greeting names no version")
        self.version = (major, minor, micro)
        self.execute("qmp_capabilities")

    @staticmethod
    def _object(what: str, value: Json) -> dict[str, Json]:
        if not isinstance(value, dict):
            raise EngineError(f"QEMU's answer has no object {what}")
        return value

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError as error:
            raise EngineSilentError(f"QEMU did not answer for {self._timeout:.0f} s") from error
        except ConnectionError:
            data = b""
        if not data:
            raise EngineLostError("QEMU closed its control connection")
        self._buffer += data
        if len(self._buffer) > LINE_LIMIT:
            raise EngineError("QEMU sent an endless message")

    def _buffered(self) -> dict[str, Json] | None:
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self.state_events or (b'"event": "STOP"' not in line and b'"event": "RESUME"' not in line):
                break
        try:
            return self._object("message", json.loads(line))
        except ValueError as error:
            raise EngineError("QEMU sent a message that is not JSON") from error

    def _message(self) -> dict[str, Json]:
        while (message := self._buffered()) is None:
            self._receive()
        return message

    def _keep(self, message: dict[str, Json]) -> bool:
        """Put an event aside; returns False for anything else."""
        name = message.get("event")
        if not isinstance(name, str):
            return False
        data = message.get("data", {})
        self._events.append(QmpEvent(name, data if isinstance(data, dict) else {}))
        return True

    def send(self, command: str, **arguments: Json) -> None:
        """Send ``command`` without waiting for its answer, which is dropped when it comes."""
        request: dict[str, Json] = {"execute": command, "id": "unread"}
        if arguments:
            request["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise EngineLostError("QEMU closed its control connection") from error

    def execute(self, command: str, **arguments: Json) -> Json:
        """Send ``command`` and return its result; argument names have ``_`` for ``-``."""
        self._commands += 1
        name = f"{command} {self._commands}"  # the answer to an abandoned command may come later
        request: dict[str, Json] = {"execute": command, "id": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise EngineLostError("QEMU closed its control connection") from error
        while True:
            message = self._message()
            if self._keep(message) or message.get("id") != name:
                continue
            if "error" in message:
                raise EngineError(f"QEMU refused {command}: {self._object('error', message['error']).get('desc')}")
            return message.get("return")

    def events(self) -> list[QmpEvent]:
        """Return all events that have arrived, oldest first, without waiting.

        It returns the last ones before the end of the connection first, and only then raises EngineLostError.
        """
        lost: EngineLostError | None = None
        while lost is None and self._readable.poll(0):
            try:
                self._receive()
            except EngineLostError as error:
                lost = error
        while (message := self._buffered()) is not None:
            self._keep(message)
        if lost is not None and not self._events:
            raise lost
        found = list(self._events)
        self._events.clear()
        return found

    def wait_for(self, name: str) -> list[QmpEvent]:
        """Wait for the event ``name``, which an earlier command will cause; return the events before it."""
        while all(event.name != name for event in self._events):
            self._keep(self._message())
        before = []
        while (event := self._events.popleft()).name != name:
            before.append(event)
        return before
