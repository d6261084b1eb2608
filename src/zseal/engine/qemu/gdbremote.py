"""A client of the GDB remote serial protocol, with the parts that a debugger of whole machines needs.

Requests are answered in order, so several can be sent together and cost one round trip. Source of the rules: the
appendix "GDB Remote Serial Protocol" of the GDB manual; replies are those of QEMU's gdb stub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from zseal.engine.errors import EngineError, EngineLostError, EngineSilentError

REPLY_LIMIT = 1 << 20
"""The limit of one reply in bytes; the longest real one is a register description of some 10 KiB."""
REPLY_SECONDS = 30.0
"""How long a stopped machine may take to answer one request: far more than a loaded host needs."""
_TAKEN_SECONDS = 5.0
_POLL_SECONDS = 20e-6


@dataclasses.dataclass(frozen=True)
class StopReply:
    """Why the machine stopped: a POSIX ``signal`` number, and the ``thread`` (CPU) that was the cause."""

    signal: int
    thread: int | None

    INTERRUPT: ClassVar[int] = 2
    TRAP: ClassVar[int] = 5


@dataclasses.dataclass(frozen=True)
class Register:
    """A register of the target description: its ``number`` in requests and its size in bytes."""

    name: str
    number: int
    size: int


def frame(payload: bytes) -> bytes:
    """Return ``payload`` as a packet: ``$``, escaped payload, ``#``, two hexadecimal digits of checksum."""
    escaped = bytearray()
    for byte in payload:
        if byte in b"$#}*":
            escaped += bytes((0x7D, byte ^ 0x20))
        else:
            escaped.append(byte)
    return b"$%b#%02x" % (bytes(escaped), sum(escaped) & 0xFF)


def unescape(payload: bytes) -> bytes:
    """Undo escapes (``}``) and run lengths (``*``) of a received payload; raises EngineError if it is malformed."""
    if b"}" not in payload and b"*" not in payload:
        return payload
    out = bytearray()
    at = 0
    while at < len(payload):
        byte = payload[at]
        at += 1
        if byte == 0x7D and at < len(payload):
            out.append(payload[at] ^ 0x20)
            at += 1
        elif byte == 0x2A and at < len(payload) and out and payload[at] >= 29:
            out += out[-1:] * (payload[at] - 29)
            at += 1
        elif byte in b"}*":
            raise EngineError("the gdb stub sent a malformed packet")
        else:
            out.append(byte)
        if len(out) > REPLY_LIMIT:
            raise EngineError("the gdb stub sent an endless packet")
    return bytes(out)


