"""The guest's end of the socket: what it answers, and what hostile and slow clients cannot do to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import PATIENCE, wait_until
from zseal.engine.interface import StopKind
from zseal.errors import OutputError
from zseal.guest.control import server
from zseal.guest.control.client import GuestControl, list_guests
from zseal.guest.control.protocol import LINE_LIMIT, ControlError
from zseal.guest.observation import Observation
from zseal.guest.outcome import Outcome

if TYPE_CHECKING:
    from tests.unit.guest.conftest import MEMORY, IdleGuest
else:
    MEMORY, IdleGuest = 4 << 20, object

Connect = Callable[[], socket.socket]


def ask(connection: socket.socket, line: bytes) -> dict[str, Any]:
    connection.sendall(line + b"\n")
    return answer(connection)


def answer(connection: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        assert piece, "the connection was closed"
        line += piece
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def still_serves(guest: IdleGuest) -> None:
    """A client that behaves gets its answer at once, and the guest's loop has time for the guest."""
    with GuestControl("idle", timeout=PATIENCE) as control:
        assert control.status()["state"] in ("running", "paused")
    guest.do(lambda: None)


# --- answers ---


def test_status_tells_what_runs(guest: IdleGuest) -> None:
    guest.do(lambda: guest.engine.write("one\r\ntwo\r\n"))
    with GuestControl("idle") as control:
        found = control.status(lines=1)
    assert found["pid"] == os.getpid()
    seen = Observation.from_json(found)
    assert (seen.name, seen.state, seen.phase, seen.protected) == ("idle", "running", "running", False)
    assert (seen.memory, seen.cpus, seen.image, seen.console) == (MEMORY, 1, "idle", ("two",))
    assert seen.pages == {"unprotected": MEMORY // 4096}
    assert [each["name"] for each in list_guests()] == ["idle"]


def test_memory_and_dump_come_in_pieces(guest: IdleGuest, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(MEMORY)
    guest.do(lambda: guest.engine.memory.write(0, content))
    with GuestControl("idle") as control:
        assert control.read_memory(4095, 3) == content[4095:4098]
        assert control.read_memory(1, (2 << 20) + 5) == content[1 : (2 << 20) + 6]
        assert control.dump(tmp_path / "dump") == MEMORY
        with pytest.raises(OutputError, match="the output exists"):
            control.dump(tmp_path / "dump")
        assert control.pages().counts() == {"unprotected": MEMORY // 4096}
    assert (tmp_path / "dump").read_bytes() == content
    assert (tmp_path / "dump").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("address", "length"), [(MEMORY, 1), (0, MEMORY + 1), (MEMORY - 1, 2), (1 << 62, 1), (0, 0)])
def test_memory_outside_the_guest_is_refused(guest: IdleGuest, address: int, length: int) -> None:
    with GuestControl("idle") as control, pytest.raises(ControlError):
        control.read_memory(address, length)


def test_console_shows_the_last_screen(guest: IdleGuest) -> None:
    guest.do(lambda: guest.engine.write("".join(f"line {i}\r\n" for i in range(100))))
    with GuestControl("idle") as control:
        assert control.console(lines=2) == ["line 98", "line 99"]
        assert len(control.console()) == 100


def test_pause_and_resume(guest: IdleGuest) -> None:
    with GuestControl("idle") as control:
        control.pause()
        assert control.status()["state"] == "paused"
        assert control.resume() == 0
        assert control.status()["state"] == "running"
    assert guest.engine.told == ["pause", "resume"]


def test_guest_that_is_not_protected_has_nothing_to_page_out(guest: IdleGuest, tmp_path: Path) -> None:
    with GuestControl("idle") as control:
        with pytest.raises(ControlError, match="the guest is not protected"):
            control.page_out(tmp_path / "pages")
        with pytest.raises(ControlError, match="the guest is not protected"):
            control.page_in(tmp_path / "pages")
    assert list(tmp_path.glob("pages*")) == []


# --- ends ---


def test_stop_waits_for_the_operating_system(guest: IdleGuest, runtime: Path) -> None:
    guest.engine.powers_off = True
    with GuestControl("idle") as control:
        assert control.stop(wait=5) == "the guest powered off"
    assert guest.engine.told == ["poweroff"]
    assert list(runtime.iterdir()) == []


def test_stop_does_not_wait_for_ever(guest: IdleGuest) -> None:
    with GuestControl("idle") as control:
        assert control.stop(wait=1) == "stopped by zseal guest stop"
    assert guest.engine.told == ["poweroff", "end"]
    assert guest.session.result is not None
    assert guest.session.result.outcome is Outcome.STOPPED


def test_stop_at_once(guest: IdleGuest) -> None:
    with GuestControl("idle") as control:
        control.stop()
    assert guest.engine.told == ["end"]


def test_kill(guest: IdleGuest) -> None:
    with GuestControl("idle") as control:
        assert control.kill() == "killed by zseal guest kill"
    assert guest.engine.told == ["kill"]


def test_the_socket_goes_with_the_guest_and_waiting_clients_are_told(guest: IdleGuest, runtime: Path) -> None:
    idle = GuestControl("idle")
    waiting = GuestControl("idle")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(waiting.stop(wait=60)))
    thread.start()
    wait_until(lambda: "poweroff" in guest.engine.told)
    guest.do(lambda: guest.engine.stop(StopKind.POWEROFF))
    thread.join(PATIENCE)
    waiting.close()
    assert found == ["the guest powered off"]
    assert list(runtime.iterdir()) == []
    with idle, pytest.raises(ControlError, match="ended the conversation"):
        idle.status()
    with pytest.raises(ControlError, match="no guest named idle is running"):
        GuestControl("idle")


# --- hostile clients ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"a":' * 12_000, "not JSON"),
        (b"9" * 60_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "must name a command"),
        (b'{"command": 5}', "must name a command"),
        (b'{"command": "status", "arguments": []}', "must be an object"),
        (b'{"command": "status", "id": {}}', "id of a request"),
        (b'{"command": "__class__"}', "there is no command"),
        (b'{"command": "status", "arguments": {"lines": true}}', "whole number"),
        (b'{"command": "status", "arguments": {"lines": 1e400}}', "whole number"),
        (b'{"command": "read-memory", "arguments": {"address": 1, "length": 99999999999999999999}}', "whole number"),
        (b'{"command": "read-memory"}', "address must be"),
        (b'{"command": "page-in", "arguments": {"path": "/x\\u0000"}}', "not protected"),
        (b'{"command": "console", "arguments": {"lines": 0}}', "from 1 on"),
    ],
)
def test_nonsense_gets_one_line_and_the_next_request_its_answer(
    guest: IdleGuest, connect: Connect, line: bytes, message: str
) -> None:
    connection = connect()
    found = ask(connection, line)["error"]["message"]
    assert message in found
    assert "\n" not in found
    assert "result" in ask(connection, b'{"command": "status"}')


