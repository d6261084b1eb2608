"""Finding Linux' program-check table, and completing a call at its operation-exception handler."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from zseal.arch.psw import DAT, MASK_64BIT, PROBLEM_STATE, Psw
from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.engine.interface import Interrupted
from zseal.engine.memory import SharedMemory
from zseal.engine.qemu.interrupted_cpu import InterruptedCpu, last_interruption
from zseal.linux.program_checks import find_handler

BASE = 0x3FFE0000000  # virtual address of the kernel
AT = 2 * MIB  # its absolute address
LENGTH = 4 * MIB
RANGES = [(BASE, AT, LENGTH)]

DEFAULT, OPERATION = BASE + 0x1000, BASE + 0x2000
REAL_SPACE = 0x20  # ASCE under which virtual is real


def table() -> list[int]:
    """Entries as arch/s390/kernel/pgm_check.S of Linux 6.12 lists them, with addresses of our own."""
    entries = [DEFAULT] * 128
    named = {
        OPERATION: [0x01],
        BASE + 0x2100: [0x02],
        BASE + 0x2200: [0x03],
        BASE + 0x2300: [0x04, 0x05, 0x06],
        BASE + 0x2400: [0x07],
        BASE + 0x2500: [0x08, 0x0A],
        BASE + 0x2600: [0x09, 0x0B],
        BASE + 0x2700: [0x10, 0x11, 0x38, 0x39, 0x3A, 0x3B],
        BASE + 0x2800: [0x12],
        BASE + 0x2900: [0x3D],
        BASE + 0x2A00: [0x3E],
        BASE + 0x2B00: [0x50],
    }
    for handler, codes in named.items():
        for code in codes:
            entries[code] = handler
    return entries


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(8 * MIB)
    memory.write(AT, random.Random(5).randbytes(LENGTH))
    yield memory
    memory.close()


def put(memory: SharedMemory, offset: int, entries: list[int]) -> None:
    memory.write(AT + offset, b"".join(entry.to_bytes(8, "big") for entry in entries))


def test_the_handler_is_found_by_the_shape_of_its_table(memory: SharedMemory) -> None:
    put(memory, 0x123458, table())
    assert find_handler(memory, RANGES) == OPERATION


def test_a_copy_of_the_table_does_not_matter_but_another_one_does(memory: SharedMemory) -> None:
    put(memory, 0x1000, table())
    put(memory, 0x9000, table())
    assert find_handler(memory, RANGES) == OPERATION
    put(memory, 0x20000, [BASE + 0x3000 if entry == OPERATION else entry for entry in table()])
    assert find_handler(memory, RANGES) is None


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (0x01, DEFAULT),  # nothing of its own for operation exceptions
        (0x08, BASE + 0x9000),  # fixed-point overflow apart from decimal overflow
        (0x3B, BASE + 0x9000),  # region-third translation apart from page translation
        (0x60, 0x1234),  # no pointer into the kernel
    ],
)
def test_other_shapes_are_no_tables(memory: SharedMemory, code: int, value: int) -> None:
    entries = table()
    entries[code] = value
    put(memory, 0x8000, entries)
    assert find_handler(memory, RANGES) is None


def test_nothing_is_found_where_nothing_is(memory: SharedMemory) -> None:
    assert find_handler(memory, RANGES) is None
    assert find_handler(memory, []) is None
    assert find_handler(memory, [(BASE, AT, 512)]) is None
    memory.clear(AT, LENGTH)
    assert find_handler(memory, RANGES) is None


class HandlerCpu:
    """A CPU at the first instruction of the handler, with the address of pt_regs in register 2."""

    number = 3
    prefix = 0x6000

    def __init__(self) -> None:
        self.psw = Psw(DAT | MASK_64BIT, OPERATION)
        self.general = [index << 8 for index in range(16)]
        self.general[2], self.general[14] = 0x70000, BASE + 0x4444
        self.controls = [0xE0, REAL_SPACE, *[0] * 11, REAL_SPACE, 0, 0]

    def gr(self, number: int) -> int:
        return self.general[number]

    def set_gr(self, number: int, value: int) -> None:
        raise AssertionError("the handler's own registers stay")

    def cr(self, number: int) -> int:
        return self.controls[number]

    def set_cr(self, number: int, value: int) -> None:
        self.controls[number] = value

    def ar(self, number: int) -> int:
        return number

    def set_ar(self, number: int, value: int) -> None:
        raise AssertionError("not wanted here")

    def step(self) -> None:
        raise AssertionError("not wanted here")


def interrupted(memory: SharedMemory, mask: int = DAT | MASK_64BIT, code: bytes = b"\xb9\xa4\x00\x34") -> HandlerCpu:
    memory.write(0x50000, code)
    saved = [0, mask, 0x50004, *(0x1000 + index for index in range(16))]
    memory.write(0x70000, b"".join(word.to_bytes(8, "big") for word in saved))
    return HandlerCpu()


def test_the_interrupted_state_is_what_the_kernel_saved(memory: SharedMemory) -> None:
    cpu = InterruptedCpu(interrupted(memory), memory)
    assert cpu.psw == Psw(DAT | MASK_64BIT, 0x50000)
    assert [cpu.gr(number) for number in range(16)] == [0x1000 + number for number in range(16)]
    assert (cpu.number, cpu.prefix, cpu.cr(13), cpu.ar(5)) == (3, 0x6000, REAL_SPACE, 5)
    assert cpu.uvc() == b"\xb9\xa4\x00\x34"
    with pytest.raises(EngineError):
        cpu.step()


def test_a_completed_call_returns_from_the_handler(memory: SharedMemory) -> None:
    handler = interrupted(memory)
    cpu = InterruptedCpu(handler, memory)
    cpu.psw = cpu.psw.with_condition_code(1).advanced(4)
    cpu.set_gr(4, 0xABCD)
    cpu.finish()
    assert handler.psw == Psw(DAT | MASK_64BIT, BASE + 0x4444)
    again = InterruptedCpu(handler, memory)
    assert again.psw.advanced(4) == Psw(DAT | MASK_64BIT, 0x50004).with_condition_code(1)
    assert again.gr(4) == 0xABCD
    assert again.gr(5) == 0x1005


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (DAT | MASK_64BIT | PROBLEM_STATE, b"\xb9\xa4\x00\x34"),  # a user program: the kernel's business
        (MASK_64BIT, b"\xb9\xa4\x00\x34"),
        (DAT | MASK_64BIT, b"\x00\x00\x00\x00"),  # BUG()
    ],
)
def test_other_exceptions_are_left_to_the_kernel(memory: SharedMemory, mask: int, code: bytes) -> None:
    assert InterruptedCpu(interrupted(memory, mask, code), memory).uvc() is None


STOPPED_AT = 0x200000
UVC, DIAG_308 = bytes.fromhex("b9a40034"), bytes.fromhex("834a0308")


def ended_by(
    memory: SharedMemory,
    instruction: bytes = UVC,
    /,
    *,
    code: int = 1,
    length: int = 4,
    mask: int = DAT | MASK_64BIT,
    address: int = STOPPED_AT + 4,
) -> Interrupted | None:
    """What is made of a CPU whose lowcore tells of a program interruption."""
    cpu = HandlerCpu()
    memory.write(cpu.prefix, bytes(0x200))
    memory.write(cpu.prefix + 0x8C, length.to_bytes(2, "big") + code.to_bytes(2, "big"))
    memory.write(cpu.prefix + 0x150, mask.to_bytes(8, "big") + address.to_bytes(8, "big"))
    memory.write(STOPPED_AT, instruction)
    return last_interruption(cpu, memory)


def test_instruction_that_a_kernel_stopped_at_is_found_in_its_lowcore(memory: SharedMemory) -> None:
    assert ended_by(memory) == Interrupted(1, STOPPED_AT, UVC)
    assert ended_by(memory, DIAG_308, code=6) == Interrupted(6, STOPPED_AT, DIAG_308)


@pytest.mark.parametrize(
    "change",
    [
        {"code": 0x10},  # a page fault
        {"length": 0},
        {"mask": DAT | MASK_64BIT | PROBLEM_STATE},  # a program's
        {"mask": MASK_64BIT},
        {"address": 1 << 40},  # nothing is there
    ],
)
def test_other_interruptions_tell_nothing(memory: SharedMemory, change: dict[str, int]) -> None:
    assert ended_by(memory, **change) is None