def knows_what_was_taken() -> bool:
    """Whether this operating system shows how much of a connection was received, for ``GdbRemote.wait_until_taken``."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            ours.sendall(b"\x03")
            sent = _not_taken(ours)
            theirs.recv(1)
            return sent > 0 == _not_taken(ours)
        except OSError:
            return False


def _not_taken(connection: socket.socket) -> int:
    """Return a measure of data sent and not received, 0 for none; raises OSError if that is not known."""
    answer = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("=i", 0))
    count: int = struct.unpack("=i", answer)[0]
    return count


class GdbRemote:
    """A connection to a gdb stub over ``connection``, which this object owns and closes.

    ``running`` is true between a resume and the stop reply that ends it; requests are for stopped machines only.
    Methods raise EngineLostError if the other side is gone and EngineError if it refuses.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(REPLY_SECONDS)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._buffer = bytearray()
        self._thread: int | None = None
        self._acknowledge = True
        self._owed = 0  # packets received and not acknowledged: the acknowledgement is sent before the next request
        self._interrupting = threading.Lock()
        self._interrupted = False
        self.running = False
        self.round_trips = 0

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the machine stops."""
        return self._socket.fileno()

    @property
    def buffered(self) -> bool:
        """Whether received data waits to be read: ``poll`` then need not wait for the descriptor."""
        return bool(self._buffer)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    # --- packets ---

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError as error:
            raise EngineSilentError(f"QEMU's gdb stub did not answer for {REPLY_SECONDS:.0f} s") from error
        except ConnectionError:
            data = b""
        if not data:
            raise EngineLostError("QEMU closed its gdb stub")
        self._buffer += data

    def _packet(self) -> bytes | None:
        """Take the next whole packet out of the buffer, if there is one."""
        while True:
            start = self._buffer.find(b"$")
            if start < 0:
                self._buffer.clear()  # acknowledgements, or nothing
                return None
            end = self._buffer.find(b"#", start)
            if end < 0 or len(self._buffer) < end + 3:
                if len(self._buffer) > REPLY_LIMIT:
                    raise EngineError("the gdb stub sent an endless packet")
                return None
            self._owed += self._acknowledge
            payload = bytes(self._buffer[start + 1 : end])
            checksum = bytes(self._buffer[end + 1 : end + 3])
            del self._buffer[: end + 3]
            if b"%02x" % (sum(payload) & 0xFF) != checksum.lower():
                raise EngineError("the gdb stub sent a packet with a wrong checksum")
            if payload[:1] in (b"W", b"X"):
                # No answer begins like that. It may come instead of an answer, if something else has ended QEMU
                # meanwhile.
                raise EngineLostError("QEMU says that it ends")
            return unescape(payload)

    def _reply(self) -> bytes:
        while (packet := self._packet()) is None:
            self._receive()
        return packet

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(b"+" * self._owed + data)
        except TimeoutError as error:
            raise EngineLostError(f"QEMU's gdb stub took nothing for {REPLY_SECONDS:.0f} s") from error
        except OSError as error:
            raise EngineLostError("QEMU closed its gdb stub") from error
        self._owed = 0

    def requests(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Send all ``payloads`` together and return their replies in order."""
        if self.running:
            raise EngineError("the machine is running: it must be stopped before the gdb stub can be asked")
        self.round_trips += 1
        self._send(b"".join(frame(payload) for payload in payloads))
        return [self._reply() for _ in payloads]

    def request(self, payload: bytes) -> bytes:
        """Send ``payload`` and return its reply."""
        return self.requests([payload])[0]

    def command(self, *payloads: bytes) -> None:
        """Send ``payloads`` that are answered with OK; raises EngineError if one is not."""
        if not payloads:
            return
        for payload, reply in zip(payloads, self.requests(payloads), strict=True):
            if reply != b"OK":
                raise EngineError(f"QEMU's gdb stub refused {payload[:40].decode('latin-1')!r}: {reply!r}")

    # --- start ---

    def handshake(self) -> None:
        """Agree on features; leaves the machine stopped."""
        supported = self.request(b"qSupported:xmlRegisters=s390;hwbreak+;swbreak+")
        if b"qXfer:features:read+" not in supported:
            raise EngineError("this QEMU's gdb stub has no register description", hint="use QEMU 7.2 or newer")
        # Some QEMU versions have no such mode; acknowledgements hardly cost anything.
        if self.request(b"QStartNoAckMode") == b"OK":
            self._send(b"")
            self._acknowledge = False

    def _document(self, name: str) -> bytes:
        parts = []
        offset = 0
        while offset < REPLY_LIMIT:
            reply = self.request(b"qXfer:features:read:%b:%x,%x" % (name.encode(), offset, 0x800))
            if reply[:1] not in (b"l", b"m"):
                break
            parts.append(reply[1:])
            offset += len(reply) - 1
            if reply[:1] == b"l":
                return b"".join(parts)
        raise EngineError(f"QEMU's gdb stub has no readable register description {name}")

    def registers(self) -> Mapping[str, Register]:
        """Return the registers by name, from the target description and the files that it includes."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        found: dict[str, Register] = {}
        number = 0

        def collect(document: bytes, depth: int) -> None:
            nonlocal number
            try:
                root = etree.fromstring(document, parser)
            except etree.XMLSyntaxError as error:
                raise EngineError(f"QEMU's register description is not XML: {error}") from error
            for element in root.iter():
                tag = element.tag
                if not isinstance(tag, str):
                    continue
                local = tag.rpartition("}")[2]
                if local == "include" and depth < 2:
                    collect(self._document(element.get("href", "")), depth + 1)
                elif local == "reg":
                    number = int(element.get("regnum", number))
                    name = element.get("name", "")
                    found[name] = Register(name, number, int(element.get("bitsize", "64")) // 8)
                    number += 1

        # Older QEMU uses "xi:" without the namespace declaration: add one.
        target = self._document("target.xml")
        if b"xmlns:xi" not in target:
            target = target.replace(b"<target", b'<target xmlns:xi="http://www.w3.org/2001/XInclude"', 1)
        collect(target, 0)
        return found

    def threads(self) -> list[int]:
        """Return the numbers of all threads (CPUs), ascending."""
        found: list[int] = []
        reply = self.request(b"qfThreadInfo")
        while reply[:1] == b"m":
            found += [int(item, 16) for item in reply[1:].split(b",")]
            reply = self.request(b"qsThreadInfo")
        return sorted(found)

    # --- the stopped machine ---

    def select(self, thread: int) -> list[bytes]:
        """Return the requests that select ``thread`` for the following register accesses (none if it is selected)."""
        if thread == self._thread:
            return []
        self._thread = thread
        return [b"Hg%x" % thread]

    def read_memory(self, address: int, length: int) -> bytes:
        """Read storage as the selected CPU sees it now: real with DAT off, virtual with DAT on."""
        reply = self.request(b"m%x,%x" % (address, length))
        try:
            data = bytes.fromhex(reply.decode("ascii"))
        except ValueError as error:
            raise EngineError(f"QEMU cannot read guest storage at {address:#x}") from error
        return data

    # --- run and stop ---

    def resume(self, *commands: bytes) -> None:
        """Send ``commands`` (answered with OK) and let all CPUs run, in one go."""
        payload = b"".join(frame(item) for item in (*commands, b"vCont;c"))
        self._start(payload, commands)

    def step(self, thread: int, *commands: bytes) -> StopReply:
        """Send ``commands``, execute one instruction on ``thread`` alone and return the stop reply."""
        payload = b"".join(frame(item) for item in (*commands, b"vCont;s:%x" % thread))
        self._start(payload, commands)
        return self.wait()

    def _start(self, payload: bytes, commands: Sequence[bytes]) -> None:
        if self.running:
            raise EngineError("the machine is already running")
        self.round_trips += 1
        self._send(payload)
        for command in commands:
            reply = self._reply()
            if reply != b"OK":
                raise EngineError(f"QEMU's gdb stub refused {command[:40].decode('latin-1')!r}: {reply!r}")
        self.running = True

    def interrupt(self) -> None:
        """Ask a running machine to stop; the stop reply follows. Any thread may, and more than one."""
        with self._interrupting:
            if self._interrupted:
                return
            self._interrupted = True
            # QEMU 8 and newer stop at any byte while the machine runs, but report it only for this byte, so no
            # acknowledgement precedes it.
            try:
                self._socket.sendall(b"\x03")
            except OSError as error:
                raise EngineLostError("QEMU closed its gdb stub") from error

    def wait_until_taken(self) -> None:
        """Wait until QEMU has received what was sent, an interruption, which keeps CPUs from going on.

        QEMU's main thread receives it while it holds the global lock, and releases the lock only after it has ordered
        all CPUs to stop. It receives nothing if it already waits for CPUs to stop, for another reason: this call then
        ends after some seconds.
        """
        end = time.monotonic() + _TAKEN_SECONDS
        with contextlib.suppress(OSError, ValueError):  # the end of QEMU, or ours
            while _not_taken(self._socket) and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)

    def poll(self) -> StopReply | None:
        """Return the stop reply if it has come, without waiting."""
        while True:
            packet = self._packet()
            if packet is not None:
                stop = self._stop(packet)
                if stop is not None:
                    return stop
                continue
            if not self._readable.poll(0):
                return None
            self._receive()

    def wait(self) -> StopReply:
        """Wait for the stop reply of a machine that is about to stop."""
        while True:
            stop = self._stop(self._reply())
            if stop is not None:
                return stop

    def _stop(self, packet: bytes) -> StopReply | None:
        kind = packet[:1]
        if kind in (b"T", b"S"):
            self.running = False
            self._thread = None  # the stub's own choice: the CPU that stopped, or the first
            with self._interrupting:
                self._interrupted = False
            try:
                thread = None
                for item in packet[3:].split(b";"):
                    name, _, value = item.partition(b":")
                    if name == b"thread":
                        thread = int(value.rpartition(b".")[2], 16)
                return StopReply(int(packet[1:3], 16), thread)
            except ValueError as error:
                raise EngineError(f"QEMU's gdb stub sent a malformed stop reply: {packet!r}") from error
        return None  # console output ("O") and late answers
