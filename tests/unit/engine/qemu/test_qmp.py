"""The QMP client against a scripted QEMU at the other end of a socket pair."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.waiting import PATIENCE
from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.qemu.qmp import LINE_LIMIT, REPLY_SECONDS, Qmp, QmpEvent

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": []}}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def event(name: str, **data: object) -> dict[str, object]:
    return {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}}


class FakeQemu:
    """Greets, and answers each command with the messages of ``script`` for it (default: an empty return)."""

    def __init__(self, script: dict[str, list[object]], greeting: bytes) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.commands: list[dict[str, object]] = []
        self._script = script
        self.theirs.sendall(greeting)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self.theirs.makefile("rb") as stream:
            for text in stream:
                command = json.loads(text)
                self.commands.append(command)
                for message in self._script.get(command["execute"], [{"return": {}}]):
                    if message is None:
                        self.theirs.shutdown(socket.SHUT_RDWR)
                        return
                    if isinstance(message, dict) and "event" not in message:
                        message = {**message, "id": command["id"]}
                    self.theirs.sendall(line(message))

    def close(self) -> None:
        self.ours.close()
        with suppress(OSError):
            self.theirs.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.theirs.close()


@contextmanager
def connected(
    script: dict[str, list[object]] | None = None, greeting: bytes | None = None
) -> Iterator[tuple[Qmp, FakeQemu]]:
    qemu = FakeQemu(script or {}, line(GREETING) if greeting is None else greeting)
    client = Qmp(qemu.ours)
    try:
        yield client, qemu
    finally:
        client.close()
        qemu.close()


def last_events(client: Qmp) -> list[QmpEvent]:
    """What comes until the connection ends."""
    found: list[QmpEvent] = []
    try:
        while True:
            found += client.wait_for("never")
    except EngineLostError:
        return found + client.events()


def test_the_greeting_tells_the_version() -> None:
    with connected() as (client, qemu):
        client.handshake()
        assert client.version == (7, 2, 22)
        assert qemu.commands[0]["execute"] == "qmp_capabilities"


@pytest.mark.parametrize("greeting", [b"{}\n", b"[]\n", b'{"QMP": {"version": {"qemu": {"major": "7"}}}}\n', b"no\n"])
def test_another_greeting_is_an_error(greeting: bytes) -> None:
    with connected(greeting=greeting) as (client, _), pytest.raises(EngineError):
        client.handshake()


def test_a_command_returns_its_own_answer_and_keeps_events() -> None:
    script: dict[str, list[object]] = {"query-status": [event("RTC_CHANGE", offset=5), {"return": {"running": True}}]}
    with connected(script) as (client, qemu):
        client.handshake()
        assert client.execute("query-status", some_option=1) == {"running": True}
        assert qemu.commands[-1]["arguments"] == {"some-option": 1}
        (kept,) = client.events()
        assert (kept.name, kept.text("offset"), kept.text("nothing")) == ("RTC_CHANGE", "5", "")
        assert client.events() == []


def test_an_answer_can_be_given_little_time() -> None:
    with connected({"query-status": []}) as (client, qemu):
        client.handshake()
        with pytest.raises(EngineLostError, match="did not answer"), client.answers_within(0.01):
            client.execute("query-status")
        assert client.execute("cont") == {}
        assert qemu.ours.gettimeout() == REPLY_SECONDS


def test_a_refused_command_is_an_error() -> None:
    with connected({"cont": [{"error": {"class": "GenericError", "desc": "not now"}}]}) as (client, _):
        client.handshake()
        with pytest.raises(EngineError, match="refused cont: not now"):
            client.execute("cont")


def test_events_before_the_one_waited_for_are_not_lost() -> None:
    script: dict[str, list[object]] = {
        "system_reset": [{"return": {}}, event("A"), event("STOP"), event("RESUME"), event("RESET"), event("B")]
    }
    with connected(script) as (client, _):
        client.handshake()
        client.execute("system_reset")
        assert [found.name for found in client.wait_for("RESET")] == ["A"]
        client.execute("query-status")
        assert [found.name for found in client.events()] == ["B"]


def test_the_last_events_come_before_the_end_of_the_connection() -> None:
    with connected({"quit": [{"return": {}}, event("SHUTDOWN", reason="host-qmp-quit"), None]}) as (client, _):
        client.handshake()
        client.execute("quit")
        assert [found.text("reason") for found in last_events(client)] == ["host-qmp-quit"]
        with pytest.raises(EngineLostError):
            client.events()


def test_a_message_without_end_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    client = Qmp(ours)

    def write() -> None:
        with suppress(OSError):  # the client may hang up before all is sent
            theirs.sendall(b"x" * (LINE_LIMIT + (1 << 17)))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(EngineError, match="endless"):
        client.handshake()
    client.close()
    writer.join(PATIENCE)
    theirs.close()