@pytest.mark.parametrize("size", [LINE_LIMIT, LINE_LIMIT + 1, 4 << 20])
def test_endless_request_ends_the_connection(guest: IdleGuest, connect: Connect, size: int) -> None:
    connection = connect()
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"x" * size + b"\n")
    with contextlib.suppress(ConnectionError):
        assert "at most 65536 bytes" in answer(connection)["error"]["message"]
        assert connection.recv(1) == b""
    still_serves(guest)


def test_client_that_does_not_read_costs_no_memory_and_blocks_nobody(
    guest: IdleGuest, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALL_SECONDS", 2.0)
    connection = connect()
    connection.sendall(b'{"command": "dump"}\n' * 1000)
    found = connection_with_answer_left(guest)
    still_serves(guest)
    held: list[int] = []

    def given_up() -> bool:
        held.append(len(found._outgoing) + len(found._incoming))
        return found not in guest.server._connections

    wait_until(lambda: guest.do(given_up))
    assert max(held) <= (1 << 20) + 2 * LINE_LIMIT


def connection_with_answer_left(guest: IdleGuest) -> server._Connection:
    """Return the guest's only connection once its client has an answer to take."""

    def find() -> server._Connection | None:
        return next((each for each in guest.server._connections if each._outgoing), None)

    found = wait_until(lambda: guest.do(find), pause=0.001)
    assert found is not None
    return found


def test_client_that_does_not_take_its_answers_is_not_read(guest: IdleGuest, connect: Connect) -> None:
    guest.do(lambda: guest.engine.write(("x" * 900 + "\n") * 70))
    connection = connect()
    requests = b'{"command": "console"}\n' * 10
    connection.sendall(requests)
    found = connection_with_answer_left(guest)
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.sendall((b" " * 999 + b"\n") * (4 << 10))
    assert guest.do(lambda: len(found._incoming)) <= 2 * LINE_LIMIT
    connection.settimeout(PATIENCE)
    with connection.makefile("rb") as stream:
        assert all(b'"result"' in stream.readline() for _ in range(10))
        for _ in range(2 * LINE_LIMIT // 1000 + 1):
            assert b'"error"' in stream.readline()  # of an empty line: what follows is read again


def test_more_requests_at_once_than_are_kept_are_all_answered(guest: IdleGuest, connect: Connect) -> None:
    connection = connect()
    requests = b"".join(b'{"id": %d, "command": "none"}' % i + b" " * 5000 + b"\n" for i in range(100))
    sender = threading.Thread(target=connection.sendall, args=(requests,))
    sender.start()
    assert [answer(connection)["id"] for _ in range(100)] == list(range(100))
    sender.join()


def test_client_that_goes_on_sending_has_no_longer_to_take_its_answer(guest: IdleGuest, connect: Connect) -> None:
    connection = connect()
    connection.sendall(b'{"command": "dump"}\n')
    found = connection_with_answer_left(guest)

    def state() -> tuple[float, int]:
        assert found._timer is not None
        return found._timer.when(), len(found._outgoing)

    before = guest.do(state)
    for count in range(1, 4):
        connection.sendall(b" ")
        while guest.do(lambda: len(found._incoming)) < count:
            time.sleep(0.001)
    guest.do(lambda: None)
    assert guest.do(state) == before  # nor is there more to take


def test_client_that_says_nothing_is_dropped(
    guest: IdleGuest, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    connection = connect()
    assert connection.recv(1) == b""


def test_requests_one_byte_at_a_time_and_many_at_once(guest: IdleGuest, connect: Connect) -> None:
    connection = connect()
    for byte in b'{"id": "slow", "command": "status"}\n':
        connection.sendall(bytes([byte]))
    assert answer(connection)["id"] == "slow"
    connection.sendall(b"".join(b'{"id": %d, "command": "console"}\n' % i for i in range(2000)))
    assert [answer(connection)["id"] for _ in range(2000)] == list(range(2000))


def test_client_that_has_sent_all_still_gets_its_answers(guest: IdleGuest, connect: Connect) -> None:
    connection = connect()
    connection.sendall(b'{"id": 1, "command": "status"}\n{"id": 2, "command": "read-memory", '
                       b'"arguments": {"address": 0, "length": 3000000}}\n')  # fmt: skip
    connection.shutdown(socket.SHUT_WR)
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    assert len(data) > 3_000_000
    assert data.endswith(b'{"id":2,"result":{"address":0,"length":3000000}}\n')


def test_more_clients_than_places_drop_the_one_silent_longest(guest: IdleGuest, connect: Connect) -> None:
    clients = [connect() for _ in range(server.CONNECTION_LIMIT)]
    ask(clients[0], b'{"command": "status"}')
    newcomer = connect()
    assert clients[1].recv(1) == b""
    for client in (clients[0], clients[2], newcomer):
        assert "result" in ask(client, b'{"command": "status"}')


def test_clients_that_vanish_leave_nothing(guest: IdleGuest, connect: Connect) -> None:
    for sent in (b"", b'{"command"', b'{"command": "dump"}\n', b'{"command": "stop", "arguments": {"wait": 50}}\n'):
        connection = connect()
        connection.sendall(sent)
        # reset, not closed in an orderly way
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: guest.do(lambda: not guest.server._connections))
    assert guest.session.result is None
    still_serves(guest)


def test_other_users_are_not_served(guest: IdleGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "peer_credentials", lambda _connection: (1, 12345))
    with pytest.raises(ControlError, match="ended the conversation"):
        GuestControl("idle")
    monkeypatch.undo()


def test_fault_of_ours_is_told_and_the_guest_goes_on(
    guest: IdleGuest, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(guest.session.engine, "statistics", broken)
    connection = connect()
    assert ask(connection, b'{"command": "status"}')["error"] == {
        "kind": "InternalError",
        "message": "internal error: ZeroDivisionError: oops",
    }
    assert "result" in ask(connection, b'{"command": "console"}')
    monkeypatch.undo()


def test_random_bytes_do_no_harm(guest: IdleGuest, connect: Connect) -> None:
    rng = random.Random(5)
    for _ in range(50):
        connection = connect()
        with contextlib.suppress(OSError):
            connection.sendall(rng.randbytes(rng.randrange(1, 3000)) + b"\n")
        connection.close()
    still_serves(guest)


# --- hostile guests ---


def served_by(lines: bytes, runtime: Path) -> threading.Thread:
    """A guest that sends ``lines`` to its first client whatever that asks."""
    from zseal.guest.control.registry import listen

    listener = listen("liar")
    listener.socket.setblocking(True)

    def serve() -> None:
        connection, _ = listener.socket.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b'{"protocol": 1}\n' if not lines.startswith(b"!") else lines[1:])
            connection.recv(1000)
            connection.sendall(lines)
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'!{"protocol": 2}\n', "speaks version 2"),
        (b"!\n", "not JSON"),
        (b"", "ended the conversation"),
        (b"{}" * 3_000_000, "ended the conversation"),
        (b'{"data": 99999999999}\n', "more than is allowed"),
        (b'{"data": -1}\n', "more than is allowed"),
        (b'{"data": 100}\nabc', "ended the conversation"),
        (b'{"result": {"name": 5}}\n', "describes itself"),
    ],
)
def test_client_survives_a_guest_that_lies(runtime: Path, lines: bytes, message: str) -> None:
    thread = served_by(lines, runtime)
    with pytest.raises(Exception, match=message) as caught, GuestControl("liar", timeout=PATIENCE) as control:
        Observation.from_json(control.status())
    assert "Error" in type(caught.value).__name__
    assert "\n" not in str(caught.value)
    thread.join(PATIENCE)


def test_guest_that_does_not_answer_is_told_with_its_process(runtime: Path) -> None:
    from zseal.guest.control.registry import listen

    listener = listen("mute")
    with pytest.raises(ControlError, match=rf"mute is not responding \(PID {os.getpid()}\); check whether"):
        GuestControl("mute", timeout=0.2)
    listener.close()
