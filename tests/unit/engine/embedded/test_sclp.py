"""The SCLP: commands and answers, and nothing it is sent can do harm."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zseal.arch import ebcdic
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB
from zseal.engine.consoleinput import INPUT_LIMIT
from zseal.engine.embedded.sclp import Command, Sclp
from zseal.engine.interface import Console
from zseal.engine.memory import SharedMemory

BLOCK = 0x4000
PREFIX = 0x10000


class Desk:
    """An SCLP and what its consoles showed."""

    def __init__(self, *, line_mode: bool = True) -> None:
        self.memory = SharedMemory(4 * MIB)
        self.shown: list[tuple[Console, bytes]] = []
        self.sclp = Sclp(
            self.memory, cpus=2, line_mode=line_mode, write=lambda console, data: self.shown.append((console, data))
        )

    def call(self, command: int, content: bytes, *, length: int | None = None) -> int:
        """Issue a call whose control block holds ``content``; return the response code."""
        size = 8 + len(content) if length is None else length
        self.memory.write(BLOCK, size.to_bytes(2, "big") + bytes(6) + content)
        assert self.sclp.service_call(command, BLOCK, PREFIX) == 0
        assert self.sclp.pending is not None
        assert self.sclp.pending & ~7 == BLOCK
        self.sclp.pending = None
        return int.from_bytes(self.memory.read(BLOCK + 6, 2), "big")

    def enable(self, receive: int = 0, send: int = 0x40000040) -> bytes:
        content = bytes(2) + (4).to_bytes(2, "big") + receive.to_bytes(4, "big") + send.to_bytes(4, "big") + bytes(8)
        assert self.call(Command.WRITE_EVENT_MASK, content) == 0x20
        return self.memory.read(BLOCK + 20, 8)


def event(kind: int, data: bytes) -> bytes:
    return (6 + len(data)).to_bytes(2, "big") + bytes([kind, 0, 0, 0]) + data


def message(*lines: str) -> bytes:
    general = (56).to_bytes(2, "big") + b"\0\1" + bytes(52)
    text = b"".join(
        (10 + len(line)).to_bytes(2, "big") + b"\0\4\x10\0" + bytes(4) + ebcdic.encode(line) for line in lines
    )
    size = 12 + len(general) + len(text)
    return event(2, size.to_bytes(2, "big") + b"\0\1" + b"\xd4\xc4\xc2\x40" + b"\0\0\0\1" + general + text)


def test_the_event_mask_call_tells_what_the_machine_takes_and_makes() -> None:
    assert Desk().enable() == bytes.fromhex("40000040" + "80000040")
    assert Desk(line_mode=False).enable() == bytes.fromhex("00000040" + "00000040")


def test_ascii_and_line_mode_events_reach_their_consoles() -> None:
    desk = Desk()
    desk.enable()
    assert desk.call(Command.WRITE_EVENT_DATA, event(0x1A, b"hello\r\n") + message("one", "two")) == 0x20
    assert desk.shown == [(Console.TERMINAL, b"hello\r\n"), (Console.LINE_MODE, b"one\ntwo\n")]
    assert desk.memory.read(BLOCK + 11, 1) == b"\x80"


def test_a_machine_without_line_mode_refuses_such_events() -> None:
    desk = Desk(line_mode=False)
    assert desk.call(Command.WRITE_EVENT_DATA, message("one")) == 0x40F0
    assert desk.shown == []


def test_what_is_typed_is_announced_and_read_once() -> None:
    desk = Desk()
    desk.enable(receive=0x40)
    assert desk.call(Command.READ_EVENT_DATA, bytes(4088)) == 0x60F0
    desk.sclp.type(b"root\n")
    assert desk.sclp.pending == 1
    desk.sclp.pending = None
    assert desk.call(Command.READ_EVENT_DATA, bytes(4088)) == 0x20
    assert desk.memory.read(BLOCK, 2) == (20).to_bytes(2, "big")
    assert desk.memory.read(BLOCK + 8, 12) == bytes.fromhex("000c1a00000000") + b"root\n"
    assert desk.call(Command.READ_EVENT_DATA, bytes(4088)) == 0x60F0


def test_typing_waits_until_the_guest_listens() -> None:
    desk = Desk()
    desk.sclp.type(b"early")
    assert desk.sclp.pending is None
    desk.enable(receive=0x40)
    assert desk.call(Command.READ_EVENT_DATA, bytes(4088)) == 0x20


def test_all_that_is_typed_is_read_and_room_is_told() -> None:
    desk = Desk()
    desk.enable(receive=0x40)
    told: list[int] = []
    text = bytes(range(256)) * 400
    desk.sclp.type(text, lambda: told.append(len(desk.sclp.input)))
    desk.sclp.pending = None
    assert not told
    read = b""
    while desk.call(Command.READ_EVENT_DATA, bytes(4088)) == 0x20:
        length = int.from_bytes(desk.memory.read(BLOCK + 8, 2), "big")
        read += desk.memory.read(BLOCK + 15, length - 7)
    assert read == text
    assert len(told) == 1
    assert 0 < told[0] <= INPUT_LIMIT


def test_the_machine_is_described() -> None:
    desk = Desk()
    assert desk.call(Command.READ_SCP_INFO, bytes(248)) == 0x10
    block = desk.memory.read(BLOCK, 256)
    assert (int.from_bytes(block[8:10], "big"), block[10]) == (4, 1)
    assert int.from_bytes(block[16:18], "big") == 2
    assert desk.call(Command.READ_SCP_INFO, bytes(100)) == 0x300


def test_unknown_commands_and_bad_lengths_are_answered() -> None:
    desk = Desk()
    assert desk.call(0x00990001, bytes(24)) == 0x1F0
    assert desk.call(Command.WRITE_EVENT_MASK, bytes(2)) == 0x300
    assert desk.call(Command.WRITE_EVENT_MASK, bytes(2) + b"\0\0" + bytes(16)) == 0x74F0
    assert desk.call(Command.WRITE_EVENT_DATA, b"\xff\xff\x1a\0\0\0") == 0x70F0
    desk.memory.write(BLOCK + 0xF00, (0x200).to_bytes(2, "big"))
    desk.sclp.service_call(Command.WRITE_EVENT_DATA, BLOCK + 0xF00, PREFIX)
    assert desk.memory.read(BLOCK + 0xF06, 2) == b"\1\0"


def test_a_call_while_another_is_not_answered_is_busy() -> None:
    desk = Desk()
    desk.memory.write(BLOCK, (8).to_bytes(2, "big"))
    assert desk.sclp.service_call(Command.WRITE_EVENT_DATA, BLOCK, PREFIX) == 0
    assert desk.sclp.service_call(Command.WRITE_EVENT_DATA, BLOCK, PREFIX) == 2
    desk.sclp.reset()
    assert desk.sclp.service_call(Command.WRITE_EVENT_DATA, BLOCK, PREFIX) == 0


@pytest.mark.parametrize(
    ("address", "code"),
    [
        (0x1000, ProgramCode.SPECIFICATION),
        (PREFIX + 0x1000, ProgramCode.SPECIFICATION),
        (0x4004, ProgramCode.SPECIFICATION),
        (0x80004000, ProgramCode.SPECIFICATION),
        (4 * MIB, ProgramCode.ADDRESSING),
        (0x5000, ProgramCode.SPECIFICATION),  # a length of 0
    ],
)
def test_blocks_that_can_not_be_are_program_interruptions(address: int, code: ProgramCode) -> None:
    with pytest.raises(ProgramInterruption) as caught:
        Desk().sclp.service_call(Command.WRITE_EVENT_DATA, address, PREFIX)
    assert caught.value.code is code


DESK = Desk()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(Command)), st.binary(max_size=200), st.integers(8, 4096))
def test_any_content_gets_an_answer(command: int, content: bytes, length: int) -> None:
    DESK.shown.clear()
    before = DESK.memory.read(BLOCK + 4096, 4096)
    assert DESK.call(command, content, length=length) != 0
    assert DESK.memory.read(BLOCK + 4096, 4096) == before
    assert sum(len(data) for _, data in DESK.shown) <= 4096
