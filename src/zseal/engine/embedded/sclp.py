"""The service-call logical processor: its commands and its two consoles.

Layouts and answers are those of QEMU (hw/s390x/sclp.c, event-facility.c) and of Linux's drivers/s390/char/sclp.h.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from zseal.arch import ebcdic
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE, Storage
from zseal.engine.consoleinput import ConsoleInput
from zseal.engine.interface import Console

_COMMAND_CLASS = 0xFFFF00FF
_HEADER = 8


class Command(enum.IntEnum):
    """SCLP command words, without their class-dependent byte."""

    READ_SCP_INFO = 0x00020001
    READ_SCP_INFO_FORCED = 0x00120001
    READ_EVENT_DATA = 0x00770005
    WRITE_EVENT_DATA = 0x00760005
    WRITE_EVENT_MASK = 0x00780005


class Response(enum.IntEnum):
    """Response codes in the control block (SCCB)."""

    NORMAL_READ = 0x0010
    NORMAL = 0x0020
    BOUNDARY_VIOLATION = 0x0100
    INVALID_COMMAND = 0x01F0
    NO_EVENT_BUFFERS = 0x60F0
    INSUFFICIENT_LENGTH = 0x0300
    INVALID_FUNCTION = 0x40F0
    BUFFER_LENGTH = 0x70F0
    INVALID_MASK_LENGTH = 0x74F0
    INVALID_SELECTION_MASK = 0x73F0


class EventType(enum.IntEnum):
    """Types of events; bit N-1 of an event mask stands for type N."""

    OPERATIONS_COMMAND = 0x01
    MESSAGE = 0x02
    ASCII = 0x1A

    @property
    def mask(self) -> int:
        """The bit of this type in a 32-bit event mask."""
        return 1 << (32 - self.value)


_TEXT_OBJECT = 4
_FIRST_OBJECT = 12  # after length, type, tag and revision of a message data block


class Sclp:
    """The SCLP of one machine with ``memory``: ``write`` takes console output.

    ``input`` is the input at the ASCII console that the guest has not read.
    ``pending`` is the parameter of the service signal that waits to be taken by a CPU, None if there is none.
    """

    def __init__(self, memory: Storage, *, cpus: int, line_mode: bool, write: Callable[[Console, bytes], None]) -> None:
        self._memory = memory
        self._cpus = cpus
        self._line_mode = line_mode
        self._write = write
        self.input = ConsoleInput()
        self._receive_mask = 0
        self._send_mask = 0
        self.pending: int | None = None

    def reset(self) -> None:
        """Subsystem reset: no events are enabled, nothing is pending."""
        self._receive_mask = self._send_mask = 0
        self.pending = None

    # The events that the machine can take from the guest and make for it.

    @property
    def _takes(self) -> int:
        return EventType.ASCII.mask | (EventType.MESSAGE.mask if self._line_mode else 0)

    @property
    def _makes(self) -> int:
        return EventType.ASCII.mask | (EventType.OPERATIONS_COMMAND.mask if self._line_mode else 0)

    def type(self, data: bytes, when_room: Callable[[], None] | None = None) -> None:
        """Keep what was typed at the ASCII console until the guest reads it."""
        self.input.add(data, when_room)
        if self.input and self._receive_mask & EventType.ASCII.mask and self.pending is None:
            self.pending = 1  # no control block: events are pending

    def service_call(self, word: int, address: int, prefix: int) -> int:
        """Carry out SERVC with control block at absolute ``address`` and return the condition code.

        Raises ProgramInterruption: specification if no block may be there, addressing outside storage.
        """
        if self.pending is not None:
            return 2
        area = address & ~0x1FFF
        if area == 0 or area == prefix or address & ~0x7FFFFFF8:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        if address + _HEADER > self._memory.size:
            raise ProgramInterruption(ProgramCode.ADDRESSING, address)
        length = int.from_bytes(self._memory.read(address, 2), "big")
        if not _HEADER <= length <= PAGE_SIZE:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        response = self._execute(word & _COMMAND_CLASS, address, length)
        self._memory.write(address + 6, response.to_bytes(2, "big"))
        more = bool(self.input) and bool(self._receive_mask & EventType.ASCII.mask)
        self.pending = address | more
        return 0

    def _execute(self, word: int, address: int, length: int) -> Response:
        if word not in Command._value2member_map_:
            return Response.INVALID_COMMAND
        if address // PAGE_SIZE != (address + length - 1) // PAGE_SIZE:
            return Response.BOUNDARY_VIOLATION
        block = bytearray(self._memory.read(address, length))
        if word == Command.WRITE_EVENT_DATA:
            response = self._write_event_data(block)
        elif word == Command.WRITE_EVENT_MASK:
            response = self._write_event_mask(block)
        elif word == Command.READ_EVENT_DATA:
            response = self._read_event_data(block)
        else:
            response = self._read_scp_info(block)
        self._memory.write(address, block)
        return response

    def _write_event_mask(self, block: bytearray) -> Response:
        if len(block) < 12:
            return Response.INSUFFICIENT_LENGTH
        size = int.from_bytes(block[10:12], "big")
        if not 0 < size <= 1021 or len(block) < 12 + 4 * size:
            return Response.INVALID_MASK_LENGTH
        masks = [int.from_bytes(block[12 + n * size : 12 + n * size + size][:4].ljust(4, b"\0"), "big") for n in (0, 1)]
        self._receive_mask, self._send_mask = masks
        for number, mask in ((2, self._takes), (3, self._makes)):
            at = 12 + number * size
            block[at : at + size] = mask.to_bytes(4, "big").ljust(size, b"\0")[:size]
        return Response.NORMAL

    def _write_event_data(self, block: bytearray) -> Response:
        at = _HEADER
        if len(block) < at + 6:
            return Response.INSUFFICIENT_LENGTH
        while at + 6 <= len(block):
            size, kind = int.from_bytes(block[at : at + 2], "big"), block[at + 2]
            if size < 6 or at + size > len(block):
                return Response.BUFFER_LENGTH
            event = bytes(block[at + 6 : at + size])
            if kind == EventType.ASCII:
                self._write(Console.TERMINAL, event)
            elif kind == EventType.MESSAGE and self._line_mode:
                self._write(Console.LINE_MODE, _message_text(event))
            else:
                return Response.INVALID_FUNCTION
            block[at + 3] |= 0x80  # accepted
            at += size
        return Response.NORMAL

    def _read_event_data(self, block: bytearray) -> Response:
        if len(block) < PAGE_SIZE:
            return Response.INSUFFICIENT_LENGTH
        if not self.input or not self._receive_mask & EventType.ASCII.mask:
            return Response.NO_EVENT_BUFFERS
        data = self.input.take(PAGE_SIZE - _HEADER - 7)
        # One leading zero byte, as QEMU's ASCII console sends it.
        event = (7 + len(data)).to_bytes(2, "big") + bytes([EventType.ASCII, 0, 0, 0, 0]) + data
        block[_HEADER : _HEADER + len(event)] = event
        block[0:2] = (_HEADER + len(event)).to_bytes(2, "big")
        return Response.NORMAL

    def _read_scp_info(self, block: bytearray) -> Response:
        if len(block) < 128 + 16 * self._cpus:
            return Response.INSUFFICIENT_LENGTH
        increment = MIB
        while self._memory.size // increment > 0xFFFF:
            increment *= 2
        block[8:10] = (self._memory.size // increment).to_bytes(2, "big")
        block[10] = increment // MIB & 0xFF
        block[16:18] = self._cpus.to_bytes(2, "big")
        block[18:20] = (128).to_bytes(2, "big")  # offset of the CPU entries
        for number in range(self._cpus):
            block[128 + 16 * number] = number
        return Response.NORMAL_READ


def _message_text(event: bytes) -> bytes:
    """Return the lines of a message data block in ASCII; a malformed object ends it."""
    lines = []
    at = _FIRST_OBJECT
    while at + 4 <= len(event):
        size, kind = (int.from_bytes(event[at + n : at + n + 2], "big") for n in (0, 2))
        if size < 4 or at + size > len(event):
            break
        if kind == _TEXT_OBJECT:
            lines.append(ebcdic.decode(event[at + 10 : at + size]))
        at += size
    return "".join(line + "\n" for line in lines).encode("ascii", "replace")
