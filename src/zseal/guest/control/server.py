"""The guest's end of its control socket, in the guest's own loop.

Everything here runs between traps and never waits: a client's requests and answers are bounded, a step of work is at
most a MiB, and a client that sends nonsense, stops reading or vanishes loses its connection, with no other effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Mapping

from zseal.errors import ZsealError
from zseal.guest.acceptor import Acceptor
from zseal.guest.control.commands import COMMANDS, Answer, Controlled, Data, Progress, Wait
from zseal.guest.control.protocol import (
    LINE_LIMIT,
    VERSION,
    Arguments,
    ControlError,
    Request,
    error_part,
    pack,
)
from zseal.guest.control.registry import Listener, peer_credentials
from zseal.guest.watch.monitor import Monitor
from zseal.jsonvalue import Json
from zseal.logs import logger
from zseal.version import __version__

_LOG = logger(__name__)

CONNECTION_LIMIT = 32
"""The most clients at a time; the one that has been silent longest makes room for the next."""
IDLE_SECONDS = 600.0
"""How long a client may be silent."""
STALL_SECONDS = 30.0
"""How long a client may leave its answer unread."""


class ControlServer:
    """Answers on ``listener`` for the guest that ``monitor`` follows, until ``close``."""

    def __init__(self, listener: Listener, monitor: Monitor) -> None:
        self.name = listener.name
        self._listener = listener
        self._acceptor = Acceptor(listener.socket, self._welcome)
        self._guest = Controlled(monitor)
        self._connections: list[_Connection] = []  # the one that was silent longest first
        self._closed = False

    @property
    def guest(self) -> Controlled:
        """The guest on which commands act."""
        return self._guest

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections from now on; called in the thread of ``loop``."""
        _LOG.info("other processes reach the guest as %s", self.name)
        self._acceptor.start(loop)

    def _welcome(self, connection: socket.socket) -> None:
        try:
            pid, uid = peer_credentials(connection)
        except OSError:
            pid = uid = -1
        if uid not in (os.geteuid(), 0):
            _LOG.info("refused a connection of process %d of user %d", pid, uid)
            connection.close()
            return
        if len(self._connections) >= CONNECTION_LIMIT:
            idle = next((each for each in self._connections if not each.busy), None)
            if idle is None:
                connection.close()
                return
            idle.close()
        _LOG.debug("process %d of user %d is connected", pid, uid)
        client = _Connection(self, connection, asyncio.get_running_loop())
        self._connections.append(client)
        client.greet()

    def active(self, connection: _Connection) -> None:
        """Take note that ``connection`` has just sent something."""
        self._connections.remove(connection)
        self._connections.append(connection)

    def gone(self, connection: _Connection) -> None:
        """Take note that ``connection`` is closed."""
        self._connections.remove(connection)

    def ended(self) -> None:
        """Accept no more clients, and notify those that wait: the guest has ended."""
        self._stop_listening()
        for connection in list(self._connections):
            connection.guest_ended()

    def close(self) -> None:
        """End everything now; a second call has no effect."""
        self._stop_listening()
        for connection in list(self._connections):
            connection.close()

    def _stop_listening(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._acceptor.stop()
        self._listener.close()


class _Connection:
    """One client. At most one of its requests is in work, and at most one part of an answer is in memory."""

    def __init__(self, server: ControlServer, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._socket = connection
        self._loop = loop
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")
        self._answer: Answer | None = None
        self._id: int | str | None = None
        self._stepping = False
        self._finished = False  # take no more requests: answer the ones that arrived, then close
        self._timer: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        connection.setblocking(False)
        loop.add_reader(connection.fileno(), self._on_readable)

    def greet(self) -> None:
        """Send the greeting."""
        self._send(pack({"zseal": __version__, "protocol": VERSION, "name": self._server.name, "pid": os.getpid()}))

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._answer is not None or bool(self._outgoing)

    @property
    def _closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Drop the client, and abandon its request."""
        if self._closed or self._stepping:
            self._finished = True  # in the middle of a step: that closes it
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for handle in (self._timer, self._next):
            if handle is not None:
                handle.cancel()
        self._server.gone(self)
        if self._answer is not None:
            with contextlib.suppress(ZsealError):
                self._answer.close()
            self._answer = None

    def guest_ended(self) -> None:
        """Notify a client that waits for something, and close."""
        self._finished = True
        if self._answer is not None and not self._stepping:
            self._step(ControlError("the guest has ended"))
        self._close_if_done()

    # --- in ---

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._on_end_of_requests()
            return
        self._server.active(self)
        self._incoming += data
        if len(self._incoming) > LINE_LIMIT:
            self._loop.remove_reader(self._socket.fileno())  # until requests were taken from it
        if not self._outgoing:
            self._arm()  # a client that sends without reading is not spared
        if self._answer is None:
            self._schedule()  # an answer goes on by itself, or once its last part was taken

    def _on_end_of_requests(self) -> None:
        """Note that the client sends no more; it may still read, unless it is gone."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            self.close()
            return
        self._loop.remove_reader(self._socket.fileno())
        self._finished = True
        self._close_if_done()

    def _take_request(self) -> None:
        """Begin with the next request, if there is one and no other is in work."""
        if self._answer is not None or self._outgoing or self._closed:
            return
        end = self._incoming.find(b"\n")
        if end < 0 and len(self._incoming) <= LINE_LIMIT:
            self._close_if_done()
            return
        line = bytes(self._incoming[: end + 1])
        del self._incoming[: end + 1]
        if len(self._incoming) <= LINE_LIMIT and not self._finished:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        self._id = None
        try:
            if end < 0 or end >= LINE_LIMIT:
                raise ControlError(f"a request may have at most {LINE_LIMIT} bytes")
            request = Request.parse(line)
            self._id = request.id
            command = COMMANDS.get(request.command)
            if command is None:
                raise ControlError(f"there is no command {request.command[:40]!r}")
            self._answer = command(self._server.guest, Arguments(request.arguments))
        except ZsealError as error:
            if end < 0 or end >= LINE_LIMIT:
                self._incoming.clear()
                self._finish_reading()
            self._say({"error": error_part(error)})
            return
        self._step()

    def _finish_reading(self) -> None:
        """Read no more: where the next request begins is not known."""
        self._finished = True
        self._loop.remove_reader(self._socket.fileno())

    # --- work ---

    def _schedule(self, seconds: float = 0.0) -> None:
        """Do the next piece of work after the loop has checked everything else."""
        if self._next is None and not self._closed:
            self._next = self._loop.call_later(seconds, self._work) if seconds else self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._next = None
        if self._answer is not None:
            self._step()
        else:
            self._take_request()

    def _step(self, ended: ControlError | None = None) -> None:
        """Do one step of the answer and send its output."""
        if self._answer is None or self._closed:
            return
        self._stepping = True
        try:
            part = self._answer.throw(ended) if ended is not None else next(self._answer)
        except StopIteration as done:
            self._end_answer({"result": done.value})
        except ZsealError as error:
            self._end_answer({"error": error_part(error)})
        except Exception as error:  # a fault of ours: report it to the client, and let the guest go on
            text = f"internal error: {type(error).__name__}: {error}"
            self._end_answer({"error": {"kind": "InternalError", "message": text}})
        else:
            self._stepping = False
            if ended is not None:
                self._end_answer({"error": error_part(ended)})
            elif isinstance(part, Wait):
                self._schedule(part.seconds)
            elif isinstance(part, Progress):
                if not self._outgoing:
                    self._say({"progress": {"done": part.done, "total": part.total}})
                self._schedule()
            else:
                self._say_data(part)

    def _end_answer(self, message: Mapping[str, Json]) -> None:
        self._stepping = False
        self._answer = None
        self._say(message)

    # --- out ---

    def _say(self, message: Mapping[str, Json]) -> None:
        self._send(pack({"id": self._id, **message}))

    def _say_data(self, part: Data) -> None:
        self._send(pack({"id": self._id, "data": len(part.data)}) + part.data)

    def _send(self, data: bytes) -> None:
        self._outgoing = memoryview(bytes(self._outgoing) + data)
        self._arm()
        self._flush()

    def _flush(self) -> None:
        """Send what the client takes, and go on once it has everything."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing, socket.MSG_NOSIGNAL) :]
                self._arm()
        except BlockingIOError:
            self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self._outgoing = memoryview(b"")
            self.close()
            return
        self._loop.remove_writer(self._socket.fileno())
        self._schedule()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._finished and not self.busy and b"\n" not in self._incoming:
            self.close()

    def _arm(self) -> None:
        """Restart the client's timer."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_later(STALL_SECONDS if self._outgoing else IDLE_SECONDS, self.close)
