"""The gdb remote client against a scripted stub at the other end of a socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import PATIENCE
from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.qemu import gdbremote
from zseal.engine.qemu.gdbremote import GdbRemote, StopReply, frame, knows_what_was_taken, unescape


def packet(payload: bytes) -> bytes:
    return b"$%b#%02x" % (payload, sum(payload) & 0xFF)


class FakeStub:
    """Answers each request with ``answer(payload)``; None closes the connection, a list sends several packets."""

    def __init__(self, answer: Callable[[bytes], bytes | list[bytes] | None]) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.requests: list[bytes] = []
        self.raw = bytearray()
        self.seen = threading.Event()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        buffer = bytearray()
        while True:
            try:
                data = self.theirs.recv(4096)
            except OSError:
                return
            if not data:
                return
            self.raw += data
            buffer += data
            while (end := buffer.find(b"#")) >= 0 and len(buffer) >= end + 3:
                start = buffer.find(b"$")
                payload = bytes(buffer[start + 1 : end])
                assert b"%02x" % (sum(payload) & 0xFF) == buffer[end + 1 : end + 3], "checksum"
                del buffer[: end + 3]
                self.requests.append(payload)
                self.seen.set()
                reply = self._answer(payload)
                if reply is None:
                    self.theirs.close()
                    return
                for item in reply if isinstance(reply, list) else [reply]:
                    self.theirs.sendall(packet(item))

    def close(self) -> None:
        self.ours.close()
        self._thread.join(PATIENCE)  # it reads to the end
        self.theirs.close()


@contextmanager
def connected(answer: Callable[[bytes], bytes | list[bytes] | None]) -> Iterator[tuple[GdbRemote, FakeStub]]:
    stub = FakeStub(answer)
    client = GdbRemote(stub.ours)
    try:
        yield client, stub
    finally:
        client.close()
        stub.close()


TARGET = (
    b'<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>s390:64-bit</architecture>'
    b'<xi:include href="core.xml"/><xi:include href="cr.xml"/></target>'
)
CORE = b'<feature name="core"><reg name="pswm" bitsize="64"/><reg name="pswa" bitsize="64"/></feature>'
CONTROL = b'<feature name="cr"><reg name="cr0" bitsize="64" regnum="87"/><reg name="cr1" bitsize="32"/></feature>'


def qemu_like(payload: bytes) -> bytes:
    documents = {b"target.xml": TARGET, b"core.xml": CORE, b"cr.xml": CONTROL}
    if payload.startswith(b"qSupported"):
        return b"PacketSize=1000;qXfer:features:read+"
    if payload.startswith(b"qXfer:features:read:"):
        name, _, window = payload[len(b"qXfer:features:read:") :].partition(b":")
        offset, length = (int(item, 16) for item in window.split(b","))
        part = documents[name][offset : offset + min(length, 50)]  # short parts: the client has to ask on
        return (b"l" if offset + len(part) == len(documents[name]) else b"m") + part
    return {b"qfThreadInfo": b"m02,01", b"qsThreadInfo": b"l"}.get(payload, b"OK" if payload[:1] in b"PZzH" else b"")


@given(st.binary(max_size=300))
def test_a_framed_payload_comes_back(payload: bytes) -> None:
    packet_ = frame(payload)
    assert packet_[:1] == b"$"
    assert unescape(packet_[1:-3]) == payload


def test_run_lengths_are_expanded() -> None:
    assert unescape(b"0* 1") == b"00001"


@pytest.mark.parametrize("payload", [b"}", b"*a", b"a*", b"a*\x01"])
def test_a_malformed_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(EngineError):
        unescape(payload)


def test_register_numbers_come_from_the_description() -> None:
    with connected(qemu_like) as (client, _):
        client.handshake()
        registers = client.registers()
    assert {name: register.number for name, register in registers.items()} == {
        "pswm": 0,
        "pswa": 1,
        "cr0": 87,
        "cr1": 88,
    }
    assert registers["cr1"].size == 4


def test_threads_are_listed() -> None:
    with connected(qemu_like) as (client, _):
        assert client.threads() == [1, 2]


def test_several_requests_cost_one_round_trip() -> None:
    with connected(lambda payload: payload[1:]) as (client, stub):
        assert client.requests([b"m1", b"m2", b"m3"]) == [b"1", b"2", b"3"]
        assert client.round_trips == 1
        assert stub.requests == [b"m1", b"m2", b"m3"]


def test_packets_are_acknowledged_until_both_agree_not_to() -> None:
    with connected(qemu_like) as (client, stub):
        client.handshake()
        client.request(b"?")
        assert stub.raw.count(b"+$") == 2  # in front of every request but the first

    def agreeing(payload: bytes) -> bytes:
        return b"OK" if payload == b"QStartNoAckMode" else qemu_like(payload)

    with connected(agreeing) as (client, stub):
        client.handshake()
        before = len(stub.raw)
        client.request(b"?")
        client.request(b"?")
        assert b"+" not in stub.raw[before + 1 :]


def test_a_stub_without_descriptions_is_refused() -> None:
    with connected(lambda _: b"") as (client, _), pytest.raises(EngineError, match="no register description"):
        client.handshake()


def test_a_refused_command_is_an_error() -> None:
    with connected(lambda _: b"E22") as (client, _), pytest.raises(EngineError, match="refused"):
        client.command(b"P0=1")


def test_a_closed_connection_is_a_lost_engine() -> None:
    with connected(lambda _: None) as (client, _), pytest.raises(EngineLostError):
        client.request(b"g")


def test_resume_writes_first_and_the_stop_comes_later() -> None:
    def answer(payload: bytes) -> list[bytes]:
        return [b"T05thread:p01.02;"] if payload == b"vCont;c" else [b"OK"]

    with connected(answer) as (client, stub):
        client.resume(b"P1=ff", b"Z0,10000,2")
        before = client.running
        with pytest.raises(EngineError, match="is running"):
            client.request(b"g")
        assert client.wait() == StopReply(5, 2)
        assert (before, client.running) == (True, False)
        assert stub.requests == [b"P1=ff", b"Z0,10000,2", b"vCont;c"]


def test_polling_does_not_wait() -> None:
    with connected(lambda _: []) as (client, stub):
        client.resume()
        assert client.poll() is None
        assert stub.seen.wait(PATIENCE)
        stub.theirs.sendall(packet(b"O68690a") + packet(b"S02"))
        assert client.wait() == StopReply(2, None)


def test_a_running_machine_is_interrupted_by_one_byte_alone() -> None:
    """QEMU 8 and newer stop at any other byte too, but never say so."""
    with connected(lambda payload: [] if payload == b"vCont;c" else [b"OK"]) as (client, stub):
        client.resume(b"P1=ff", b"P2=ff")
        client.interrupt()
        client.close()
        stub.close()  # when all is read
        assert stub.raw.endswith(b"vCont;c#a8\x03")


def test_a_machine_is_interrupted_once_until_it_stops() -> None:
    with connected(lambda _: []) as (client, stub):
        client.resume()
        client.interrupt()
        client.interrupt()
        stub.theirs.sendall(packet(b"T02thread:01;"))
        client.wait()
        client.resume()
        client.interrupt()
        client.close()
        stub.close()
        assert stub.raw.count(b"\x03") == 2


def test_what_qemu_has_not_received_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    client = GdbRemote(ours)
    with theirs:
        client.interrupt()
        monkeypatch.setattr(gdbremote, "_TAKEN_SECONDS", PATIENCE)
        reader = threading.Timer(0.1, theirs.recv, [1])
        reader.start()
        client.wait_until_taken()
        reader.join()  # it has something to receive, which is taken when the call returns
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    client.close()


def test_a_qemu_that_receives_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdbremote, "_TAKEN_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    client = GdbRemote(ours)
    with theirs:
        client.interrupt()
        client.wait_until_taken()
        assert theirs.recv(8) == b"\x03"
    client.close()
    client.wait_until_taken()  # nobody is there any longer
    with pytest.raises(EngineLostError):
        client.resume()
    assert knows_what_was_taken()


@pytest.mark.parametrize("reply", [b"Txx", b"T05thread:zz;"])
def test_a_malformed_stop_reply_is_an_error(reply: bytes) -> None:
    with connected(lambda _: [reply]) as (client, _):
        client.resume()
        with pytest.raises(EngineError, match="malformed"):
            client.wait()


def test_the_end_of_qemu_is_a_lost_engine() -> None:
    with connected(lambda _: [b"W00"]) as (client, _):
        client.resume()
        with pytest.raises(EngineLostError):
            client.wait()


@pytest.mark.parametrize("end", [b"W00", b"X09"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.command(b"P5=01"),
        lambda client: client.request(b"g"),
        lambda client: client.read_memory(0, 8),
        lambda client: client.resume(b"Z0,10,2"),
    ],
    ids=["command", "request", "memory", "resume"],
)
def test_a_qemu_that_ends_instead_of_answering_is_a_lost_engine(ask: Callable[[GdbRemote], object], end: bytes) -> None:
    answers = iter([end])
    with connected(lambda _: next(answers, None)) as (client, _), pytest.raises(EngineLostError, match="ends"):
        ask(client)


def test_a_wrong_checksum_is_an_error() -> None:
    with connected(lambda _: []) as (client, stub):
        client.resume()
        stub.theirs.sendall(b"$S05#00")
        with pytest.raises(EngineError, match="checksum"):
            client.wait()


def test_a_thread_is_selected_once() -> None:
    with connected(lambda _: b"OK") as (client, _):
        assert client.select(2) == [b"Hg2"]
        assert client.select(2) == []
        assert client.select(1) == [b"Hg1"]
