"""The hook that answers series of calls, against the same rules in Python: random series, calls and changes to them."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.native.building import NATIVE, build, examples
from zseal.arch.psw import CONDITION_CODE_SHIFT
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.errors import EngineError
from zseal.engine.interface import Series
from zseal.engine.unicorn.series import Interrupted, SeriesHook

REGISTERS = 18
PSW_MASK, PSW_ADDRESS = 16, 17
UVC_LENGTH = 4
CONDITION = 3 << CONDITION_CODE_SHIFT
BATCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_void_p), ctypes.c_int
)
INSTRUCTION, OPERAND, ADDRESS = 0x1_0000_2000, 4, 0x7000
PAGES = 8

Change = tuple[str, int, int]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("series"), "series", [NATIVE / "unicorn_hook" / "series.c"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A series: the parts of its control block, and the pages that are answered for."""

    block: bytes
    field: int
    answer_offset: int
    answer: bytes
    condition_code: int
    ready: Sequence[int]
    limit: int

    def series(self, completed: list[int]) -> Series:
        return Series(
            size=len(self.block),
            field=self.field,
            answer_offset=self.answer_offset,
            answer=self.answer,
            condition_code=self.condition_code,
            ready=np.array(self.ready, np.uint8),
            complete=lambda pages: completed.extend(pages.tolist()),
        )


class Cpu:
    """The registers and the control block that a call has, and how often the hook left it to Python."""

    def __init__(self, block: bytes) -> None:
        self.registers = [0] * REGISTERS
        self.block = (ctypes.c_ubyte * len(block)).from_buffer_copy(block)
        self.asked = 0

    def begin_call(self, plan: Plan, page: int, changes: Sequence[Change]) -> None:
        """Be at a call of the series for ``page``, but for ``changes``."""
        self.registers = [0x1000 + number for number in range(REGISTERS)]
        self.registers[PSW_MASK] = 0x0404_3001_8000_0000
        self.registers[PSW_ADDRESS], self.registers[OPERAND] = INSTRUCTION, ADDRESS
        block = bytearray(plan.block)
        block[plan.field : plan.field + 8] = ((page * PAGE_SIZE) % (1 << 64)).to_bytes(8, "big")
        for what, where, value in changes:
            if what == "block":
                block[where % len(block)] ^= value
            else:
                self.registers[where % REGISTERS] ^= value
        self.block[:] = list(block)

    def state(self) -> tuple[list[int], bytes]:
        return list(self.registers), bytes(self.block)


class Hooked:
    """A CPU whose calls go to the compiled hook."""

    def __init__(self, library: Path, plan: Plan) -> None:
        self.cpu = Cpu(plan.block)
        self.completed: list[int] = []
        self._values = (ctypes.c_uint64 * REGISTERS)()
        self._names = (ctypes.c_int * REGISTERS)(*range(100, 100 + REGISTERS))
        size = ctypes.sizeof(ctypes.c_uint64)
        places = [ctypes.addressof(self._values) + size * number for number in range(REGISTERS)]
        self._places = (ctypes.c_void_p * REGISTERS)(*places)
        self._functions = (BATCH(self._read), BATCH(self._write), Interrupted(self._otherwise))
        read, write, otherwise = (ctypes.cast(each, ctypes.c_void_p).value or 0 for each in self._functions)
        self._hook = SeriesHook(
            library,
            read=read,
            write=write,
            names=ctypes.addressof(self._names),
            values=ctypes.addressof(self._places),
            registers=ctypes.addressof(self._values),
            otherwise=otherwise,
        )
        self._hook._record.limit = plan.limit
        self._interrupted = Interrupted(self._hook.function)

    def begin(self, plan: Plan) -> None:
        block = ctypes.addressof(self.cpu.block)
        series = plan.series(self.completed)
        self._hook.begin(series, instruction=INSTRUCTION, operand=OPERAND, address=ADDRESS, block=block)

    def call(self) -> None:
        self._interrupted(None, 2, self._hook.record)

    def end(self) -> int:
        return self._hook.end()

    def _read(self, _uc: object, names: Sequence[int], places: Sequence[int], count: int) -> int:
        for number in range(count):
            ctypes.c_uint64.from_address(places[number]).value = self.cpu.registers[names[number] - 100]
        return 0

    def _write(self, _uc: object, names: Sequence[int], places: Sequence[int], count: int) -> int:
        for number in range(count):
            self.cpu.registers[names[number] - 100] = ctypes.c_uint64.from_address(places[number]).value
        return 0

    def _otherwise(self, _uc: object, _number: int, record: int | None) -> None:
        assert record == self._hook.record
        self.cpu.asked += 1


