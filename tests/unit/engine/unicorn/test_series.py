"""Series of calls: answered without a word from Python, and nobody can tell afterwards."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.engine.unicorn.conftest import CODE, HOME, LOOP, PRIMARY, REAL, STACK, Calls, Machine, begin, run_all
from zseal.arch.psw import Psw
from zseal.arch.storage import PAGE_SIZE
from zseal.engine.errors import EngineError
from zseal.engine.interface import Series, Trap
from zseal.engine.unicorn.runahead import End, RunAhead
from zseal.engine.unicorn.series import LIMIT, hook_path

FIRST = 0x300000
ANSWER = b"\0\1\0\0"


class Answers(Calls):
    """Answers calls one by one or in series; ``ready`` tells which pages may come in series."""

    def __init__(self, machine: Machine, ready: Callable[[int], bool] = lambda page: True) -> None:
        super().__init__(machine.memory)
        self.machine = machine
        self.alone: list[int] = []
        self.batches: list[int] = []
        self.asked = 0
        self._ready = ready

    def __call__(self, trap: Trap) -> bool:
        more = super().__call__(trap)
        self.alone.append(self.pages[-1])
        block = trap.cpu.gr(trap.r2)
        self.memory.write(block + 4, ANSWER)
        return more

    def series(self, trap: Trap) -> Series | None:
        self.asked += 1
        ready = np.array([self._ready(page) for page in range(0x20000)], np.uint8)
        return Series(
            size=32, field=24, answer_offset=4, answer=ANSWER, condition_code=0, ready=ready, complete=self.complete
        )

    def complete(self, pages: NDArray[np.int64]) -> None:
        self.batches.append(len(pages))
        self.pages += [page * PAGE_SIZE for page in pages.tolist()]


def run(machine: Machine, ahead: RunAhead, answers: Answers) -> int:
    total = 0
    while True:
        stretch = ahead.run(machine, answers, answers.series)
        total += stretch.calls
        if stretch.end is not End.TIME:
            return total


def state(machine: Machine) -> tuple[Psw, list[int], list[int], bytes]:
    return machine.psw, list(machine.grs), list(machine.ars), machine.memory.read(0, machine.memory.size)


def test_the_compiled_hook_is_in_the_package() -> None:
    assert hook_path() is not None, "run `make native` on a kind of computer that native/Makefile names"


@pytest.mark.parametrize("mask", [HOME, PRIMARY, REAL])
def test_a_series_leaves_what_single_calls_leave(machine: Machine, ahead: RunAhead, mask: int) -> None:
    pages = 2 * LIMIT + 77
    single, together = Answers(machine), Answers(machine)
    start = dataclasses.replace(machine, grs=list(machine.grs), ars=list(machine.ars))
    begin(machine, pages, mask=mask)
    assert run_all(ahead, machine, single)[0] == pages
    expected = state(machine)
    machine.memory.write(STACK - PAGE_SIZE, bytes(2 * PAGE_SIZE))
    machine.grs, machine.ars = start.grs, start.ars
    begin(machine, pages, mask=mask)
    assert run(machine, ahead, together) == pages
    assert together.pages == single.pages == [FIRST + PAGE_SIZE * number for number in range(pages)]
    assert len(together.alone) < 20
    assert max(together.batches) <= LIMIT
    assert state(machine) == expected


def test_a_page_that_is_not_ready_comes_alone_and_in_its_order(machine: Machine, ahead: RunAhead) -> None:
    refused = {(FIRST >> 12) + number for number in (5, 6, 7, 50, 99)}
    answers = Answers(machine, lambda page: page not in refused)
    begin(machine, 100)
    assert run(machine, ahead, answers) == 100
    assert answers.pages == [FIRST + PAGE_SIZE * number for number in range(100)]
    assert refused <= {page >> 12 for page in answers.alone}


def test_a_page_is_answered_for_once(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE + LOOP.index(bytes.fromhex("a78b1000")), "a78b0000")  # always the same page
    begin(machine, 10)
    answers = Answers(machine)
    assert run(machine, ahead, answers) == 10
    assert answers.pages == [FIRST] * 10
    assert set(answers.batches) == {1}


def test_calls_that_differ_in_more_than_the_page_come_alone(machine: Machine, ahead: RunAhead) -> None:
    machine.put(CODE + LOOP.index(bytes.fromhex("d71ff000f000")), "e320f0080024")  # stg %r2,8(%r15) in place of xc
    begin(machine, 20)
    answers = Answers(machine)
    assert run(machine, ahead, answers) == 20
    assert answers.asked > 0
    assert answers.batches == []


def test_calls_beside_the_guest_s_storage_come_alone(machine: Machine, ahead: RunAhead) -> None:
    answers = Answers(machine)
    begin(machine, 20)
    machine.grs[2] = 0x1FFF0000  # 16 pages before the end of what `ready` tells
    assert run(machine, ahead, answers) == 20
    assert answers.pages == [0x1FFF0000 + PAGE_SIZE * number for number in range(20)]
    assert [page >> 12 for page in answers.alone[-4:]] == [0x20000, 0x20001, 0x20002, 0x20003]


def test_without_a_compiled_hook_every_call_comes_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zseal.engine.unicorn.emulator.hook_path", lambda: None)
    ahead, answers = RunAhead(machine.memory), Answers(machine)
    try:
        begin(machine, 50)
        assert run(machine, ahead, answers) == 50
    finally:
        ahead.close()
    assert answers.asked == 0
    assert len(answers.alone) == 50


def test_what_completing_raises_comes_out_with_the_registers_handed_back(machine: Machine, ahead: RunAhead) -> None:
    class Broken(Answers):
        def complete(self, pages: NDArray[np.int64]) -> None:
            raise EngineError("no more")

    begin(machine, 50)
    broken = Broken(machine)
    with pytest.raises(EngineError, match="no more"):
        ahead.run(machine, broken, broken.series)
    assert machine.psw.address != CODE


def test_a_series_with_fields_outside_its_block_is_refused(machine: Machine, ahead: RunAhead) -> None:
    class Outside(Answers):
        def series(self, trap: Trap) -> Series | None:
            found = super().series(trap)
            assert found is not None
            return dataclasses.replace(found, size=28)

    begin(machine, 50)
    outside = Outside(machine)
    with pytest.raises(EngineError, match="outside its control block"):
        ahead.run(machine, outside, outside.series)


def test_time_is_looked_at_in_a_series(machine: Machine, ahead: RunAhead, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(machine)
    begin(machine, 3 * LIMIT)
    ticks = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(1000.0))  # at the start, and at each call that comes here
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    stretch = ahead.run(machine, answers, answers.series)
    assert (stretch.calls, stretch.end) == (2 + LIMIT + 1, End.TIME)
