"""Connections are taken, also those that had to wait for a descriptor."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from zseal.guest import acceptor as accepting
from zseal.guest.acceptor import Acceptor


class Listener(socket.socket):
    """Has no descriptor for the first ``failures`` connections it is asked for."""

    failures = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_who_waits_is_let_in_once_there_are_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "RETRY_SECONDS", 0.001)

    async def first_connection(listener: socket.socket) -> socket.socket:
        loop = asyncio.get_running_loop()
        welcomed: asyncio.Future[socket.socket] = loop.create_future()
        acceptor = Acceptor(listener, welcomed.set_result)
        acceptor.start(loop)
        connection = await asyncio.wait_for(welcomed, 10)
        acceptor.stop()
        acceptor.stop()
        return connection

    with Listener(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        client.connect(str(tmp_path / "s"))
        with asyncio.run(first_connection(listener)) as connection:
            client.sendall(b"hello")
            assert connection.recv(5) == b"hello"