class Twin:
    """A CPU whose calls are answered by the rules, in Python."""

    def __init__(self, plan: Plan) -> None:
        self.cpu = Cpu(plan.block)
        self.completed: list[int] = []
        self._plan: Plan | None = None

    def begin(self, plan: Plan) -> None:
        self._plan, self._wanted = plan, bytes(self.cpu.block)
        self._ready, self._pages = list(plan.ready), list[int]()

    def call(self) -> None:
        page = self._page()
        if self._plan is None or page is None:
            self.cpu.asked += 1
            return
        plan, registers = self._plan, self.cpu.registers
        self._ready[page] = 0
        self._pages.append(page)
        self.cpu.block[plan.answer_offset : plan.answer_offset + len(plan.answer)] = list(plan.answer)
        registers[PSW_MASK] = registers[PSW_MASK] & ~CONDITION | plan.condition_code << CONDITION_CODE_SHIFT
        registers[PSW_ADDRESS] += UVC_LENGTH

    def _page(self) -> int | None:
        """Return the page that a call of the series is for, if it is to be answered."""
        plan, block = self._plan, bytes(self.cpu.block)
        if plan is None or len(self._pages) == plan.limit:
            return None
        if self.cpu.registers[PSW_ADDRESS] != INSTRUCTION or self.cpu.registers[OPERAND] != ADDRESS:
            return None
        free = {*range(plan.field, plan.field + 8)}
        free |= {*range(plan.answer_offset, plan.answer_offset + len(plan.answer))}
        if any(block[at] != self._wanted[at] for at in range(len(block)) if at not in free):
            return None
        page, offset = divmod(int.from_bytes(block[plan.field : plan.field + 8], "big"), PAGE_SIZE)
        return page if not offset and page < len(self._ready) and self._ready[page] else None

    def end(self) -> int:
        self.completed += self._pages
        count, self._plan, self._pages = len(self._pages), None, []
        return count


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    block = draw(st.binary(min_size=8, max_size=48))
    answer = draw(st.binary(max_size=6))
    return Plan(
        block=block,
        field=draw(st.integers(0, len(block) - 8)),
        answer_offset=draw(st.integers(0, len(block) - len(answer))),
        answer=answer,
        condition_code=draw(st.integers(0, 3)),
        ready=draw(st.lists(st.integers(0, 1), max_size=PAGES)),
        limit=draw(st.integers(1, 5)),
    )


pages = st.one_of(st.integers(0, PAGES + 1), st.sampled_from((1 << 51, (1 << 52) - 1)))
changes = st.one_of(
    st.tuples(st.just("block"), st.integers(0, 47), st.integers(1, 255)),
    st.tuples(st.just("register"), st.integers(0, REGISTERS - 1), st.sampled_from((1, 1 << 44, 1 << 63))),
)
calls = st.lists(st.tuples(pages, st.one_of(st.just([]), st.just([]), st.lists(changes, max_size=2))), max_size=12)


@given(plan=plans(), runs=st.lists(calls, min_size=1, max_size=2))
@settings(max_examples=examples(300))
def test_the_hook_does_what_its_rules_say(
    library: Path, plan: Plan, runs: list[list[tuple[int, list[Change]]]]
) -> None:
    hooked, twin = Hooked(library, plan), Twin(plan)
    for run in runs:
        for each in (hooked, twin):
            each.cpu.begin_call(plan, 0, [])
        hooked.begin(plan)
        twin.begin(plan)
        for page, changed in run:
            for each in (hooked, twin):
                each.cpu.begin_call(plan, page, changed)
                each.call()
            assert hooked.cpu.state() == twin.cpu.state()
            assert hooked.cpu.asked == twin.cpu.asked
        assert hooked.end() == twin.end()
        assert hooked.completed == twin.completed
        for each in (hooked, twin):
            each.call()  # there is no series now
        assert hooked.cpu.state() == twin.cpu.state()
        assert hooked.cpu.asked == twin.cpu.asked


@pytest.mark.parametrize(
    ("field", "answer_offset", "answer"), [(9, 0, b""), (0, 15, b"ab"), (0, 17, b""), (17, 0, b"")]
)
def test_a_series_with_fields_outside_its_control_block_is_refused(
    library: Path, field: int, answer_offset: int, answer: bytes
) -> None:
    plan = Plan(
        block=bytes(16),
        field=field,
        answer_offset=answer_offset,
        answer=answer,
        condition_code=0,
        ready=[1],
        limit=1,
    )
    hooked = Hooked(library, plan)
    with pytest.raises(EngineError, match="outside its control block"):
        hooked.begin(plan)
    hooked.call()
    assert hooked.cpu.asked == 1
