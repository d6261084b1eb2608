"""The way into a guest's thread: every call comes back, whenever it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.waiting import PATIENCE
from zseal.engine.errors import EngineError
from zseal.guest.thread import GuestThread


def outcome_of(function: Callable[[], object]) -> object:
    """Return what ``function`` returns or raises; it may not wait forever."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "the call never came back"
    return found[0]


def test_a_call_gives_what_the_function_gives() -> None:
    thread = GuestThread("test")
    thread.start()
    try:
        assert thread.call(threading.current_thread).name == "test"
        with pytest.raises(ZeroDivisionError):
            thread.call(lambda: 1 // 0)
    finally:
        thread.close()


def test_a_call_before_the_start_is_refused() -> None:
    thread = GuestThread("test")
    found = outcome_of(lambda: thread.call(lambda: 1))
    assert isinstance(found, EngineError)
    assert found.message == "the guest is not started"
    thread.close()


@pytest.mark.parametrize("started", [True, False])
def test_a_call_behind_the_end_is_refused(started: bool) -> None:
    thread = GuestThread("test")
    if started:
        thread.start()
    thread.close()
    found = outcome_of(lambda: thread.call(lambda: 1))
    assert isinstance(found, EngineError)
    assert found.message == "the guest was closed"


def test_a_call_that_the_loop_does_not_come_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = GuestThread("test")
    thread.start()
    in_last_turn, queued = threading.Event(), threading.Event()

    def last_turn() -> None:
        thread.loop.stop()
        in_last_turn.set()
        queued.wait(PATIENCE)

    queue = thread.loop.call_soon_threadsafe
    queue(last_turn)
    assert in_last_turn.wait(PATIENCE)

    def queue_and_tell(callback: Callable[[], object]) -> None:
        queue(callback)
        queued.set()

    monkeypatch.setattr(thread.loop, "call_soon_threadsafe", queue_and_tell)
    found = outcome_of(lambda: thread.call(lambda: 1))
    monkeypatch.undo()
    assert isinstance(found, EngineError)
    assert found.message == "the guest was closed"
    thread.close()
