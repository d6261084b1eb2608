"""What is typed at a guest: all of it is delivered, and who types is told when there is room."""

from __future__ import annotations

from zseal.arch.storage import MIB
from zseal.engine.consoleinput import INPUT_LIMIT, ConsoleInput


def test_there_is_room_while_little_waits() -> None:
    waiting, told = ConsoleInput(), list[str]()
    waiting.add(b"a" * INPUT_LIMIT, lambda: told.append("first"))
    assert told == ["first"]
    waiting.add(b"bc", lambda: told.append("second"))
    assert waiting.take(1) == b"a"
    assert told == ["first"]
    assert waiting.take(1) == b"a"
    assert told == ["first", "second"]
    assert waiting.take(MIB) == b"a" * (INPUT_LIMIT - 2) + b"bc"


def test_who_is_told_may_add_more() -> None:
    waiting = ConsoleInput()
    waiting.add(b"a", lambda: waiting.add(b"b"))
    assert waiting.take(2) == b"ab"


def test_nothing_waits_behind_the_end() -> None:
    waiting, told = ConsoleInput(), list[str]()
    waiting.add(b"a" * (INPUT_LIMIT + 1), lambda: told.append("end"))
    waiting.close()
    assert told == ["end"]
    waiting.add(b"a" * (INPUT_LIMIT + 1), lambda: told.append("dropped"))
    assert told == ["end", "dropped"]
    assert not waiting
